//! Words seen before, with their ids, in fixed memory.
//!
//! Words up to 15 bytes are their own keys in slots of 32 bytes, with up to four ids beside them: one look at one
//! cache line answers for nearly all words of a text. Longer words are found by a hash and compared with their
//! bytes in an arena. A word may stand in any of a few slots after its first one; when all are taken it takes the
//! place of another. Arenas come in two generations: when the younger is full, the older is forgotten.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use memmap2::MmapMut;

use crate::TokenId;

/// Longest word that is its own key; the last byte of the key is its length and one.
pub(crate) const SHORT_WORD: usize = 15;
/// Longer words are rarely met again: runs of a script without spaces, base64.
const LONG_WORD: usize = 192;
/// Slots that are tried before one is overwritten.
const TRIES: usize = 8;
/// Ids in a slot; more of them lie in the arena.
pub(crate) const INLINE: usize = 4;
/// In place of the last id of a slot that has fewer: this and their number.
const FEWER: u32 = 1 << 31;
/// Beside the length in the key of a slot whose ids lie in the arena, so that the word alone does not match it.
const SPILLED: u64 = 1 << 63;

/// A word of the vocabulary that every cache begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) hash: u64,
    pub(crate) key: Key,
    pub(crate) id: TokenId,
}

/// A short word: its bytes, zeros, and its length and one.
pub(crate) type Key = [u64; 2];

/// The key of a word of up to [`SHORT_WORD`] bytes.
pub(crate) fn key(word: &[u8]) -> Key {
    let mut bytes = [0; 16];
    bytes[..word.len()].copy_from_slice(word);
    bytes[15] = word.len() as u8 + 1;
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
    [half(0), half(8)]
}

/// The key of the word that begins `bytes` and has `len` bytes, up to [`SHORT_WORD`] of them.
#[inline(always)]
pub(crate) fn key_within(bytes: &[u8; 16], len: usize) -> Key {
    /// By length: the bytes to keep, and what is put beside them.
    const PARTS: [([u64; 2], u64); SHORT_WORD + 1] = {
        let mut parts = [([0, 0], 0); SHORT_WORD + 1];
        let mut len = 0;
        while len <= SHORT_WORD {
            let keep = (1u128 << (8 * len)) - 1;
            parts[len] = ([keep as u64, (keep >> 64) as u64], (len as u64 + 1) << 56);
            len += 1;
        }
        parts
    };
    let (keep, length) = PARTS[len];
    let (halves, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]) & keep[0], u64::from_le_bytes(halves[1]) & keep[1] | length]
}

/// Mixes a key: one multiplication whose halves are folded together.
#[inline(always)]
pub(crate) fn hash(key: Key) -> u64 {
    let product =
        u128::from(key[0] ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(u128::from(key[1] ^ 0xD1B5_4A32_D192_ED03));
    (product as u64) ^ (product >> 64) as u64
}

/// Free while the second half of the key is 0.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
struct Short {
    /// With [`SPILLED`] or without.
    key: Key,
    /// Ids, the last perhaps [`FEWER`]; of more than [`INLINE`], their position in the arena, its generation, and
    /// their number.
    ids: [u32; INLINE],
}

impl Short {
    /// Number of ids, if they are not spilled.
    #[inline(always)]
    fn count(&self) -> usize {
        let last = self.ids[INLINE - 1];
        if last < FEWER { INLINE } else { (last - FEWER) as usize }
    }
}

/// Free while the length is 0.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
struct Long {
    hash: u64,
    bytes_at: u32,
    generation: u32,
    len: u16,
    count: u16,
    /// Position in the arena, of the same generation.
    ids_at: u32,
}

/// Slots in memory that the system gives zeroed, in large pages where it has them.
struct Slots<T> {
    memory: MmapMut,
    count: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Copy> Slots<T> {
    /// # Errors
    /// If the system has no memory left.
    fn new(count: usize) -> std::io::Result<Self> {
        let memory = MmapMut::map_anon(count * size_of::<T>())?;
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage); // A wish; without it the cache is a little slower.
        Ok(Self { memory, count, kind: std::marker::PhantomData })
    }

    #[inline(always)]
    fn all(&self) -> &[T] {
        // SAFETY: the mapping has `count` times the size of `T`, begins at a page and so is aligned, and is
        // zeroed; only `Short` and `Long` are kept in one, for which any bytes are a value.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.count) }
    }

    fn all_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `all`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.count) }
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing into the program, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.memory.as_ptr().wrapping_add(at * size_of::<T>()).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// Ids and bytes of words, in two generations.
#[derive(Default)]
struct Arena {
    /// The younger generation is the one of this parity.
    generation: u32,
    bytes: [Vec<u8>; 2],
    ids: [Vec<TokenId>; 2],
    max_bytes: usize,
    max_ids: usize,
}

impl Arena {
    fn has(&self, generation: u32) -> bool {
        self.generation - generation <= 1
    }

    /// Makes room for a word of these lengths.
    fn reserve(&mut self, bytes: usize, ids: usize) {
        let young = (self.generation & 1) as usize;
        if self.bytes[young].len() + bytes > self.max_bytes || self.ids[young].len() + ids > self.max_ids {
            self.generation += 1;
            self.bytes[1 - young].clear();
            self.ids[1 - young].clear();
        }
    }

    /// Keeps ids; returns where.
    fn put(&mut self, ids: &[TokenId]) -> u32 {
        let young = &mut self.ids[(self.generation & 1) as usize];
        let at = young.len() as u32;
        young.extend_from_slice(ids);
        at
    }

    fn ids(&self, at: u32, generation: u32, count: usize) -> &[TokenId] {
        &self.ids[(generation & 1) as usize][at as usize..at as usize + count]
    }
}

/// Word → ids.
pub(crate) struct WordCache {
    short: Slots<Short>,
    long: Slots<Long>,
    arena: Arena,
    hasher: FixedState,
    short_shift: u32,
    long_shift: u32,
}

impl std::fmt::Debug for WordCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordCache").field("short", &self.short.count).field("long", &self.long.count).finish()
    }
}

impl WordCache {
    /// A cache of about `bytes`, at least 64 KB: a quarter for short words, or half where a fifth of that would be taken
    /// by the vocabulary; an eighth for the slots of long words; the rest for the two generations of arenas, of which
    /// scripts with many tokens a word need most.
    ///
    /// # Errors
    /// If the system has no memory left.
    pub(crate) fn new(bytes: usize, seeds: &[Seed]) -> std::io::Result<Self> {
        let slots = |bytes: usize, size: usize| 1usize << (bytes / size).max(64).ilog2();
        let quarter = slots(bytes / 4, size_of::<Short>());
        let short = if seeds.len() > quarter / 5 { 2 * quarter } else { quarter };
        let long = slots(bytes / 8, size_of::<Long>());
        // A generation has a third of its bytes for words, the rest for ids.
        let generation = bytes.saturating_sub((short + long) * size_of::<Short>()) / 2;
        let mut cache = Self {
            short: Slots::new(short)?,
            long: Slots::new(long)?,
            arena: Arena {
                max_bytes: (generation / 3).clamp(4096, 1 << 30),
                max_ids: (generation / 3 * 2 / size_of::<TokenId>()).clamp(1024, 1 << 28),
                ..Arena::default()
            },
            hasher: FixedState::with_seed(0),
            short_shift: u64::BITS - short.ilog2(),
            long_shift: u64::BITS - long.ilog2(),
        };
        // More than half of the table would crowd out what the text brings.
        for seed in seeds.iter().take(if seeds.len() <= short / 2 { seeds.len() } else { 0 }) {
            cache.remember_short(seed.key, seed.hash, &[seed.id]);
        }
        Ok(cache)
    }

    pub(crate) fn hash_long(&self, word: &[u8]) -> u64 {
        self.hasher.hash_one(word)
    }

    /// The first slot of a short word.
    #[inline(always)]
    pub(crate) fn slot(&self, hash: u64) -> u32 {
        (hash >> self.short_shift) as u32 // There are fewer than 2^32: `u16` megabytes of 32 bytes each.
    }

    #[inline(always)]
    pub(crate) fn prefetch_short(&self, slot: u32) {
        self.short.prefetch(slot as usize);
    }

    #[inline(always)]
    pub(crate) fn prefetch_long(&self, hash: u64) {
        self.long.prefetch((hash >> self.long_shift) as usize);
    }

    /// The ids of a short word if they lie in its first slot, and how many of the four count.
    #[inline(always)]
    pub(crate) fn find_first(&self, key: Key, slot: u32) -> Option<(&[u32; INLINE], usize)> {
        let slot = &self.short.all()[slot as usize];
        (slot.key == key).then(|| (&slot.ids, slot.count()))
    }

    /// The ids of a short word. What is found behind its first slot is moved there, as it may be met again.
    pub(crate) fn find_short(&mut self, key: Key, hash: u64) -> Option<&[TokenId]> {
        let (first, mask, shift) =
            ((hash >> self.short_shift) as usize, self.short.count - 1, self.short_shift);
        let slots = self.short.all_mut();
        let is_key = |found: Key| found[0] == key[0] && found[1] & !SPILLED == key[1];
        let tries = (first..first + TRIES).map(|at| at & mask);
        let mut at = tries.take_while(|&at| slots[at].key[1] != 0).find(|&at| is_key(slots[at].key))?;
        if at != first {
            let [low, high] = slots[first].key;
            let home = (self::hash([low, high & !SPILLED]) >> shift) as usize;
            if (at.wrapping_sub(home) & mask) < TRIES {
                slots.swap(first, at);
                at = first;
            }
        }
        let slot = &self.short.all()[at];
        if slot.key[1] & SPILLED == 0 {
            return Some(&slot.ids[..slot.count()]);
        }
        let [ids_at, generation, count, _] = slot.ids;
        self.arena.has(generation).then(|| self.arena.ids(ids_at, generation, count as usize))
    }

    /// Remembers a short word that was not found.
    pub(crate) fn remember_short(&mut self, key: Key, hash: u64, ids: &[TokenId]) {
        let mut new = Short { key, ids: [0; INLINE] };
        if ids.len() > INLINE {
            self.arena.reserve(0, ids.len());
            new.ids = [self.arena.put(ids), self.arena.generation, ids.len() as u32, 0];
            new.key[1] |= SPILLED;
        } else {
            new.ids[INLINE - 1] = FEWER + ids.len() as u32;
            new.ids[..ids.len()].copy_from_slice(ids);
        }
        let first = (hash >> self.short_shift) as usize;
        let mask = self.short.count - 1;
        let slots = self.short.all_mut();
        // A word is met again here only if its ids were forgotten; then its slot is spilled.
        let is_free = |found: Key| found[1] == 0 || found == new.key;
        let free = (first..first + TRIES).find(|at| is_free(slots[at & mask].key));
        let at = free.unwrap_or(first + (hash as usize & (TRIES - 1)));
        slots[at & mask] = new;
    }

    /// The ids of a word of more than [`SHORT_WORD`] bytes.
    pub(crate) fn find_long(&self, word: &[u8], hash: u64) -> Option<&[TokenId]> {
        let first = (hash >> self.long_shift) as usize;
        for at in first..first + TRIES {
            let slot = &self.long.all()[at & (self.long.count - 1)];
            if slot.len == 0 {
                return None;
            }
            if slot.hash == hash && usize::from(slot.len) == word.len() && self.arena.has(slot.generation) {
                let bytes = &self.arena.bytes[(slot.generation & 1) as usize][slot.bytes_at as usize..];
                if bytes.starts_with(word) {
                    return Some(self.arena.ids(slot.ids_at, slot.generation, usize::from(slot.count)));
                }
            }
        }
        None
    }

    /// Remembers a longer word that was not found, unless it is too long to be met again.
    pub(crate) fn remember_long(&mut self, word: &[u8], hash: u64, ids: &[TokenId]) {
        if word.len() > LONG_WORD {
            return;
        }
        self.arena.reserve(word.len(), ids.len());
        let generation = self.arena.generation;
        let bytes = &mut self.arena.bytes[(generation & 1) as usize];
        let bytes_at = bytes.len() as u32;
        bytes.extend_from_slice(word);
        let ids_at = self.arena.put(ids);
        let first = (hash >> self.long_shift) as usize;
        let mask = self.long.count - 1;
        let slots = self.long.all_mut();
        let is_free = |slot: &Long| slot.len == 0 || generation - slot.generation > 1;
        let free = (first..first + TRIES).find(|at| is_free(&slots[at & mask]));
        let at = free.unwrap_or(first + (hash as usize & (TRIES - 1)));
        slots[at & mask] =
            Long { hash, bytes_at, generation, len: word.len() as u16, count: ids.len() as u16, ids_at };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_words_do() {
        assert_ne!(key(b"a"), key(b"a\0"));
        assert_ne!(key(b""), key(b"\0"));
        assert_eq!(key(b"fifteen letters"), key_within(b"fifteen letters!", 15));
        assert_eq!(key(b"ab"), key_within(b"abcdefghijklmnop", 2));
        assert_eq!(hash(key(b"ab")), hash(key_within(b"abcdefghijklmnop", 2)));
    }

    #[test]
    fn the_cache_gives_back_what_it_was_given_however_full() {
        for bytes in [1 << 16, 1 << 20, 32 << 20] {
            let mut cache = WordCache::new(bytes, &[]).unwrap();
            let (mut short_hits, mut long_hits) = (0, 0);
            for n in (0..60_000u32).chain(50_000..60_000).chain(59_900..60_000) {
                let ids: Vec<TokenId> = (0..n % 7 + 1).map(|m| n * 8 + m).collect();
                let short = format!("w{n}");
                let key = key(short.as_bytes());
                match cache.find_short(key, hash(key)) {
                    Some(found) => {
                        assert_eq!(found, ids);
                        short_hits += 1;
                    }
                    None => cache.remember_short(key, hash(key), &ids),
                }
                let long = format!("a word of more than fifteen bytes {n}");
                let hash = cache.hash_long(long.as_bytes());
                match cache.find_long(long.as_bytes(), hash) {
                    Some(found) => {
                        assert_eq!(found, ids);
                        long_hits += 1;
                    }
                    None => cache.remember_long(long.as_bytes(), hash, &ids),
                }
            }
            // The last hundred words come three times; a large cache knows nearly all that come again.
            let expected = if bytes == 32 << 20 { 10_000 } else { 60 };
            assert!(short_hits >= expected && long_hits >= expected, "{bytes}: {short_hits}, {long_hits}");
            assert!(cache.arena.bytes.iter().all(|bytes_kept| bytes_kept.len() <= (bytes / 8).max(4096)));
        }
    }

    #[test]
    fn what_is_too_long_is_not_remembered() {
        let mut cache = WordCache::new(1 << 16, &[]).unwrap();
        let word = [b'x'; LONG_WORD + 1];
        let hash = cache.hash_long(&word);
        cache.remember_long(&word, hash, &[1]);
        assert!(cache.find_long(&word, hash).is_none());
        let hash = cache.hash_long(&word[1..]);
        cache.remember_long(&word[1..], hash, &[1]);
        assert_eq!(cache.find_long(&word[1..], hash), Some([1].as_slice()));
    }

    #[test]
    fn seeds_are_known_from_the_start() {
        let key = key(b" the");
        let seed = Seed { hash: hash(key), key, id: 262 };
        let cache = WordCache::new(1 << 20, &[seed]).unwrap();
        assert_eq!(cache.find_first(key, cache.slot(hash(key))).map(|(ids, n)| (ids[0], n)), Some((262, 1)));
    }
}
