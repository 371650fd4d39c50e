//! Words, labels and hashed n-grams: which rows of the input matrix a text stands for.
//!
//! Everything follows fastText to the bit: 32-bit FNV-1a over *signed* bytes, word n-grams over sign-extended hashes,
//! bytes as characters where UTF-8 is broken. A word of the vocabulary brings its own row and those of its character
//! n-grams, any other word its n-grams alone.

use super::read::Reader;
use super::{Args, FastTextError};

type Result<T> = std::result::Result<T, FastTextError>;

/// The token that ends a line.
const END: &[u8] = b"</s>";

const LABEL_PREFIX: &[u8] = b"__label__";

/// A bit for each bucket is kept up to this many buckets; above, only the table is asked.
const MAX_BITS: usize = 1 << 26;

#[derive(Debug)]
pub(super) struct Dictionary {
    /// Spellings of all entries, back to back; entry i ends at `ends[i]`.
    spellings: Vec<u8>,
    ends: Vec<usize>,
    /// Open addressing: 1 + the entry, 0 for empty; beside it the hash.
    slots: Vec<(u32, u32)>,
    pub(super) n_words: usize,
    pub(super) labels: Vec<String>,
    pub(super) label_counts: Vec<i64>,
    buckets: Modulus,
    minn: usize,
    maxn: usize,
    word_ngrams: usize,
    pruned: Option<Pruned>,
}

/// Buckets that outlived pruning.
#[derive(Debug)]
struct Pruned {
    bits: Vec<u64>,
    /// Open addressing by multiplication: the bucket and its row, [`EMPTY`] for none.
    table: Vec<(u32, u32)>,
    shift: u32,
}

const EMPTY: (u32, u32) = (u32::MAX, 0);

/// Buffers of one text.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<u32>,
    hashes: Vec<i32>,
    word: Vec<u8>,
}

/// FNV-1a as fastText has it: each byte is sign-extended before it is mixed in.
#[inline]
fn fnv(hash: u32, byte: u8) -> u32 {
    (hash ^ byte as i8 as u32).wrapping_mul(16_777_619)
}

const FNV_START: u32 = 2_166_136_261;

pub(super) fn hash(word: &[u8]) -> u32 {
    word.iter().fold(FNV_START, |hash, byte| fnv(hash, *byte))
}

/// What separates words. A line end does too, but is a token besides.
#[inline]
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0)
}

impl Dictionary {
    pub(super) fn read(reader: &mut Reader<'_>, args: &Args) -> Result<Self> {
        let most = i64::from(i32::MAX);
        let size = reader.count("size of the dictionary", 0..=most)?;
        let n_words = reader.count("number of words", 0..=size as i64)?;
        let n_labels = reader.count("number of labels", 0..=size as i64)?;
        if n_words + n_labels != size {
            return Err(reader.bad("size of the dictionary", size, (n_words + n_labels).to_string()));
        }
        reader.i64("number of tokens")?;
        let n_pruned = reader.i64("number of buckets kept")?;
        if !(-1..=most).contains(&n_pruned) {
            return Err(reader.bad("number of buckets kept", n_pruned, "-1 or a count"));
        }
        let mut dictionary = Self {
            spellings: Vec::new(),
            ends: Vec::new(),
            slots: Vec::new(),
            n_words,
            labels: Vec::new(),
            label_counts: Vec::new(),
            buckets: Modulus::new(args.bucket as u32),
            minn: args.minn,
            maxn: args.maxn,
            word_ngrams: args.word_ngrams,
            pruned: None,
        };
        for entry in 0..size {
            dictionary.read_entry(reader, entry)?;
        }
        dictionary.index();
        if n_pruned >= 0 {
            dictionary.pruned = Some(Pruned::read(reader, n_pruned as usize, args.bucket)?);
        }
        Ok(dictionary)
    }

    fn read_entry(&mut self, reader: &mut Reader<'_>, entry: usize) -> Result<()> {
        let word = reader.c_string("a word of the dictionary")?;
        let count = reader.i64("a count of the dictionary")?;
        let is_label = reader.flag("kind of a dictionary entry")?;
        if is_label != (entry >= self.n_words) {
            return Err(reader.bad("kind of a dictionary entry", is_label, "words before labels"));
        }
        self.spellings.extend_from_slice(word);
        self.ends.push(self.spellings.len());
        if is_label {
            let name = word.strip_prefix(LABEL_PREFIX).unwrap_or(word);
            self.labels.push(String::from_utf8_lossy(name).into_owned());
            self.label_counts.push(count);
        }
        Ok(())
    }

    fn index(&mut self) {
        self.slots = vec![(0, 0); (self.ends.len() * 2).next_power_of_two().max(4)];
        for entry in 0..self.ends.len() {
            let spelling = self.spelling(entry);
            let hash = hash(spelling);
            // A later entry of the same spelling takes the place of an earlier one, as in fastText.
            let slot = self.slot_of(spelling, hash);
            self.slots[slot] = (entry as u32 + 1, hash);
        }
    }

    fn spelling(&self, entry: usize) -> &[u8] {
        let start = if entry == 0 { 0 } else { self.ends[entry - 1] };
        &self.spellings[start..self.ends[entry]]
    }

    /// The slot that holds `word`, or the empty one where it would stand.
    #[inline]
    fn slot_of(&self, word: &[u8], hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = (hash.wrapping_mul(0x9e37_79b1) >> 7) as usize & mask;
        loop {
            let (entry, stored) = self.slots[slot];
            if entry == 0 || stored == hash && self.spelling(entry as usize - 1) == word {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    #[inline]
    fn entry(&self, word: &[u8], hash: u32) -> Option<usize> {
        (self.slots[self.slot_of(word, hash)].0 as usize).checked_sub(1)
    }

    /// One past the greatest row that a text can ask for.
    pub(super) fn rows_needed(&self) -> usize {
        let buckets = match &self.pruned {
            Some(pruned) => {
                pruned.table.iter().filter(|slot| **slot != EMPTY).map(|(_, row)| *row as usize + 1).max()
            }
            None if self.maxn > 0 || self.word_ngrams > 1 => Some(self.buckets.divisor as usize),
            None => None,
        };
        self.n_words + buckets.unwrap_or(0)
    }

    pub(super) fn is_pruned(&self) -> bool {
        self.pruned.is_some()
    }

    /// Fills `into.rows` with the rows of `text`, which is one line: line ends in it are white space.
    pub(super) fn rows_of(&self, text: &[u8], into: &mut Rows) {
        into.rows.clear();
        into.hashes.clear();
        let mut rest = text;
        while let Some(start) = rest.iter().position(|b| !is_space(*b)) {
            rest = &rest[start..];
            let mut hash = FNV_START;
            let mut len = 0;
            while len < rest.len() && !is_space(rest[len]) {
                hash = fnv(hash, rest[len]);
                len += 1;
            }
            let word = &rest[..len];
            self.add_token(word, hash, into);
            if word == END {
                self.add_word_ngrams(into);
                return;
            }
            rest = &rest[len..];
        }
        self.add_token(END, hash(END), into);
        self.add_word_ngrams(into);
    }

    fn add_token(&self, word: &[u8], hash: u32, into: &mut Rows) {
        match self.entry(word, hash) {
            Some(entry) if entry >= self.n_words => return,
            Some(entry) => {
                into.rows.push(entry as u32);
                if self.maxn > 0 && word != END {
                    self.add_subwords(word, into);
                }
            }
            None if word.starts_with(LABEL_PREFIX) => return,
            None if self.maxn > 0 && word != END => self.add_subwords(word, into),
            None => {}
        }
        into.hashes.push(hash as i32);
    }

    /// The character n-grams of `<word>`; a mark at either end alone is none.
    fn add_subwords(&self, word: &[u8], into: &mut Rows) {
        let mut marked = std::mem::take(&mut into.word);
        marked.clear();
        marked.push(b'<');
        marked.extend_from_slice(word);
        marked.push(b'>');
        let continues = |at: usize| marked.get(at).is_some_and(|b| b & 0xc0 == 0x80);
        for start in 0..marked.len() {
            if continues(start) {
                continue;
            }
            let (mut hash, mut at, mut n) = (FNV_START, start, 1);
            while at < marked.len() && n <= self.maxn {
                hash = fnv(hash, marked[at]);
                at += 1;
                while continues(at) {
                    hash = fnv(hash, marked[at]);
                    at += 1;
                }
                if n >= self.minn && !(n == 1 && (start == 0 || at == marked.len())) {
                    self.add_bucket(self.buckets.of(hash), &mut into.rows);
                }
                n += 1;
            }
        }
        into.word = marked;
    }

    fn add_word_ngrams(&self, into: &mut Rows) {
        if self.word_ngrams < 2 {
            return;
        }
        let hashes = &into.hashes;
        for (i, first) in hashes.iter().enumerate() {
            let mut hash = *first as i64 as u64;
            for next in hashes[i + 1..].iter().take(self.word_ngrams - 1) {
                hash = hash.wrapping_mul(116_049_371).wrapping_add(*next as i64 as u64);
                self.add_bucket((hash % u64::from(self.buckets.divisor)) as u32, &mut into.rows);
            }
        }
    }

    #[inline]
    fn add_bucket(&self, bucket: u32, rows: &mut Vec<u32>) {
        // fastText takes the bucket for an `int` and leaves negative ones out.
        let bucket = match &self.pruned {
            None if bucket <= i32::MAX as u32 => bucket,
            Some(pruned) => match pruned.row(bucket) {
                Some(row) => row,
                None => return,
            },
            None => return,
        };
        rows.push(self.n_words as u32 + bucket);
    }
}

impl Pruned {
    fn read(reader: &mut Reader<'_>, n: usize, buckets: usize) -> Result<Self> {
        // Taken as bytes first, so that nothing is allocated for a count that the file cannot hold.
        let bytes = n.checked_mul(8).ok_or_else(|| reader.bad("number of buckets kept", n, "fewer"))?;
        let pairs = reader.take(bytes, "buckets kept")?;
        let log = (n * 2).next_power_of_two().max(4).trailing_zeros();
        let n_bits = if buckets <= MAX_BITS { buckets } else { 0 };
        let mut pruned = Self {
            bits: vec![0; n_bits.div_ceil(64)],
            table: vec![EMPTY; 1 << log],
            shift: 32 - log.min(31),
        };
        for pair in pairs.chunks_exact(8) {
            let number = |at: usize| i32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
            let (bucket, row) = (number(0), number(4));
            if bucket < 0 || bucket as usize >= buckets || row < 0 {
                return Err(reader.bad(
                    "a bucket kept",
                    format!("{bucket}: {row}"),
                    format!("0 to {buckets}"),
                ));
            }
            pruned.insert(bucket as u32, row as u32);
        }
        Ok(pruned)
    }

    fn insert(&mut self, bucket: u32, row: u32) {
        if let Some(word) = self.bits.get_mut(bucket as usize / 64) {
            *word |= 1 << (bucket % 64);
        }
        let slot = self.slot(bucket);
        self.table[slot] = (bucket, row);
    }

    #[inline]
    fn slot(&self, bucket: u32) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = (bucket.wrapping_mul(0x9e37_79b1) >> self.shift) as usize & mask;
        while self.table[slot].0 != bucket && self.table[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        slot
    }

    #[inline]
    fn row(&self, bucket: u32) -> Option<u32> {
        if let Some(word) = self.bits.get(bucket as usize / 64)
            && word >> (bucket % 64) & 1 == 0
        {
            return None;
        }
        let found = self.table[self.slot(bucket)];
        (found.0 == bucket).then_some(found.1)
    }
}

/// A divisor of 32-bit numbers that takes two multiplications (Lemire, Kaser and Kurz 2019).
#[derive(Debug)]
struct Modulus {
    divisor: u32,
    inverse: u64,
}

impl Modulus {
    fn new(divisor: u32) -> Self {
        let divisor = divisor.max(1);
        Self { divisor, inverse: (u64::MAX / u64::from(divisor)).wrapping_add(1) }
    }

    #[inline]
    fn of(&self, n: u32) -> u32 {
        let low = self.inverse.wrapping_mul(u64::from(n));
        ((u128::from(low) * u128::from(self.divisor)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn remainders(n: u32, divisor in 1u32..=i32::MAX as u32) {
            prop_assert_eq!(Modulus::new(divisor).of(n), n % divisor);
            prop_assert_eq!(Modulus::new(1).of(n), 0);
        }
    }

    #[test]
    fn hashes_are_those_of_fasttext() {
        // FNV-1a proper for ASCII; bytes above 127 are sign-extended.
        assert_eq!(hash(b""), 2_166_136_261);
        assert_eq!(hash(b"a"), 0xe40c_292c);
        assert_eq!(hash("é".as_bytes()), 0x3cfa_68c1);
    }
}
