//! Merging: the tokens of one word, by the rank of the pairs in it.
//!
//! Byte-pair encoding merges the adjacent pair of lowest rank, the leftmost of equals, until none is left (Sennrich,
//! Haddow and Birch 2016; ranks and ids as `tokenizers` 0.23 has them). Short words keep rank and place of each pair in one array
//! whose minimum is the next merge; longer ones keep them in a heap; very long ones, a megabyte of one letter, in one list a rank.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hint::select_unpredictable;

use foldhash::fast::FixedState;

use crate::TokenId;

/// Ids and ranks are below this, so that two ids and a rank fit into 64 bits.
const LIMIT: u32 = 1 << 21;
const NO_RANK: u32 = u32::MAX;
const FREE: u64 = u64::MAX;
/// Pairs that make room for another one, each at its other place, before the table is made larger.
const MOVES: usize = 500;
/// Slots of up to this many pairs are near enough, a megabyte of them, to be looked at for every pair of a word.
const NEAR: usize = 1 << 16;
/// Tokens of the longest word that the array is used for; one bit each of a word says which are left.
const SHORT: usize = 64;
/// Words of more tokens are merged rank by rank, where the order of merges allows it.
const HUGE: usize = 4096;

/// A merge of a tokenizer: the two halves and what they become.
pub(crate) type Merge = (TokenId, TokenId, TokenId);

/// The merges of a tokenizer.
#[derive(Debug)]
pub(crate) struct Merger {
    /// Left id, right id, rank from the top. A pair lies in one of two places, so that to find it, or that it is not there,
    /// takes two loads and no branch.
    slots: Vec<u64>,
    shift: u32,
    /// Of more pairs than [`NEAR`].
    filter: Option<Filter>,
    /// Rank by two bytes, for the first round.
    byte_pairs: Vec<u32>,
    /// Rank → id.
    merged: Vec<TokenId>,
    /// Where all ids follow their ranks: the id of rank 0.
    first_merged: Option<TokenId>,
    byte_ids: [TokenId; 256],
    /// Whether every pair ranks behind the merges that make its halves.
    is_ordered: bool,
    /// Character → its token, where its bytes are merged first wherever it stands. 0 for none, else id + 1.
    characters: Vec<u32>,
}

/// A bit for each hash of a pair, some sixteen times as many as there are pairs: most pairs of a text have none and are
/// refused by what fits into a near cache, without a look at the slots.
#[derive(Debug)]
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    /// `slots` are those of the merger, `count` how many are taken.
    fn new(slots: &[u64], count: usize) -> Self {
        let bits = (count * 16).next_power_of_two().ilog2();
        let mut filter = Self { bits: vec![0; 1 << (bits - 6)], shift: u64::BITS - bits };
        for slot in slots.iter().filter(|slot| **slot != FREE) {
            let bit = filter.bit(slot >> 21);
            filter.bits[bit / 64] |= 1 << (bit % 64);
        }
        filter
    }

    #[inline(always)]
    fn bit(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    #[inline(always)]
    fn may_have(&self, key: u64) -> bool {
        let bit = self.bit(key);
        self.bits[bit / 64] >> (bit % 64) & 1 != 0
    }
}

/// Memory that a thread keeps between words.
#[derive(Debug, Default)]
pub(crate) struct MergeScratch {
    ids: Vec<TokenId>,
    tokens: Vec<Token>,
}

/// A token of a long word, beside its neighbours; the order is that of the word.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: TokenId,
    /// Of the pair with the token after it.
    rank: u32,
    previous: u32,
    next: u32,
}

/// How far a word has been merged.
enum Merged {
    /// No pair is left to merge.
    All,
    Partly,
}

/// No token, before the first.
const NONE: u32 = u32::MAX;

impl Merger {
    /// `merges` by rank; `byte_ids` are the ids of the single bytes. `None` if there are more than 2^21.
    pub(crate) fn new(byte_ids: [TokenId; 256], merges: &[Merge]) -> Option<Self> {
        let fits = |&(left, right, new): &Merge| left < LIMIT && right < LIMIT && new < LIMIT;
        if merges.len() >= LIMIT as usize
            || !merges.iter().all(fits)
            || byte_ids.iter().any(|&id| id >= LIMIT)
        {
            return None;
        }
        let mut merger = Self {
            slots: Vec::new(),
            shift: 0,
            filter: None,
            byte_pairs: vec![NO_RANK; 1 << 16],
            merged: merges.iter().map(|&(_, _, new)| new).collect(),
            first_merged: first_merged(merges),
            byte_ids,
            is_ordered: true,
            characters: Vec::new(),
        };
        merger.set_pairs(&(0..).zip(merges.iter().copied()).collect::<Vec<_>>());
        merger.is_ordered = merger.is_ordered(merges);
        for left in 0..=255u8 {
            for right in 0..=255u8 {
                let rank = merger.rank(byte_ids[usize::from(left)], byte_ids[usize::from(right)]);
                merger.byte_pairs[usize::from(left) << 8 | usize::from(right)] = rank;
            }
        }
        if merger.is_ordered {
            merger.characters = merger.whole_characters(merges);
        }
        Some(merger)
    }

    /// Fills the table with merges and their ranks.
    fn set_pairs(&mut self, merges: &[(u32, Merge)]) {
        let mut bits = (merges.len() * 2 + 1).next_power_of_two().ilog2().max(4);
        loop {
            let (mut slots, shift) = (vec![FREE; 1 << bits], u64::BITS - bits);
            let mut pairs = merges.iter().map(|&(rank, (left, right, _))| {
                u64::from(left) << 42 | u64::from(right) << 21 | u64::from(rank)
            });
            if pairs.all(|slot| Self::insert(&mut slots, shift, slot)) {
                (self.slots, self.shift) = (slots, shift);
                break;
            }
            bits += 1;
        }
        self.filter = (merges.len() > NEAR).then(|| Filter::new(&self.slots, merges.len()));
    }

    /// Whether merging leads to its token for each word of the vocabulary; what no text comes to is forgotten.
    ///
    /// Files that were converted from a list of tokens have every way to halve each, twice as many pairs as tokens. But what
    /// lies outside two neighbours has not taken part in making them, so that their bytes alone are merged by the same
    /// steps and come to the same two: a pair is met in some text only if it is the last that is merged in its own word.
    pub(crate) fn settle(&mut self, merges: &[Merge], words: &[(Box<[u8]>, TokenId)]) -> Vec<bool> {
        let (mut scratch, mut found) = (MergeScratch::default(), Vec::new());
        let mut is_met = vec![false; merges.len()];
        let mut longer = HashSet::<TokenId, FixedState>::default();
        let leads_to = words.iter().map(|(word, id)| {
            found.clear();
            if word.len() > SHORT {
                longer.insert(*id);
                self.merge(word, &mut scratch, &mut found);
            } else {
                // Byte by byte, whatever characters are merged at once otherwise.
                let mut ids = [0; SHORT];
                ids.iter_mut().zip(word).for_each(|(id, &byte)| *id = self.byte_ids[usize::from(byte)]);
                let last = self.merge_short(word, &mut ids, word.len(), true, &mut found);
                if let (&[_], Some(is_met)) = (&found[..], is_met.get_mut(last as usize)) {
                    *is_met = true;
                }
            }
            found == [*id]
        });
        let leads_to = leads_to.collect();
        let ranked = (0u32..).zip(merges.iter().copied());
        let met: Vec<(u32, Merge)> =
            ranked.filter(|(rank, merge)| is_met[*rank as usize] || longer.contains(&merge.2)).collect();
        if met.len() < merges.len() {
            self.set_pairs(&met);
        }
        leads_to
    }

    fn is_ordered(&self, merges: &[Merge]) -> bool {
        // A pair that is listed twice has the later rank.
        let ranked = || (0u32..).zip(merges).filter(|&(rank, merge)| self.rank(merge.0, merge.1) == rank);
        let mut made_at = HashMap::<TokenId, u32, FixedState>::default();
        for (rank, merge) in ranked() {
            made_at.insert(merge.2, rank);
        }
        ranked().all(|(rank, merge)| {
            [merge.0, merge.1].iter().all(|half| made_at.get(half).is_none_or(|&made| made < rank))
        })
    }

    /// The two places where a pair may lie.
    #[inline(always)]
    fn places(key: u64, shift: u32) -> [usize; 2] {
        [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03].map(|odd| (key.wrapping_mul(odd) >> shift) as usize)
    }

    /// Puts a pair in one of its two places; what lies there moves on to its other one. The rank counts that was given
    /// last, as in the crate's map. False if after many moves one is left without a place.
    fn insert(slots: &mut [u64], shift: u32, mut slot: u64) -> bool {
        let [first, second] = Self::places(slot >> 21, shift);
        for at in [first, second] {
            if slots[at] == FREE || slots[at] >> 21 == slot >> 21 {
                slots[at] = slot;
                return true;
            }
        }
        let mut at = first;
        for _ in 0..MOVES {
            slot = std::mem::replace(&mut slots[at], slot);
            if slot == FREE {
                return true;
            }
            let [first, second] = Self::places(slot >> 21, shift);
            at = if at == first { second } else { first };
        }
        false
    }

    #[inline(always)]
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        let key = u64::from(left) << 21 | u64::from(right);
        if let Some(filter) = &self.filter
            && !filter.may_have(key)
        {
            return NO_RANK;
        }
        let [first, second] = Self::places(key, self.shift).map(|at| self.slots[at]);
        let slot = select_unpredictable(first >> 21 == key, first, second);
        select_unpredictable(slot >> 21 == key, slot as u32 & (LIMIT - 1), NO_RANK)
    }

    #[inline(always)]
    fn merged(&self, rank: u32) -> TokenId {
        match self.first_merged {
            Some(first) => first + rank,
            None => self.merged[rank as usize],
        }
    }

    /// Characters of two and three bytes that become one token before anything beside them can interfere.
    ///
    /// That holds if for each merge on the way no pair of lower rank has its left half on the right or its right half on the
    /// left: nothing outside can take a half away before. As merges are ordered, nothing of lower rank waits for the result.
    fn whole_characters(&self, merges: &[Merge]) -> Vec<u32> {
        let highest = merges
            .iter()
            .map(|m| m.0.max(m.1).max(m.2))
            .max()
            .unwrap_or(0)
            .max(*self.byte_ids.iter().max().expect("there are 256"));
        let mut as_left = vec![NO_RANK; highest as usize + 1];
        let mut as_right = as_left.clone();
        for (rank, &(left, right, _)) in (0u32..).zip(merges) {
            as_left[left as usize] = as_left[left as usize].min(rank);
            as_right[right as usize] = as_right[right as usize].min(rank);
        }
        let id_of = |c: char| {
            let mut bytes = [0; 4];
            let mut ids = [0; 4];
            let mut count = c.encode_utf8(&mut bytes).len();
            ids.iter_mut().zip(bytes).for_each(|(id, byte)| *id = self.byte_ids[usize::from(byte)]);
            while count > 1 {
                let ranks = ids[..count].array_windows().map(|&[left, right]| self.rank(left, right));
                let (rank, at) = ranks.zip(0..).min()?;
                let taken = |rank_outside: u32| rank_outside < rank;
                if rank == NO_RANK
                    || taken(as_right[ids[at] as usize])
                    || taken(as_left[ids[at + 1] as usize])
                {
                    return None;
                }
                ids[at] = self.merged[rank as usize];
                ids.copy_within(at + 2.., at + 1);
                count -= 1;
            }
            Some(ids[0] + 1)
        };
        let characters = (0..0x1_0000u32).map(|code_point| match char::from_u32(code_point) {
            Some(c) if !c.is_ascii() => id_of(c).unwrap_or(0),
            _ => 0,
        });
        characters.collect()
    }

    /// Appends the tokens of `word`, which is not empty.
    pub(crate) fn merge(&self, word: &[u8], scratch: &mut MergeScratch, out: &mut Vec<TokenId>) {
        if word.len() <= SHORT {
            let mut ids = [0; SHORT];
            let (count, all_bytes) = self.first_tokens(word, &mut ids);
            self.merge_short(word, &mut ids, count, all_bytes, out);
            return;
        }
        scratch.ids.clear();
        let mut rest = word;
        while !rest.is_empty() {
            let mut len = rest.len().min(SHORT);
            // Not within a character; a word of bytes that are no text is taken as it comes.
            len = (1..=len).rev().find(|&at| at == rest.len() || rest[at] & 0xC0 != 0x80).unwrap_or(len);
            let mut ids = [0; SHORT];
            let (count, _) = self.first_tokens(&rest[..len], &mut ids);
            scratch.ids.extend_from_slice(&ids[..count]);
            rest = &rest[len..];
        }
        if scratch.ids.len() > HUGE && self.is_ordered {
            match self.merge_runs(&mut scratch.ids) {
                Merged::All => out.extend_from_slice(&scratch.ids),
                Merged::Partly => self.merge_huge(scratch, out),
            }
        } else {
            self.merge_heap(scratch, out);
        }
    }

    /// Whole characters where that is safe, bytes elsewhere; their number, and whether all are bytes.
    #[inline(always)]
    fn first_tokens(&self, word: &[u8], ids: &mut [TokenId; SHORT]) -> (usize, bool) {
        if word.is_ascii() || self.characters.is_empty() {
            for (id, &byte) in ids.iter_mut().zip(word) {
                *id = self.byte_ids[usize::from(byte)];
            }
            return (word.len(), true);
        }
        let (mut count, mut at) = (0, 0);
        while at < word.len() {
            let (code_point, len) = match word[at] {
                lead @ 0xC2..=0xDF if at + 1 < word.len() => {
                    ((u32::from(lead) & 0x1F) << 6 | u32::from(word[at + 1] & 0x3F), 2)
                }
                lead @ 0xE0..=0xEF if at + 2 < word.len() => (
                    (u32::from(lead) & 0x0F) << 12
                        | u32::from(word[at + 1] & 0x3F) << 6
                        | u32::from(word[at + 2] & 0x3F),
                    3,
                ),
                _ => (0, 1),
            };
            let whole = self.characters[code_point as usize];
            if whole != 0 {
                ids[count] = whole - 1;
                (count, at) = (count + 1, at + len);
            } else {
                for &byte in &word[at..at + len] {
                    ids[count] = self.byte_ids[usize::from(byte)];
                    count += 1;
                }
                at += len;
            }
        }
        (count, false)
    }

    /// Returns the rank of the last merge.
    #[inline(always)]
    fn merge_short(
        &self,
        word: &[u8],
        ids: &mut [TokenId; SHORT],
        count: usize,
        all_bytes: bool,
        out: &mut Vec<TokenId>,
    ) -> u32 {
        // Rank and place of the pair that begins at a place: the least is the next to merge.
        let mut keys = [u32::MAX; SHORT];
        let key = |rank: u32, at: usize| if rank == NO_RANK { u32::MAX } else { rank << 6 | at as u32 };
        for at in 0..count - 1 {
            let rank = if all_bytes {
                self.byte_pairs[usize::from(word[at]) << 8 | usize::from(word[at + 1])]
            } else {
                self.rank(ids[at], ids[at + 1])
            };
            keys[at] = key(rank, at);
        }
        let mut alive = if count == SHORT { !0 } else { (1u64 << count) - 1 };
        let considered = count.next_multiple_of(8);
        let mut last = NO_RANK;
        loop {
            let least = keys[..considered]
                .chunks_exact(8)
                .fold([u32::MAX; 8], |least, keys| std::array::from_fn(|lane| least[lane].min(keys[lane])));
            let least = least.into_iter().min().expect("there are eight");
            if least == u32::MAX {
                break;
            }
            let at = (least & 63) as usize;
            let above = alive & !(1 << at);
            let right = (above >> at).trailing_zeros() as usize + at;
            last = least >> 6;
            ids[at] = self.merged(last);
            alive &= !(1 << right);
            keys[right] = u32::MAX;
            let beyond = alive >> at & !1;
            keys[at] = if beyond == 0 {
                u32::MAX
            } else {
                key(self.rank(ids[at], ids[at + beyond.trailing_zeros() as usize]), at)
            };
            let before = alive & ((1 << at) - 1);
            if before != 0 {
                let left = 63 - before.leading_zeros() as usize;
                keys[left] = key(self.rank(ids[left], ids[at]), left);
            }
        }
        while alive != 0 {
            out.push(ids[alive.trailing_zeros() as usize]);
            alive &= alive - 1;
        }
        last
    }

    /// Links the tokens of `scratch.ids` and ranks their pairs.
    fn link(&self, scratch: &mut MergeScratch) {
        let MergeScratch { ids, tokens } = scratch;
        tokens.clear();
        let token = |(at, &id): (u32, &TokenId)| {
            let rank = ids.get(at as usize + 1).map_or(NO_RANK, |&right| self.rank(id, right));
            Token { id, rank, previous: at.wrapping_sub(1), next: at + 1 }
        };
        tokens.extend((0..).zip(ids.iter()).map(token));
    }

    /// Merges the pair at `at`; calls `made` with the rank and place of each new pair.
    #[inline(always)]
    fn join(&self, at: u32, tokens: &mut [Token], mut made: impl FnMut(u32, u32)) {
        let Token { rank, previous, next: right, .. } = tokens[at as usize];
        let id = self.merged(rank);
        let next = tokens[right as usize].next;
        tokens[right as usize].rank = NO_RANK;
        let mut rank = NO_RANK;
        if let Some(after) = tokens.get_mut(next as usize) {
            after.previous = at;
            rank = self.rank(id, after.id);
            if rank != NO_RANK {
                made(rank, at);
            }
        }
        tokens[at as usize] = Token { id, rank, previous, next };
        if previous != NONE {
            let before = &mut tokens[previous as usize];
            before.rank = self.rank(before.id, id);
            if before.rank != NO_RANK {
                made(before.rank, previous);
            }
        }
    }

    fn emit(tokens: &[Token], out: &mut Vec<TokenId>) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            out.push(token.id);
            at = token.next as usize;
        }
    }

    fn merge_heap(&self, scratch: &mut MergeScratch, out: &mut Vec<TokenId>) {
        self.link(scratch);
        let tokens = &mut scratch.tokens;
        let pairs = (0u32..).zip(tokens.iter()).filter(|(_, token)| token.rank != NO_RANK);
        let mut heap: BinaryHeap<Reverse<(u32, u32)>> =
            pairs.map(|(at, token)| Reverse((token.rank, at))).collect();
        while let Some(Reverse((rank, at))) = heap.pop() {
            if tokens[at as usize].rank == rank {
                self.join(at, tokens, |rank, at| heap.push(Reverse((rank, at))));
            }
        }
        Self::emit(tokens, out);
    }

    /// Merges the pair of least rank wherever it stands, in one pass from the left, as long as that is one place in
    /// sixteen: in a run of one letter. Rank by rank is the order of merges, as for [`Self::merge_huge`], and takes no
    /// memory here.
    fn merge_runs(&self, ids: &mut Vec<TokenId>) -> Merged {
        loop {
            let (mut least, mut least_pair, mut count) = (NO_RANK, [0, 0], 0);
            let (mut pair, mut rank) = ([TokenId::MAX; 2], NO_RANK);
            for &here in ids.array_windows() {
                if here != pair {
                    (pair, rank) = (here, self.rank(here[0], here[1]));
                }
                if rank < least {
                    (least, least_pair, count) = (rank, pair, 0);
                }
                count += usize::from(rank == least);
            }
            if least == NO_RANK {
                return Merged::All;
            }
            if count < ids.len() / 16 {
                return Merged::Partly;
            }
            let (mut from, mut to) = (0, 0);
            while from < ids.len() {
                let is_pair = ids[from] == least_pair[0] && ids.get(from + 1) == Some(&least_pair[1]);
                ids[to] = if is_pair { self.merged(least) } else { ids[from] };
                from += 1 + usize::from(is_pair);
                to += 1;
            }
            ids.truncate(to);
        }
    }

    /// As [`Self::merge_heap`], in time proportional to the word: what a merge makes ranks behind it, so that all
    /// pairs of a rank are known when its turn comes. Takes some 24 bytes of memory for each byte of the word.
    fn merge_huge(&self, scratch: &mut MergeScratch, out: &mut Vec<TokenId>) {
        self.link(scratch);
        let tokens = &mut scratch.tokens;
        let mut places = Places {
            list_of: vec![NONE; self.merged.len()],
            lists: Vec::new(),
            free: Vec::new(),
            ranks: BinaryHeap::new(),
        };
        for (at, token) in (0..).zip(tokens.iter()) {
            if token.rank != NO_RANK {
                places.note(token.rank, at);
            }
        }
        while let Some((rank, mut list)) = places.take_least() {
            if !list.is_sorted() {
                list.sort_unstable();
            }
            for &at in &list {
                if tokens[at as usize].rank == rank {
                    self.join(at, tokens, |rank, at| places.note(rank, at));
                }
            }
            list.clear();
            places.free.push(list);
        }
        Self::emit(tokens, out);
    }
}

/// The id of the first merge, if that of each is one more than the one before.
fn first_merged(merges: &[Merge]) -> Option<TokenId> {
    let &(_, _, first) = merges.first()?;
    (first..).zip(merges).all(|(id, merge)| id == merge.2).then_some(first)
}

/// The places of pairs, by rank.
struct Places {
    /// Rank → index in `lists`.
    list_of: Vec<u32>,
    lists: Vec<Vec<u32>>,
    free: Vec<Vec<u32>>,
    ranks: BinaryHeap<Reverse<u32>>,
}

impl Places {
    #[inline(always)]
    fn note(&mut self, rank: u32, at: u32) {
        let list = &mut self.list_of[rank as usize];
        if *list == NONE {
            *list = self.lists.len() as u32;
            self.lists.push(self.free.pop().unwrap_or_default());
            self.ranks.push(Reverse(rank));
        }
        self.lists[*list as usize].push(at);
    }

    fn take_least(&mut self) -> Option<(u32, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let list = std::mem::replace(&mut self.list_of[rank as usize], NONE);
        Some((rank, std::mem::take(&mut self.lists[list as usize])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Model;
    use tokenizers::models::bpe::{BPE, Vocab};

    use super::*;
    use crate::seams::Seams;

    /// Ours and theirs over the letters a to d and é; ids of bytes are the bytes.
    fn both(pairs: &[(usize, usize)]) -> (Merger, BPE, Vec<String>) {
        let mut tokens: Vec<String> = ["a", "b", "c", "d", "Ã", "©"].map(str::to_owned).into();
        let id_of_letter = [b'a', b'b', b'c', b'd', 0xC3, 0xA9].map(u32::from);
        let mut ids: Vec<TokenId> = id_of_letter.into();
        let mut vocab: HashMap<String, TokenId> = tokens.iter().cloned().zip(ids.iter().copied()).collect();
        let mut merges = Vec::new();
        let mut theirs = Vec::new();
        for &(left, right) in pairs {
            let (left, right) = (left % tokens.len(), right % tokens.len());
            let new = format!("{}{}", tokens[left], tokens[right]);
            let next = 300 + vocab.len() as u32;
            let id = *vocab.entry(new.clone()).or_insert(next);
            merges.push((ids[left], ids[right], id));
            theirs.push((tokens[left].clone(), tokens[right].clone()));
            tokens.push(new);
            ids.push(id);
        }
        let vocab: Vocab = vocab.into_iter().collect();
        let bytes = |token: &str| token.chars().map(|c| crate::byte_level::unspell(c).unwrap()).collect();
        let words: Vec<(Box<[u8]>, TokenId)> = vocab.iter().map(|(token, &id)| (bytes(token), id)).collect();
        let bpe = BPE::builder().vocab_and_merges(vocab, theirs).build().unwrap();
        let mut merger = Merger::new(std::array::from_fn(|byte| byte as u32), &merges).unwrap();
        merger.settle(&merges, &words);
        (merger, bpe, tokens)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(800))]
        #[test]
        fn words_are_merged_as_theirs(
            pairs in proptest::collection::vec((0usize..30, 0usize..30), 0..25),
            word in "[abcdé]{1,12}|[ab]{1,90}|[abcdé]{60,70}",
            repeats in prop_oneof![9 => Just(1usize), 1 => Just(100)],
        ) {
            let (ours, theirs, tokens) = both(&pairs);
            let word = word.repeat(repeats);
            let spelt: String = word.bytes().map(crate::byte_level::spell).collect();
            let expected: Vec<TokenId> = theirs.tokenize(&spelt).unwrap().iter().map(|token| token.id).collect();
            let mut found = Vec::new();
            ours.merge(word.as_bytes(), &mut MergeScratch::default(), &mut found);
            prop_assert_eq!(&found, &expected);
            // Cut where no merge joins anything, the pieces have the same tokens.
            let bytes: Vec<Vec<u8>> =
                tokens.iter().map(|token| token.chars().filter_map(crate::byte_level::unspell).collect()).collect();
            let halves = pairs.iter().enumerate().map(|(n, &(left, right))| {
                (&*bytes[left % (n + 6)], &*bytes[right % (n + 6)])
            });
            let seams = Seams::new(halves);
            found.clear();
            let mut rest = word.as_bytes();
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(seams.piece(rest));
                ours.merge(piece, &mut MergeScratch::default(), &mut found);
                rest = others;
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_million_letters_take_no_time() {
        let merges: Vec<Merge> =
            (0..16).map(|n| if n == 0 { (97, 97, 300) } else { (299 + n, 299 + n, 300 + n) }).collect();
        let merger = Merger::new(std::array::from_fn(|byte| byte as u32), &merges).unwrap();
        let mut found = Vec::new();
        merger.merge(&[b'a'; 1 << 20], &mut MergeScratch::default(), &mut found);
        assert_eq!(found, vec![315; 16]);
    }
}
