//! Byte-level BPE: how bytes are spelt as characters, and where a text is cut into words.
//!
//! The vocabulary of a byte-level tokenizer is written in an alphabet of 256 visible characters, one a byte
//! (published with GPT-2). Before merging, the text is cut into words by a pattern; merges never cross a cut.
//! The patterns in use all end in `\s+(?!\S)|\s+`, which no automaton can match. It says: of a run of white
//! space before a word, the last character belongs to what follows. So we match `\s+` and give that character
//! back.

use regex_automata::meta::{Cache, Regex};
use regex_automata::{Anchored, Input};

/// Cuts before GPT-2's words; also the pattern of the tokenizers that we train.
pub(crate) const GPT2_PATTERN: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Patterns known to match at every position of every text and to mean the same without the look-ahead.
///
/// A list, not a rule: a possessive `\p{N}{1,3}+`, say, compiles in an automaton too and means something else.
const KNOWN_PATTERNS: [&str; 4] = [
    GPT2_PATTERN,
    // cl100k and Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2 and 3: one digit a word.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // o200k: an upper-case letter begins a word.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// What every known pattern ends in.
const TAIL: &str = r"|\s+(?!\S)|\s+";

/// Cuts texts into the words that one of the known patterns gives.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// Pattern 0 is the known one without its tail, pattern 1 is `\s+`; the first that matches wins.
    regex: Regex,
}

impl Splitter {
    /// The splitter of a pattern, if it is a known one.
    pub(crate) fn known(pattern: &str) -> Option<Self> {
        if !KNOWN_PATTERNS.contains(&pattern) {
            return None;
        }
        let head = pattern.strip_suffix(TAIL).expect("every known pattern ends in the tail");
        let regex = Regex::new_many(&[head, r"\s+"]).expect("the known patterns compile");
        Some(Self { regex })
    }

    pub(crate) fn gpt2() -> Self {
        Self::known(GPT2_PATTERN).expect("it is the first of the known patterns")
    }

    /// Buffers that a thread keeps between texts.
    pub(crate) fn cache(&self) -> Cache {
        self.regex.create_cache()
    }

    /// Calls `word` with each word of `text`, in order; together they are the text.
    pub(crate) fn for_each<'t>(&self, text: &'t str, cache: &mut Cache, mut word: impl FnMut(&'t str)) {
        let mut start = 0;
        while start < text.len() {
            let input = Input::new(text).range(start..).anchored(Anchored::Yes);
            let found =
                self.regex.search_with(cache, &input).expect("a known pattern matches every character");
            let mut end = found.end();
            if found.pattern().as_u32() == 1 && end < text.len() {
                // A run of white space before a word: its last character goes with the word, unless it is
                // alone.
                let last = text[start..end].char_indices().next_back().map_or(0, |(offset, _)| offset);
                end = if last > 0 { start + last } else { end };
            }
            word(&text[start..end]);
            start = end;
        }
    }
}

/// The character that spells each byte.
///
/// Bytes that are visible in Latin-1 stand for themselves, the others for U+0100, U+0101, … in order.
const fn spellings() -> [char; 256] {
    let mut spelling = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        let code_point = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte as u32,
            _ => {
                next += 1;
                next - 1
            }
        };
        spelling[byte] = match char::from_u32(code_point) {
            Some(character) => character,
            None => panic!("code points below U+0200 are characters"),
        };
        byte += 1;
    }
    spelling
}

const SPELLING: [char; 256] = spellings();

/// The character that spells `byte`.
pub(crate) fn spell(byte: u8) -> char {
    SPELLING[usize::from(byte)]
}

/// The byte that `character` spells, if it is one of the 256.
pub(crate) fn unspell(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        // In order from U+0100: 0 to 0x20, 0x7F to 0xA0, 0xAD.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// Ours and theirs of each known pattern.
    static SPLITTERS: LazyLock<Vec<(Splitter, Split)>> = LazyLock::new(|| {
        let theirs = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
        };
        KNOWN_PATTERNS.iter().map(|pattern| (Splitter::known(pattern).unwrap(), theirs(pattern))).collect()
    });

    fn words<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        splitter.for_each(text, &mut splitter.cache(), |word| words.push(word));
        words
    }

    fn their_words(split: &Split, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        split.pre_tokenize(&mut pieces).unwrap();
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.to_owned()).filter(|piece| !piece.is_empty()).collect()
    }

    #[test]
    fn spelling_is_the_published_one() {
        let theirs = ByteLevel::alphabet();
        assert!((0..=255).all(|byte| theirs.contains(&spell(byte))), "the same 256 characters");
        for byte in 0..=255 {
            assert_eq!(unspell(spell(byte)), Some(byte));
            let text = char::from(byte).to_string();
            let mut pieces = PreTokenizedString::from(text.as_str());
            ByteLevel::new(false, false, false).pre_tokenize(&mut pieces).unwrap();
            let spelt: String = text.bytes().map(spell).collect();
            assert_eq!(pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte)[0].0, spelt);
        }
        assert_eq!((spell(b' '), spell(b'\n'), spell(b'a')), ('Ġ', 'Ċ', 'a'));
        for character in ['\0', ' ', '\u{7F}', '\u{AD}', '\u{144}', '中'] {
            assert_eq!(unspell(character), None);
        }
    }

    #[test]
    fn gpt2_words() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(&SPLITTERS[0].0, text), expected);
        check("", &[]);
        check(" ", &[" "]);
        check("a", &["a"]);
        check("Hello world", &["Hello", " world"]);
        check("a   b", &["a", "  ", " b"]);
        check("a \n", &["a", " \n"]);
        check("a\t\tb", &["a", "\t", "\t", "b"]);
        check("a\u{3000}\u{3000}b", &["a", "\u{3000}", "\u{3000}", "b"]);
        check("I'll won't x'S", &["I", "'ll", " won", "'t", " x", "'", "S"]);
        check("x2 34!? ", &["x", "2", " 34", "!?", " "]);
        check("文字 と", &["文字", " と"]);
        check("<|endoftext|>", &["<|", "endoftext", "|>"]);
    }

    #[test]
    fn unknown_patterns_are_refused() {
        assert!(Splitter::known(r"\p{N}{1,3}+|\s+(?!\S)|\s+").is_none());
        assert!(Splitter::known("").is_none());
    }

    #[test]
    fn long_runs_are_cut_as_theirs() {
        for text in ["a".repeat(5000), " ".repeat(5000), "\n".repeat(500) + "x", " \t".repeat(700) + "中"] {
            for (ours, theirs) in &*SPLITTERS {
                assert_eq!(words(ours, &text), their_words(theirs, &text));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn words_are_those_of_the_crate(
            text in r"(?s:[ \t\r\n\x0B\u{85}\u{A0}\u{2003}\u{3000}']|'(s|T|ll|RE|ſ)|[a-cA-Z]{1,3}|[0-9]|½|٣|[!<|/.]|é|e\u{301}|中|ǅ|ʰ|\PC|.){0,24}"
        ) {
            for (ours, theirs) in &*SPLITTERS {
                let words = words(ours, &text);
                prop_assert_eq!(words.concat(), text.as_str());
                prop_assert_eq!(words, their_words(theirs, &text));
            }
        }
    }
}
