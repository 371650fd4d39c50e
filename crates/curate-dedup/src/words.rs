//! From text to units: the words that a profile sees, each as a 64-bit hash, in one scan over the bytes.
//!
//! The scan looks at 64 bytes at a time: a bit mask says which bytes may belong to a word, and the edges of the
//! mask are the ends of *runs*. Every non-ASCII byte counts as part of a run, so that nearly all runs of ordinary
//! text are plain ASCII words, hashed where they lie by two or three loads. A run with a non-ASCII byte in it goes
//! through the slow path, which decodes it and decides character by character.
//!
//! # The word hash
//!
//! Fixed for ever, since signatures and indexes depend on it: let `w` be the bytes of the word as the profile sees
//! it and `L` their number. The word is cut into 8-byte little-endian chunks; the last chunk is `w[L-8..]` (it
//! overlaps its neighbour) or, where `L < 8`, all of `w` padded with zeros. Starting from `L` times an odd
//! constant, each chunk is XORed into the state, which is then mixed by a bijection (weak inside, strong at the
//! end). Hence two words of the same length that differ in one chunk only never collide, words of up to 8 bytes
//! collide with no other of their length, and any other two words collide with a chance of about 2^-64: among 10^7
//! different words, one in 10^5 vocabularies has a collision. A collision makes two shingles equal that are not,
//! which moves a Jaccard similarity by about one part in the number of shingles.

use std::sync::LazyLock;

use unicode_normalization::char::is_combining_mark;

/// How a text becomes units. Persisted by name: the meaning of a name never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// `curate-1`: lower-cased maximal runs of letters, digits and `_`; in scripts that are written without spaces
    /// one unit per code point.
    ///
    /// - *Letters* have the Unicode property Alphabetic, *digits* any numeric category; digits stay as they are.
    /// - A combining mark continues a word and never starts one: an accent written apart does not cut its word, and
    ///   the variation selector of an emoji is no word. Texts are not normalised here: NFC and NFD spellings
    ///   differ.
    /// - Lower case is Unicode's, character by character, and final sigma counts as sigma, so that a text and its
    ///   re-cased copy have the same units.
    /// - Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar: each letter, digit or mark is a unit of its own.
    /// - Everything else separates: punctuation, symbols, white space, joiners (ZWJ, ZWNJ) and controls.
    #[default]
    Curate1,
    /// `raw`: words between Unicode white space, as they stand.
    Raw,
    /// `datatrove`: the words, shingle hashes and signatures of datatrove 0.10's MinHash, given a tokenizer that splits
    /// on white space (see [`DatatroveHasher`](crate::DatatroveHasher)). Texts with fewer words than an n-gram are
    /// duplicates of nothing.
    Datatrove,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Curate1, Self::Raw, Self::Datatrove];

    /// The name that flags, reports and indexes use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Curate1 => "curate-1",
            Self::Raw => "raw",
            Self::Datatrove => "datatrove",
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Profile {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == name);
        known.ok_or_else(|| crate::Error::Profile { got: name.to_owned() })
    }
}

impl serde::Serialize for Profile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Appends the hash of every unit of `text`, in order. `word` is a buffer.
pub(crate) fn units(profile: Profile, text: &str, word: &mut Vec<u8>, units: &mut Vec<u64>) {
    match profile {
        Profile::Curate1 => scan::<Curate1>(text, word, units),
        Profile::Raw => scan::<Raw>(text, word, units),
        Profile::Datatrove => unreachable!("its shingles are hashed from the text and have no unit hashes"),
    }
}

/// A unit with its place in the text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlacedUnit {
    pub(crate) hash: u64,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Appends every unit of `text` with its place; the hashes are those of [`units`]. The text has less than 4 GiB.
pub(crate) fn placed_units(profile: Profile, text: &str, word: &mut Vec<u8>, units: &mut Vec<PlacedUnit>) {
    if profile == Profile::Raw {
        units.extend(text.split_whitespace().map(|word| {
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            let hash = word_hash(word.as_bytes());
            PlacedUnit { hash, start: start as u32, end: (start + word.len()) as u32 }
        }));
        return;
    }
    let table = &**FOLDED;
    let mut start = 0;
    let mut take = |word: &mut Vec<u8>, start: usize, end: usize| {
        if !word.is_empty() {
            units.push(PlacedUnit { hash: word_hash(word), start: start as u32, end: end as u32 });
            word.clear();
        }
    };
    word.clear();
    for (at, c) in text.char_indices() {
        let folded = table.get(c as usize).copied().unwrap_or_else(|| Folded::of(c));
        match folded.class {
            Class::Mark if word.is_empty() => {}
            Class::Letter | Class::Mark => {
                if word.is_empty() {
                    start = at;
                }
                folded.append(word);
            }
            Class::Unit => {
                take(word, start, at);
                folded.append(word);
                take(word, at, at + c.len_utf8());
            }
            Class::Separator => take(word, start, at),
        }
    }
    take(word, start, text.len());
}

/// What a profile says about bytes and characters.
trait Alphabet {
    /// What to OR into each byte of an ASCII word before hashing it.
    const FOLD: u8;
    /// True of the ASCII bytes of words and of every non-ASCII byte. Branch-free, so that it vectorises.
    fn in_run(byte: u8) -> bool;
    /// The same for vector instructions that look up sixteen entries at once: an ASCII byte is in a run if the entry
    /// of its low half and that of its high half have a bit in common.
    #[cfg(target_arch = "x86_64")]
    const HALVES: Halves;
    /// Appends the units of a run that is not all ASCII.
    fn mixed_run(run: &str, word: &mut Vec<u8>, units: &mut Vec<u64>);
}

/// For the low and the high half of an ASCII byte, which of up to eight classes it may be in.
#[cfg(target_arch = "x86_64")]
struct Halves {
    low: [u8; 16],
    high: [u8; 16],
}

struct Curate1;

impl Alphabet for Curate1 {
    /// Lower-cases letters, leaves digits, and turns `_` into 0x7F, which is no word byte: as good as `_` itself.
    const FOLD: u8 = 0x20;

    #[inline(always)]
    fn in_run(byte: u8) -> bool {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        letter | digit | (byte == b'_') | (byte >= 0x80)
    }

    /// Classes: digits; @ and A to O in either case, without @; P to Z and _; p to z.
    #[cfg(target_arch = "x86_64")]
    const HALVES: Halves = Halves {
        low: [13, 15, 15, 15, 15, 15, 15, 15, 15, 15, 14, 2, 2, 2, 2, 6],
        high: [0, 0, 0, 1, 2, 4, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    fn mixed_run(run: &str, word: &mut Vec<u8>, units: &mut Vec<u64>) {
        let table = &**FOLDED;
        word.clear();
        for c in run.chars() {
            let folded = match table.get(c as usize) {
                Some(known) => *known,
                None => Folded::of(c),
            };
            match folded.class {
                Class::Letter => folded.append(word),
                Class::Mark if word.is_empty() => {}
                Class::Mark => folded.append(word),
                Class::Unit => {
                    take_word(word, units);
                    folded.append(word);
                    take_word(word, units);
                }
                Class::Separator => take_word(word, units),
            }
        }
        take_word(word, units);
    }
}

/// Moves a word, unless it is empty, from its buffer to the units.
fn take_word(word: &mut Vec<u8>, units: &mut Vec<u64>) {
    let len = word.len();
    if len == 0 {
        return;
    }
    if len <= 8 {
        // The same as `word_hash`, without a copy of unknown length: the zeros that pad the chunk follow the word.
        word.extend_from_slice(&[0; 8]);
        units.push(finish(length_state(len) ^ load(word, 0)));
    } else {
        units.push(word_hash(word));
    }
    word.clear();
}

struct Raw;

impl Alphabet for Raw {
    const FOLD: u8 = 0;

    #[inline(always)]
    fn in_run(byte: u8) -> bool {
        (byte != b' ') & (byte.wrapping_sub(b'\t') > b'\r' - b'\t')
    }

    /// Classes: controls but for white space; all but controls and the row of the space; the row of the space.
    #[cfg(target_arch = "x86_64")]
    const HALVES: Halves = Halves {
        low: [3, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 7, 7],
        high: [1, 2, 4, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    fn mixed_run(run: &str, _word: &mut Vec<u8>, units: &mut Vec<u64>) {
        units.extend(run.split_whitespace().map(|word| word_hash(word.as_bytes())));
    }
}

/// What a character is to `curate-1`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Class {
    Letter,
    Mark,
    Unit,
    Separator,
}

impl Class {
    fn of(c: char) -> Self {
        match () {
            () if is_unspaced_script(c) => match c.is_alphanumeric() || is_combining_mark(c) {
                true => Self::Unit,
                false => Self::Separator,
            },
            () if c.is_alphanumeric() || c == '_' => Self::Letter,
            () if is_combining_mark(c) => Self::Mark,
            () => Self::Separator,
        }
    }
}

/// A character as it stands in a word: its class, and the UTF-8 of its lower case.
#[derive(Debug, Clone, Copy)]
struct Folded {
    class: Class,
    len: u8,
    utf8: [u8; 4],
}

/// The Basic Multilingual Plane, so that text in any living script is folded by one look into a table: deciding and
/// lower-casing each character anew makes Cyrillic eight times slower. A constant, 384 KiB, made when first used
/// (some 2 ms).
static FOLDED: LazyLock<Box<[Folded]>> = LazyLock::new(|| {
    let folded = |code| char::from_u32(code).map_or(Folded::NOTHING, Folded::of);
    (0..0x1_0000).map(folded).collect()
});

impl Folded {
    /// What stands at the places of surrogates, which no text contains.
    const NOTHING: Self = Self { class: Class::Separator, len: 0, utf8: [0; 4] };

    fn of(c: char) -> Self {
        let class = Class::of(c);
        let mut folded = Self { class, ..Self::NOTHING };
        if class == Class::Separator {
            return folded;
        }
        // One character becomes one, but for I with a dot above: i and a combining dot, three bytes in all.
        for lower in c.to_lowercase() {
            let lower = if lower == 'ς' { 'σ' } else { lower };
            let place = &mut folded.utf8[usize::from(folded.len)..];
            match lower.is_ascii() {
                true => place[0] = lower as u8 | Curate1::FOLD,
                false => _ = lower.encode_utf8(place),
            }
            folded.len += lower.len_utf8() as u8;
        }
        folded
    }

    /// Appends the bytes; always four, so that the copy has a known length, and then takes back the surplus.
    #[inline(always)]
    fn append(self, word: &mut Vec<u8>) {
        let len = word.len() + usize::from(self.len);
        word.extend_from_slice(&self.utf8);
        word.truncate(len);
    }
}

/// The blocks of Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar.
fn is_unspaced_script(c: char) -> bool {
    matches!(c,
        '\u{0E00}'..='\u{0EFF}'     // Thai, Lao
        | '\u{1000}'..='\u{109F}'   // Myanmar
        | '\u{1780}'..='\u{17FF}'   // Khmer
        | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{3035}' | '\u{3038}'..='\u{303C}'
        | '\u{3040}'..='\u{30FF}'   // Hiragana, Katakana
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{A9E0}'..='\u{A9FF}' | '\u{AA60}'..='\u{AA7F}' // Myanmar, extended
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FF9F}'   // Katakana of half width
        | '\u{1AFF0}'..='\u{1B16F}' // Kana, extended
        | '\u{20000}'..='\u{3FFFF}')
}

/// Bytes looked at together: as many as a mask has bits.
const BLOCK: usize = 64;

fn scan<A: Alphabet>(text: &str, word: &mut Vec<u8>, units: &mut Vec<u64>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
    {
        // SAFETY: this machine has AVX2, BMI1 and BMI2, as was just found.
        return unsafe { scan_avx2::<A>(text, word, units) };
    }
    scan_with::<A>(text, word, units, run_mask::<A>);
}

/// The BMI instructions find the edges of a mask and cut a word out of eight bytes in one step each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn scan_avx2<A: Alphabet>(text: &str, word: &mut Vec<u8>, units: &mut Vec<u64>) {
    scan_with::<A>(text, word, units, |block| run_mask_avx2::<A>(block));
}

#[inline(always)]
fn scan_with<A: Alphabet>(
    text: &str,
    word: &mut Vec<u8>,
    units: &mut Vec<u64>,
    run_mask: impl Fn(&[u8; BLOCK]) -> u64,
) {
    let bytes = text.as_bytes();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut runs =
        Runs::<A> { text, word, units, start: 0, inside: false, alphabet: std::marker::PhantomData };
    for (i, block) in blocks.iter().enumerate() {
        runs.edges(run_mask(block), i * BLOCK);
    }
    // A byte after the last one that belongs to no run ends the last run.
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    runs.edges(run_mask(&last), blocks.len() * BLOCK);
}

/// The state of a scan between two blocks.
struct Runs<'a, A> {
    text: &'a str,
    word: &'a mut Vec<u8>,
    units: &'a mut Vec<u64>,
    /// Where the current run starts, if the last byte was inside one.
    start: usize,
    inside: bool,
    alphabet: std::marker::PhantomData<A>,
}

impl<A: Alphabet> Runs<'_, A> {
    /// Takes the units of the runs that end in the block at `base`, whose bytes in runs are the bits of `mask`.
    #[inline(always)]
    fn edges(&mut self, mask: u64, base: usize) {
        let mut edges = mask ^ (mask << 1 | u64::from(self.inside));
        if self.inside {
            if edges == 0 {
                return;
            }
            self.run(base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
        }
        while edges != 0 {
            self.start = base + edges.trailing_zeros() as usize;
            edges &= edges - 1;
            if edges == 0 {
                break;
            }
            self.run(base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
        }
        self.inside = mask >> (BLOCK - 1) == 1;
    }

    #[inline(always)]
    fn run(&mut self, end: usize) {
        match ascii_word_hash::<A>(self.text.as_bytes(), self.start, end) {
            Some(hash) => self.units.push(hash),
            None => A::mixed_run(&self.text[self.start..end], self.word, self.units),
        }
    }
}

/// Bit `i` says whether byte `i` belongs to a run.
#[inline(always)]
fn run_mask<A: Alphabet>(block: &[u8; BLOCK]) -> u64 {
    let mut flags = [0; BLOCK];
    for (flag, &byte) in flags.iter_mut().zip(block) {
        *flag = u8::from(A::in_run(byte));
    }
    let mut mask = 0;
    for (i, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        // The product brings the eight low bits together in its top byte.
        let packed = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= packed << (8 * i);
    }
    mask
}

/// The same by AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn run_mask_avx2<A: Alphabet>(block: &[u8; BLOCK]) -> u64 {
    use std::arch::x86_64::*;
    let (halves, _) = block.as_chunks::<32>();
    // SAFETY: each load reads the 16 or 32 bytes of an array of that size; no alignment is asked for.
    let (low, high, bytes) = unsafe {
        (
            _mm256_broadcastsi128_si256(_mm_loadu_si128(A::HALVES.low.as_ptr().cast())),
            _mm256_broadcastsi128_si256(_mm_loadu_si128(A::HALVES.high.as_ptr().cast())),
            [0, 1].map(|i: usize| _mm256_loadu_si256(halves[i].as_ptr().cast())),
        )
    };
    let [first, second] = bytes.map(|bytes| {
        let nibble = _mm256_set1_epi8(0x0F);
        // The look-up gives 0 for a non-ASCII byte, whose own top bit then says that it is in a run.
        let low = _mm256_shuffle_epi8(low, bytes);
        let high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble));
        let in_run = _mm256_cmpgt_epi8(_mm256_and_si256(low, high), _mm256_setzero_si256());
        _mm256_movemask_epi8(_mm256_or_si256(in_run, bytes)) as u32
    });
    u64::from(first) | u64::from(second) << 32
}

const LENGTH: u64 = 0x9E37_79B9_7F4A_7C15;
const CHAIN: u64 = 0xD6E8_FEB8_6659_FD93;
const FINISH: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];

/// The state from which the hash of a word of `len` bytes starts.
#[inline(always)]
fn length_state(len: usize) -> u64 {
    (len as u64).wrapping_mul(LENGTH)
}

/// The word hash of any bytes; see the module documentation.
pub(crate) fn word_hash(word: &[u8]) -> u64 {
    let state = length_state(word.len());
    if word.len() <= 8 {
        let mut chunk = [0; 8];
        chunk[..word.len()].copy_from_slice(word);
        return finish(state ^ u64::from_le_bytes(chunk));
    }
    let mut state = state;
    let mut rest = word;
    while let Some((chunk, more)) = rest.split_first_chunk::<8>()
        && !more.is_empty()
    {
        state = chain(state ^ u64::from_le_bytes(*chunk));
        rest = more;
    }
    let last = word.last_chunk::<8>().expect("longer than 8 bytes");
    finish(state ^ u64::from_le_bytes(*last))
}

/// The word hash of `bytes[start..end]` with the profile's fold, or `None` if a byte of it is not ASCII.
#[inline(always)]
fn ascii_word_hash<A: Alphabet>(bytes: &[u8], start: usize, end: usize) -> Option<u64> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let fold = u64::from_ne_bytes([A::FOLD; 8]);
    let len = end - start;
    let state = length_state(len);
    if len <= 8 {
        // Runs are not empty, so the shift is less than 64.
        let used = u64::MAX >> (64 - 8 * len);
        let chunk = load(bytes, start) & used;
        return (chunk & HIGH == 0).then(|| finish(state ^ (chunk | fold & used)));
    }
    let mut state = state;
    let mut high = 0;
    let mut at = start;
    while at + 8 < end {
        let chunk = load(bytes, at);
        high |= chunk;
        state = chain(state ^ (chunk | fold));
        at += 8;
    }
    let last = load(bytes, end - 8);
    high |= last;
    (high & HIGH == 0).then(|| finish(state ^ (last | fold)))
}

/// Eight bytes from `at`, with zeros for those beyond the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; 8];
            chunk[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(chunk)
        }
    }
}

#[inline(always)]
fn chain(x: u64) -> u64 {
    let x = x.wrapping_mul(CHAIN);
    x ^ (x >> 32)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, in Stafford's variant 13): a bijection in
/// which every bit of the input reaches every bit of the output.
#[inline(always)]
pub(crate) fn finish(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(FINISH[0]);
    let x = (x ^ (x >> 27)).wrapping_mul(FINISH[1]);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(profile: Profile, text: &str) -> Vec<u64> {
        let mut found = Vec::new();
        units(profile, text, &mut Vec::new(), &mut found);
        found
    }

    /// The definition, character by character, with owned words.
    fn words(profile: Profile, text: &str) -> Vec<String> {
        if profile == Profile::Raw {
            return text.split_whitespace().map(str::to_owned).collect();
        }
        let mut words = vec![String::new()];
        for c in text.chars() {
            let last = words.last_mut().unwrap();
            if is_unspaced_script(c) && (c.is_alphanumeric() || is_combining_mark(c)) {
                words.extend([c.to_string(), String::new()]);
            } else if !is_unspaced_script(c) && (c.is_alphanumeric() || c == '_') {
                last.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }));
            } else if is_combining_mark(c) && !last.is_empty() {
                last.push(c);
            } else if !is_combining_mark(c) {
                words.push(String::new());
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// A word as the hash sees it.
    fn as_hashed(profile: Profile, word: &str) -> Vec<u8> {
        let fold = |b: u8| if profile == Profile::Curate1 && b.is_ascii() { b | 0x20 } else { b };
        word.bytes().map(fold).collect()
    }

    fn check(profile: Profile, text: &str, expected: &[&str]) {
        assert_eq!(words(profile, text), expected, "{profile} {text:?}");
        let expected: Vec<u64> = expected.iter().map(|word| word_hash(&as_hashed(profile, word))).collect();
        assert_eq!(hashes(profile, text), expected, "{profile} {text:?}");
    }

    #[test]
    fn curate_1_units() {
        for (text, expected) in [
            ("", &[][..]),
            ("...", &[]),
            ("Hello, World!", &["hello", "world"]),
            ("snake_case __init__ x1 3.14", &["snake_case", "__init__", "x1", "3", "14"]),
            ("don't don’t", &["don", "t", "don", "t"]),
            ("ÀÉÎ straße ΟΔΟΣ οδος", &["àéî", "straße", "οδοσ", "οδοσ"]),
            ("\u{212A}elvin İ", &["kelvin", "i\u{307}"]),
            ("cafe\u{301} \u{301}x", &["cafe\u{301}", "x"]),
            ("❤\u{FE0F} 😀", &[]),
            ("हिन्दी", &["हिन्दी"]),
            ("漢字とカナ", &["漢", "字", "と", "カ", "ナ"]),
            ("葛\u{E0100}城", &["葛", "城"]),
            ("iPhone手机2台", &["iphone", "手", "机", "2", "台"]),
            ("คำ ๑", &["ค", "ำ", "๑"]),
            ("ລາວ ខ្មែរ မြန်", &["ລ", "າ", "ວ", "ខ", "\u{17D2}", "ម", "ែ", "រ", "မ", "ြ", "န", "်"]),
            ("한국어 문장", &["한국어", "문장"]),
            ("می\u{200C}خواهم", &["می", "خواهم"]),
            ("。、「」", &[]),
            ("٣٤ ²", &["٣٤", "²"]),
        ] {
            check(Profile::Curate1, text, expected);
        }
    }

    #[test]
    fn raw_units() {
        for (text, expected) in [
            ("", &[][..]),
            (" \t\r\n\u{B}\u{C}", &[]),
            ("Hello,  World!\n", &["Hello,", "World!"]),
            ("a\u{A0}b\u{3000}ç\u{85}d", &["a", "b", "ç", "d"]),
            ("a\u{0}b \u{1F}", &["a\u{0}b", "\u{1F}"]),
            ("漢字 かな", &["漢字", "かな"]),
        ] {
            check(Profile::Raw, text, expected);
        }
    }

    #[test]
    fn words_of_every_length_at_every_place() {
        for profile in [Profile::Curate1, Profile::Raw] {
            for before in 0..70 {
                for len in 1..40 {
                    let word = "Wörterbuch_0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZ".replace('ö', "o");
                    let text = format!("{}{} x", " ".repeat(before), &word[..len]);
                    let expected: Vec<u64> =
                        words(profile, &text).iter().map(|w| word_hash(&as_hashed(profile, w))).collect();
                    assert_eq!(hashes(profile, &text), expected, "{before} {len}");
                    let ends_with_word = text.strip_suffix(" x").unwrap();
                    assert_eq!(hashes(profile, ends_with_word), expected[..1], "{before} {len}");
                }
            }
        }
    }

    #[test]
    fn every_character_folds_to_its_lower_case() {
        for c in '\0'..=char::MAX {
            let folded = if (c as usize) < FOLDED.len() { FOLDED[c as usize] } else { Folded::of(c) };
            assert_eq!(folded.class, Class::of(c), "{c:?}");
            let lower: String = c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }).collect();
            let expected =
                if folded.class == Class::Separator { vec![] } else { as_hashed(Profile::Curate1, &lower) };
            assert_eq!(folded.utf8[..usize::from(folded.len)], expected, "{c:?}");
        }
    }

    #[test]
    fn the_word_hash_is_fixed() {
        // Computed from the module documentation by another program.
        for (word, expected) in [
            ("", 0),
            ("a", 0xFB76_1138_E1E0_A78C),
            ("the", 0xF9B9_0172_A1A5_E4AA),
            ("deduplication", 0xEE43_9A04_7B52_7B7C),
            ("eight_by", 0xC764_95B9_FEC8_04A8),
            ("漢", 0xF076_3268_58A0_F055),
            ("a much longer run of bytes than eight", 0xAC07_452C_2969_A9EB),
        ] {
            assert_eq!(word_hash(word.as_bytes()), expected, "{word:?}");
        }
    }

    #[test]
    fn padding_and_length_count() {
        assert_ne!(word_hash(b"a"), word_hash(b"a\0"));
        assert_ne!(word_hash(b"aaaaaaaa"), word_hash(b"aaaaaaaaa"));
        assert_ne!(word_hash(b"aaaaaaaaaaaaaaaa"), word_hash(b"aaaaaaaaaaaaaaaaa"));
    }

    #[test]
    fn masks_are_the_same_by_any_instructions() {
        fn check<A: Alphabet>() {
            for shift in 0..=u8::MAX {
                let block: [u8; BLOCK] =
                    std::array::from_fn(|i| (i as u8).wrapping_mul(5).wrapping_add(shift));
                let expected = (0..BLOCK).map(|i| u64::from(A::in_run(block[i])) << i).sum::<u64>();
                assert_eq!(run_mask::<A>(&block), expected, "{block:?}");
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: this machine has AVX2.
                    assert_eq!(unsafe { run_mask_avx2::<A>(&block) }, expected, "{block:?}");
                }
            }
        }
        check::<Curate1>();
        check::<Raw>();
    }

    proptest! {
        #[test]
        fn both_scans_give_the_same(text in "([ -~]{0,90}|[àÉçßΣ\u{301}]{0,3}|[漢字とำ。]{0,4}|[\u{A0} \n]|\\PC{0,6}){0,8}") {
            fn plain<A: Alphabet>(text: &str) -> Vec<u64> {
                let mut found = Vec::new();
                scan_with::<A>(text, &mut Vec::new(), &mut found, run_mask::<A>);
                found
            }
            prop_assert_eq!(hashes(Profile::Curate1, &text), plain::<Curate1>(&text));
            prop_assert_eq!(hashes(Profile::Raw, &text), plain::<Raw>(&text));
        }
    }

    #[test]
    fn profiles_are_called_by_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse().ok(), Some(profile));
        }
        let error = "gopher".parse::<Profile>().unwrap_err();
        assert_eq!(error.to_string(), "unknown profile \"gopher\": expected curate-1, raw or datatrove");
    }

    proptest! {
        #[test]
        fn the_scan_follows_the_definition(
            text in "([ -~]{0,20}|[a-zA-Z_ ]{0,90}|[àÉçßΣ\u{301}\u{FE0F}]{0,3}|[漢字とカナคำ。、]{0,4}|[\u{A0}\u{3000}’“ \n]|\\PC{0,6}){0,8}"
        ) {
            for profile in [Profile::Curate1, Profile::Raw] {
                let expected: Vec<u64> =
                    words(profile, &text).iter().map(|w| word_hash(&as_hashed(profile, w))).collect();
                prop_assert_eq!(hashes(profile, &text), expected);
            }
        }
    }
}
