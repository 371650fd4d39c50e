//! Words to ids: from memory where a word was met before, by merging where it is new.
//!
//! Most of a text is words seen before. Their ids come from a cache that is keyed by the words themselves, so that an
//! answer from it is the answer that merging gave. Words are looked up in batches: all slots are asked for before
//! the first is read, so that memory answers many at once.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::TokenId;
use crate::blocks::{self, Instructions};
use crate::bpe::{Merge, MergeScratch, Merger};
use crate::cache::{self, INLINE, Key, SHORT_WORD, Seed, WordCache};
use crate::seams::Seams;
use crate::words::{Cuts, MORE_PLACES};

/// The words of a tokenizer.
#[derive(Debug)]
pub(crate) struct LookUp {
    merger: Merger,
    /// Words that are one token although merging does not lead there; only of tokenizers that look words up first.
    whole: HashMap<Box<[u8]>, TokenId, FixedState>,
    /// A bit for each of their lengths; the last is for 63 and all above.
    whole_lengths: u64,
    /// The short words of the vocabulary, in the order of their hashes.
    seeds: Vec<Seed>,
    /// `None` where it is not known what all tokens stand for.
    seams: Option<Seams>,
    instructions: Instructions,
}

/// What a thread keeps from text to text.
#[derive(Debug)]
pub(crate) struct LookUpState {
    cache: WordCache,
    batch: Box<Batch>,
    merging: MergeScratch,
    ids: Vec<TokenId>,
}

/// Words that are looked up together.
#[derive(Debug)]
struct Batch {
    /// Where they begin, and the end of the last.
    starts: [usize; BATCH + MORE_PLACES + 1],
    /// The keys of short words; for longer ones, [`TOO_LONG`].
    keys: [Key; BATCH + MORE_PLACES],
    /// Their first slots.
    slots: [u32; BATCH + MORE_PLACES],
}

/// The least of a full batch. As many lines of 64 bytes fit into a first-level cache beside the rest.
const BATCH: usize = 256;
/// The key of a word that is too long for one: free slots have it, and they are not looked for.
const TOO_LONG: Key = [0, 1];

impl LookUp {
    /// `merges` are those of `merger`. `words` are those of the vocabulary with their ids; with `ignore_merges` they
    /// count even where merging leads elsewhere.
    pub(crate) fn new(
        mut merger: Merger,
        merges: &[Merge],
        words: Vec<(Box<[u8]>, TokenId)>,
        ignore_merges: bool,
        instructions: Instructions,
    ) -> Self {
        let mut leads_to = merger.settle(merges, &words).into_iter();
        let (mut words, others): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|_| leads_to.next().expect("one for each word"));
        let seams = seams(merges, words.iter().chain(&others));
        let whole = if ignore_merges { others } else { Vec::new() };
        words.extend_from_slice(&whole);
        let short = words.iter().filter(|(word, _)| word.len() <= SHORT_WORD);
        let mut seeds: Vec<Seed> = short
            .map(|(word, id)| {
                let key = cache::key(word);
                Seed { hash: cache::hash(key), key, id: *id }
            })
            .collect();
        seeds.sort_unstable_by_key(|seed| seed.hash);
        let whole_lengths = whole.iter().fold(0, |lengths, (word, _)| lengths | length_bit(word));
        Self { merger, whole: whole.into_iter().collect(), whole_lengths, seeds, seams, instructions }
    }

    /// An empty memory of about `cache_bytes`.
    ///
    /// # Errors
    /// If the system has no memory left.
    pub(crate) fn state(&self, cache_bytes: usize) -> std::io::Result<LookUpState> {
        Ok(LookUpState {
            cache: WordCache::new(cache_bytes, &self.seeds)?,
            batch: Box::new(Batch { starts: [0; _], keys: [TOO_LONG; _], slots: [0; _] }),
            merging: MergeScratch::default(),
            ids: Vec::new(),
        })
    }

    /// Appends the ids of the words of `text` that `cuts` has cut.
    pub(crate) fn look_up(&self, text: &[u8], cuts: &Cuts, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        #[cfg(target_arch = "x86_64")]
        if self.instructions != Instructions::Portable && blocks::has_avx2() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.look_up_avx2(text, cuts, state, out) };
        }
        self.look_up_any(text, cuts, state, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
    fn look_up_avx2(&self, text: &[u8], cuts: &Cuts, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        self.look_up_any(text, cuts, state, out);
    }

    #[inline(always)]
    fn look_up_any(&self, text: &[u8], cuts: &Cuts, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        let mut places = cuts.places();
        state.batch.starts[0] = 0;
        loop {
            let Batch { starts, keys, slots } = &mut *state.batch;
            let count = places.fill(&mut starts[1..], BATCH);
            if count == 0 {
                return;
            }
            let words = starts[..=count].array_windows();
            for ((key, slot), &[start, end]) in keys.iter_mut().zip(slots.iter_mut()).zip(words) {
                // One by one: a key that is put together in memory takes longer to read back.
                let (low, high, first) = prepare(text, start, end, &state.cache);
                key[0] = low;
                key[1] = high;
                *slot = first;
            }
            self.flush(text, count, state, out);
            state.batch.starts[0] = state.batch.starts[count];
        }
    }

    /// Appends the ids of the first `count` words of the batch.
    #[inline(always)]
    fn flush(&self, text: &[u8], count: usize, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        let mut next = 0;
        while next < count {
            // As many ids are written for each word, and the next one begins where its own end.
            out.reserve((count - next) * INLINE);
            let mut used = 0;
            let free = out.spare_capacity_mut();
            let probes = state.batch.keys[next..count].iter().zip(&state.batch.slots[next..count]);
            for (&key, &slot) in probes {
                let Some((ids, len)) = state.cache.find_first(key, slot) else { break };
                free[used..used + INLINE].write_copy_of_slice(ids);
                used += len;
                next += 1;
            }
            let len = out.len() + used;
            // SAFETY: the loop has written `used` ids behind those that were there.
            unsafe { out.set_len(len) };
            if next < count {
                let (start, end) = (state.batch.starts[next], state.batch.starts[next + 1]);
                self.look_further(&text[start..end], state.batch.keys[next], state, out);
                next += 1;
            }
        }
    }

    /// Appends the ids of a word that is not in its first slot.
    #[inline(never)]
    fn look_further(&self, word: &[u8], key: Key, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        let cache = &mut state.cache;
        let is_short = word.len() <= SHORT_WORD;
        let hash = if is_short { cache::hash(key) } else { cache.hash_long(word) };
        let known = if is_short { cache.find_short(key, hash) } else { cache.find_long(word, hash) };
        if let Some(known) = known {
            return out.extend_from_slice(known);
        }
        if !is_short && let Some(seams) = &self.seams {
            let end = seams.piece(word);
            if end < word.len() {
                let before = out.len();
                self.look_up_pieces(word, end, seams, state, out);
                return state.cache.remember_long(word, hash, &out[before..]);
            }
        }
        self.merge(word, key, hash, state, out);
    }

    /// Appends the ids of a long word piece by piece; the first ends at `end`.
    fn look_up_pieces(
        &self,
        mut word: &[u8],
        mut end: usize,
        seams: &Seams,
        state: &mut LookUpState,
        out: &mut Vec<TokenId>,
    ) {
        loop {
            let piece = &word[..end];
            if self.whole_lengths & length_bit(piece) != 0 && self.whole.contains_key(piece) {
                // One token as a word, but not as a part of one.
                self.merger.merge(piece, &mut state.merging, out);
            } else if end <= SHORT_WORD {
                let key = match word.first_chunk() {
                    Some(bytes) => cache::key_within(bytes, end),
                    None => cache::key(piece),
                };
                let hash = cache::hash(key);
                if let Some((ids, len)) = state.cache.find_first(key, state.cache.slot(hash)) {
                    out.extend_from_slice(ids);
                    out.truncate(out.len() - INLINE + len);
                } else if let Some(known) = state.cache.find_short(key, hash) {
                    out.extend_from_slice(known);
                } else {
                    self.merge(piece, key, hash, state, out);
                }
            } else {
                let hash = state.cache.hash_long(piece);
                match state.cache.find_long(piece, hash) {
                    Some(known) => out.extend_from_slice(known),
                    None => self.merge(piece, TOO_LONG, hash, state, out),
                }
            }
            word = &word[end..];
            if word.is_empty() {
                return;
            }
            end = seams.piece(word);
        }
    }

    /// Appends and remembers the ids of a word that is not known.
    fn merge(&self, word: &[u8], key: Key, hash: u64, state: &mut LookUpState, out: &mut Vec<TokenId>) {
        let LookUpState { cache, merging, ids, .. } = state;
        ids.clear();
        let whole = if self.whole.is_empty() { None } else { self.whole.get(word) };
        match whole {
            Some(&id) => ids.push(id),
            None => self.merger.merge(word, merging, ids),
        }
        if word.len() <= SHORT_WORD {
            cache.remember_short(key, hash, ids);
        } else {
            cache.remember_long(word, hash, ids);
        }
        out.extend_from_slice(ids);
    }
}

fn length_bit(word: &[u8]) -> u64 {
    1 << word.len().min(63)
}

/// Where words can be cut; `None` if a half of a merge is not among `words`.
fn seams<'w>(merges: &[Merge], words: impl Iterator<Item = &'w (Box<[u8]>, TokenId)>) -> Option<Seams> {
    let word_of: HashMap<TokenId, &[u8], FixedState> = words.map(|(word, id)| (*id, &**word)).collect();
    let word = |id: TokenId| word_of.get(&id).copied();
    let halves = merges.iter().map(|&(left, right, _)| Some((word(left)?, word(right)?)));
    let halves: Vec<(&[u8], &[u8])> = halves.collect::<Option<_>>()?;
    Some(Seams::new(halves.into_iter()))
}

/// The key of the word from `start` to `end` and its first slot, for which memory is asked.
#[inline(always)]
fn prepare(text: &[u8], start: usize, end: usize, cache: &WordCache) -> (u64, u64, u32) {
    let len = end - start;
    if len > SHORT_WORD {
        cache.prefetch_long(cache.hash_long(&text[start..end]));
        return (TOO_LONG[0], TOO_LONG[1], 0);
    }
    let [low, high] = match text[start..].first_chunk::<16>() {
        Some(bytes) => cache::key_within(bytes, len),
        None => cache::key(&text[start..end]),
    };
    let slot = cache.slot(cache::hash([low, high]));
    cache.prefetch_short(slot);
    (low, high, slot)
}
