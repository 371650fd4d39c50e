//! Statistics: the named numbers of a text that rules are written about.
//!
//! One pass over the words counts what the numbers are made of; [`statistics`] is the list of names, each with its
//! unit, its formula and whose definition it is. A ratio of nothing to nothing is 0.

use serde::Serialize;

use crate::bytes::ByteCounts;
use crate::dialects::{self, Dialects, Groups, LanguageWords, StopWords, Tables};
use crate::words::{Classes, Token, Words, class};

/// The stop words of the Gopher paper (Rae et al. 2021, arXiv 2112.11446, appendix A), all of them English.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

/// A statistic: what its name stands for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatisticInfo {
    pub name: &'static str,
    pub unit: &'static str,
    pub formula: &'static str,
    /// Whose definition it is.
    pub source: &'static str,
    #[serde(skip)]
    pub(crate) value: fn(&Measurements) -> f64,
}

impl StatisticInfo {
    /// The value of the statistic for a measured text.
    pub fn value(&self, measurements: &Measurements) -> f64 {
        (self.value)(measurements)
    }
}

/// All statistics, in the order in which they are best read.
pub fn statistics() -> &'static [StatisticInfo] {
    &ALL
}

/// Those of all texts, then those that dialects have of their own.
static ALL: [StatisticInfo; STATISTICS.len() + dialects::STATISTICS.len()] = {
    let mut all = [STATISTICS[0]; STATISTICS.len() + dialects::STATISTICS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] =
            if i < STATISTICS.len() { STATISTICS[i] } else { dialects::STATISTICS[i - STATISTICS.len()] };
        i += 1;
    }
    all
};

const CURATE: &str = "curate";
const DATATROVE: &str = "datatrove 0.10.1 GopherQualityFilter";
const DOLMA: &str = "dolma 1.2.1 taggers/gopher.py";
const PYTHON: &str = "Python str";

const STATISTICS: &[StatisticInfo] = &[
    StatisticInfo {
        name: "bytes",
        unit: "bytes",
        formula: "length of the text in UTF-8",
        source: CURATE,
        value: |m| count(m.bytes),
    },
    StatisticInfo {
        name: "characters",
        unit: "code points",
        formula: "len(text)",
        source: PYTHON,
        value: |m| count(m.characters),
    },
    StatisticInfo {
        name: "lines",
        unit: "lines",
        formula: "len(text.splitlines()), blank lines included",
        source: PYTHON,
        value: |m| count(m.lines),
    },
    StatisticInfo {
        name: "nonblank_lines",
        unit: "lines",
        formula: "lines with a word",
        source: CURATE,
        value: |m| count(m.nonblank_lines),
    },
    StatisticInfo {
        name: "whitespace_words",
        unit: "words",
        formula: "len(text.split())",
        source: PYTHON,
        value: |m| count(m.whitespace_words),
    },
    StatisticInfo {
        name: "content_words",
        unit: "words",
        formula: "whitespace words with a character outside datatrove's set of punctuation",
        source: DATATROVE,
        value: |m| count(m.content_words),
    },
    StatisticInfo {
        name: "alphanumeric_words",
        unit: "words",
        formula: "whitespace words with a letter or a digit",
        source: CURATE,
        value: |m| count(m.alphanumeric_words),
    },
    StatisticInfo {
        name: "spaced_words",
        unit: "words",
        formula: "alphanumeric words without Han, Kana, Thai, Lao, Khmer or Myanmar",
        source: CURATE,
        value: |m| count(m.spaced_words),
    },
    StatisticInfo {
        name: "words",
        unit: "words",
        formula: "alphanumeric words, but one for each code point of Han, Kana, Thai, Lao, Khmer and Myanmar, and one \
                  for each run of other characters between them",
        source: CURATE,
        value: |m| count(m.words),
    },
    StatisticInfo {
        name: "mean_word_length",
        unit: "code points",
        formula: "code points of content words / content_words",
        source: DATATROVE,
        value: |m| ratio(m.content_characters, m.content_words),
    },
    StatisticInfo {
        name: "median_word_length",
        unit: "code points",
        formula: "median length of whitespace words; the mean of the middle two if their number is even",
        source: DOLMA,
        value: |m| m.lengths.median(),
    },
    StatisticInfo {
        name: "longest_word",
        unit: "code points",
        formula: "length of the longest whitespace word",
        source: CURATE,
        value: |m| count(m.longest_word),
    },
    StatisticInfo {
        name: "mean_spaced_word_length",
        unit: "code points",
        formula: "code points of spaced words / spaced_words",
        source: CURATE,
        value: |m| ratio(m.spaced_characters, m.spaced_words),
    },
    StatisticInfo {
        name: "hashes",
        unit: "occurrences",
        formula: "text.count('#')",
        source: DATATROVE,
        value: |m| count(m.hashes),
    },
    StatisticInfo {
        name: "hash_ratio",
        unit: "per word",
        formula: "hashes / whitespace_words",
        source: DATATROVE,
        value: |m| ratio(m.hashes, m.whitespace_words),
    },
    StatisticInfo {
        name: "ellipses",
        unit: "occurrences",
        formula: "text.count('...') + text.count('…')",
        source: DATATROVE,
        value: |m| count(m.ellipses),
    },
    StatisticInfo {
        name: "ellipsis_ratio",
        unit: "per word",
        formula: "ellipses / whitespace_words",
        source: DATATROVE,
        value: |m| ratio(m.ellipses, m.whitespace_words),
    },
    StatisticInfo {
        name: "bullet_lines",
        unit: "lines",
        formula: "lines whose first word begins with • or -",
        source: DATATROVE,
        value: |m| count(m.bullet_lines),
    },
    StatisticInfo {
        name: "bullet_lines_ratio",
        unit: "0..1",
        formula: "bullet_lines / lines",
        source: DATATROVE,
        value: |m| ratio(m.bullet_lines, m.lines),
    },
    StatisticInfo {
        name: "ellipsis_lines",
        unit: "lines",
        formula: "lines whose last word ends with ... or …",
        source: DATATROVE,
        value: |m| count(m.ellipsis_lines),
    },
    StatisticInfo {
        name: "ellipsis_lines_ratio",
        unit: "0..1",
        formula: "ellipsis_lines / lines",
        source: DATATROVE,
        value: |m| ratio(m.ellipsis_lines, m.lines),
    },
    StatisticInfo {
        name: "alphabetic_words",
        unit: "words",
        formula: "whitespace words with a letter",
        source: DATATROVE,
        value: |m| count(m.alphabetic_words),
    },
    StatisticInfo {
        name: "alphabetic_words_ratio",
        unit: "0..1",
        formula: "alphabetic_words / whitespace_words",
        source: DATATROVE,
        value: |m| ratio(m.alphabetic_words, m.whitespace_words),
    },
    StatisticInfo {
        name: "stop_words",
        unit: "occurrences",
        formula: "whitespace words that are one of the/be/to/of/and/that/have/with in any case, with what is no letter \
                  or digit taken off both ends",
        source: CURATE,
        value: |m| count(m.stop_words),
    },
    StatisticInfo {
        name: "stop_words_distinct",
        unit: "0..8",
        formula: "different words among stop_words",
        source: CURATE,
        value: |m| f64::from(m.stop_words_seen.count_ones()),
    },
    StatisticInfo {
        name: "exact_stop_words",
        unit: "occurrences",
        formula: "whitespace words that are one of the/be/to/of/and/that/have/with, as they stand",
        source: DOLMA,
        value: |m| count(m.exact_stop_words),
    },
    StatisticInfo {
        name: "exact_stop_words_distinct",
        unit: "0..8",
        formula: "different words among exact_stop_words",
        source: DATATROVE,
        value: |m| f64::from(m.exact_stop_words_seen.count_ones()),
    },
    StatisticInfo {
        name: "letters_ratio",
        unit: "0..1",
        formula: "characters for which str.isalpha() holds / characters",
        source: PYTHON,
        value: |m| ratio(m.letters, m.characters),
    },
    StatisticInfo {
        name: "latin_letters_ratio",
        unit: "0..1",
        formula: "letters of the Latin script / letters",
        source: CURATE,
        value: |m| ratio(m.latin_letters, m.letters),
    },
    StatisticInfo {
        name: "unspaced_letters_ratio",
        unit: "0..1",
        formula: "letters of Han, Kana, Thai, Lao, Khmer and Myanmar / letters",
        source: CURATE,
        value: |m| ratio(m.unspaced_letters, m.letters),
    },
    StatisticInfo {
        name: "digits_ratio",
        unit: "0..1",
        formula: "characters 0 to 9 / characters",
        source: CURATE,
        value: |m| ratio(m.digits, m.characters),
    },
    StatisticInfo {
        name: "whitespace_ratio",
        unit: "0..1",
        formula: "white-space characters / characters",
        source: CURATE,
        value: |m| ratio(m.characters - m.word_characters, m.characters),
    },
];

fn count(n: usize) -> f64 {
    n as f64
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What was counted in a text. Reuse one for many texts: its buffers stay.
#[derive(Debug, Default, Clone)]
pub struct Measurements {
    bytes: usize,
    characters: usize,
    lines: usize,
    nonblank_lines: usize,
    bullet_lines: usize,
    ellipsis_lines: usize,
    whitespace_words: usize,
    content_words: usize,
    alphanumeric_words: usize,
    spaced_words: usize,
    words: usize,
    alphabetic_words: usize,
    word_characters: usize,
    content_characters: usize,
    spaced_characters: usize,
    longest_word: usize,
    hashes: usize,
    ellipses: usize,
    letters: usize,
    latin_letters: usize,
    unspaced_letters: usize,
    digits: usize,
    stop_words: usize,
    exact_stop_words: usize,
    /// One bit for each stop word seen.
    stop_words_seen: u8,
    exact_stop_words_seen: u8,
    lengths: Lengths,
    /// All but `bytes` and those of dialects were counted.
    has_common: bool,
    pub(crate) dialects: Dialects,
}

impl Measurements {
    /// The statistic called `name`, if there is one; see [`statistics`].
    pub fn get(&self, name: &str) -> Option<f64> {
        statistics().iter().find(|statistic| statistic.name == name).map(|statistic| statistic.value(self))
    }

    /// True if the text has no word at all.
    pub fn is_blank(&self) -> bool {
        self.whitespace_words == 0
    }

    fn clear(&mut self) {
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.clear();
        let mut dialects = std::mem::take(&mut self.dialects);
        dialects.clear();
        *self = Self { lengths, dialects, ..Self::default() };
    }
}

/// Measures texts. Holds 128 KiB of character classes, takes a few milliseconds to build, can be shared by threads.
#[derive(Debug)]
pub struct Measurer {
    words: Words,
    classes: Classes,
    phrases: aho_corasick::AhoCorasick,
    stop_words: StopWords,
    languages: LanguageWords,
}

impl Measurer {
    pub fn new(words: Words) -> Self {
        Self::with_stop_words(words, &[])
    }

    /// The same, with the words that `recipe_stop_words_distinct` counts; of more than 128 the first.
    pub fn with_stop_words(words: Words, stop_words: &[String]) -> Self {
        let stop_words = StopWords::new(stop_words);
        Self {
            words,
            classes: Classes::new(),
            phrases: dialects::phrases(),
            stop_words,
            languages: LanguageWords::new(),
        }
    }

    /// Counts what all statistics of `text` need, those of dialects too, in place of what `measurements` held.
    pub fn measure_all(&self, text: &str, measurements: &mut Measurements) {
        self.start(text, measurements);
        self.measure_groups(text, dialects::ALL, measurements);
    }

    /// Counts what the statistics of `text` need, in place of what `measurements` held. Those of dialects stay 0.
    ///
    /// Allocates only for words of 256 code points and more.
    pub fn measure(&self, text: &str, measurements: &mut Measurements) {
        self.start(text, measurements);
        self.measure_common(text, measurements);
    }

    /// Forgets the last text; of the new one only the length is known.
    pub(crate) fn start(&self, text: &str, measurements: &mut Measurements) {
        measurements.clear();
        measurements.bytes = text.len();
    }

    /// Adds the statistics of `groups` to those of the same `text`, where they are missing.
    pub(crate) fn measure_groups(&self, text: &str, groups: Groups, measurements: &mut Measurements) {
        if groups & dialects::COMMON != 0 && !measurements.has_common {
            self.measure_common(text, measurements);
        }
        self.measure_dialects(text, groups, measurements);
    }

    fn measure_common(&self, text: &str, measurements: &mut Measurements) {
        measurements.has_common = true;
        measurements.count_bytes(text.as_bytes());
        if self.words == Words::Whitespace {
            self.measure_lines(text, measurements, |measurements, token| {
                measurements.add_word(token, &self.classes);
            });
        } else {
            self.measure_lines(text, measurements, |_, _| {});
            self.classes.each_word(self.words, text, |token| measurements.add_word(&token, &self.classes));
        }
    }

    fn measure_dialects(&self, text: &str, groups: Groups, measurements: &mut Measurements) {
        let tables = Tables {
            words: self.words,
            classes: &self.classes,
            phrases: &self.phrases,
            stop_words: &self.stop_words,
            languages: &self.languages,
        };
        measurements.dialects.measure(text, groups, tables);
    }

    /// Counts what lines are made of, and letters beyond ASCII; calls `each` with the whitespace words.
    #[inline]
    fn measure_lines(
        &self,
        text: &str,
        measurements: &mut Measurements,
        mut each: impl FnMut(&mut Measurements, &Token<'_>),
    ) {
        let mut tokens = self.classes.tokens(text);
        let mut line_ends_in_ellipsis = false;
        let mut line_breaks = 0;
        let mut is_first_word = true;
        for token in tokens.by_ref() {
            line_breaks += token.line_breaks_before;
            if is_first_word || token.line_breaks_before > 0 {
                measurements.ellipsis_lines += usize::from(line_ends_in_ellipsis);
                measurements.nonblank_lines += 1;
                measurements.bullet_lines += usize::from(token.text.starts_with(['-', '•']));
                is_first_word = false;
            }
            line_ends_in_ellipsis = token.text.ends_with('…') || token.text.ends_with("...");
            if token.any & class::FULL_STOP != 0 {
                measurements.ellipses += count_ellipses(token.text.as_bytes());
            }
            each(measurements, &token);
        }
        measurements.ellipsis_lines += usize::from(line_ends_in_ellipsis);
        line_breaks += tokens.trailing_line_breaks;
        let last_line_is_open =
            text.chars().next_back().is_some_and(|c| self.classes.of(c) & class::LINE_BREAK == 0);
        measurements.lines = line_breaks + usize::from(last_line_is_open);

        let beyond_ascii = tokens.beyond_ascii;
        measurements.letters += beyond_ascii.letters;
        measurements.latin_letters += beyond_ascii.latin_letters;
        measurements.unspaced_letters += beyond_ascii.unspaced_letters;
        measurements.ellipses += beyond_ascii.ellipses;
    }
}

impl Measurements {
    fn count_bytes(&mut self, bytes: &[u8]) {
        let counts = ByteCounts::of(bytes);
        self.characters = counts.characters;
        (self.letters, self.latin_letters) = (counts.letters, counts.letters);
        (self.digits, self.hashes) = (counts.digits, counts.hashes);
    }

    fn add_word(&mut self, token: &Token<'_>, classes: &Classes) {
        let has = |class: u16| token.any & class != 0;
        self.whitespace_words += 1;
        self.word_characters += token.characters;
        self.longest_word = self.longest_word.max(token.characters);
        self.lengths.add(token.characters);
        if has(class::CONTENT) {
            self.content_words += 1;
            self.content_characters += token.characters;
        }
        self.alphabetic_words += usize::from(has(class::LETTER));
        if has(class::ALPHANUMERIC) {
            self.alphanumeric_words += 1;
            if has(class::UNSPACED) {
                self.words += count_units(token.text, classes);
            } else {
                self.words += 1;
                self.spaced_words += 1;
                self.spaced_characters += token.characters;
            }
        }
        self.add_stop_word(token, classes);
    }

    fn add_stop_word(&mut self, token: &Token<'_>, classes: &Classes) {
        if let Some(i) = stop_word(token.text.as_bytes()) {
            self.exact_stop_words += 1;
            self.exact_stop_words_seen |= 1 << i;
        }
        let bare = if token.all & class::ALPHANUMERIC != 0 {
            token.text.as_bytes()
        } else if token.any & class::BEYOND_ASCII != 0 {
            token.text.trim_matches(|c| classes.of(c) & class::ALPHANUMERIC == 0).as_bytes()
        } else {
            trim_ascii_punctuation(token.text.as_bytes())
        };
        if let Some(i) = stop_word_in_any_case(bare) {
            self.stop_words += 1;
            self.stop_words_seen |= 1 << i;
        }
    }
}

/// Takes off both ends what is no letter or digit.
fn trim_ascii_punctuation(mut word: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = word
        && !first.is_ascii_alphanumeric()
    {
        word = rest;
    }
    while let [rest @ .., last] = word
        && !last.is_ascii_alphanumeric()
    {
        word = rest;
    }
    word
}

/// Up to four bytes as a number, low byte first; 0 for anything longer.
const fn packed(word: &[u8]) -> u32 {
    match *word {
        [a, b] => u32::from_le_bytes([a, b, 0, 0]),
        [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

const PACKED_STOP_WORDS: [u32; STOP_WORDS.len()] = {
    let mut all = [0; STOP_WORDS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = packed(STOP_WORDS[i].as_bytes());
        assert!(all[i] != 0, "stop words have two to four bytes");
        i += 1;
    }
    all
};

/// Which stop word this is.
fn stop_word(word: &[u8]) -> Option<usize> {
    position(packed(word))
}

/// Which stop word this is, in upper, lower or mixed case.
fn stop_word_in_any_case(word: &[u8]) -> Option<usize> {
    // Setting this bit makes an upper-case letter lower-case, and a letter of nothing else; it makes no zero byte.
    let lower = match word.len() {
        2 => 0x2020,
        3 => 0x20_2020,
        4 => 0x2020_2020,
        _ => return None,
    };
    position(packed(word) | lower)
}

fn position(packed: u32) -> Option<usize> {
    if packed == 0 { None } else { PACKED_STOP_WORDS.iter().position(|stop_word| *stop_word == packed) }
}

/// Words of a token in which some characters stand for a word each: those, and the runs between them.
fn count_units(token: &str, classes: &Classes) -> usize {
    let mut units = 0;
    let mut in_run = false;
    for c in token.chars() {
        let class = classes.of(c);
        if class & class::UNSPACED != 0 {
            units += usize::from(class & class::CONTENT != 0);
            in_run = false;
        } else if class & class::ALPHANUMERIC != 0 && !in_run {
            units += 1;
            in_run = true;
        }
    }
    units
}

/// Occurrences of `...` that do not overlap.
fn count_ellipses(token: &[u8]) -> usize {
    let (mut ellipses, mut run) = (0, 0);
    for byte in token {
        run = if *byte == b'.' { run + 1 } else { 0 };
        if run == 3 {
            ellipses += 1;
            run = 0;
        }
    }
    ellipses
}

/// How many words there are of each length.
#[derive(Debug, Clone)]
struct Lengths {
    short: [u32; Self::SHORT],
    /// Lengths of the other words, in no order.
    long: Vec<usize>,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { short: [0; Self::SHORT], long: Vec::new() }
    }
}

impl Lengths {
    const SHORT: usize = 256;

    fn clear(&mut self) {
        self.short.fill(0);
        self.long.clear();
    }

    fn add(&mut self, length: usize) {
        match self.short.get_mut(length) {
            Some(n) => *n += 1,
            None => self.long.push(length),
        }
    }

    fn median(&self) -> f64 {
        let n = self.short.iter().map(|n| *n as usize).sum::<usize>() + self.long.len();
        match n {
            0 => 0.0,
            _ => (count(self.nth((n - 1) / 2)) + count(self.nth(n / 2))) / 2.0,
        }
    }

    /// The `n`-th smallest length, from 0.
    fn nth(&self, n: usize) -> usize {
        let mut before = 0;
        for (length, words) in self.short.iter().enumerate() {
            before += *words as usize;
            if n < before {
                return length;
            }
        }
        // Texts whose median word is this long are rare enough to pay for a copy.
        let mut long = self.long.clone();
        *long.select_nth_unstable(n - before).1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::chars::{is_letter, is_line_break, is_punctuation, is_python_space};

    static MEASURER: LazyLock<Measurer> = LazyLock::new(|| Measurer::new(Words::Whitespace));

    fn measure(text: &str) -> Measurements {
        let mut measurements = Measurements::default();
        MEASURER.measure(text, &mut measurements);
        measurements
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, f64)]) {
        let measurements = measure(text);
        for (name, value) in expected {
            assert_eq!(measurements.get(name), Some(*value), "{name} of {text:?}");
        }
    }

    #[test]
    fn names_are_unique_and_complete() {
        let names: BTreeSet<&str> = statistics().iter().map(|s| s.name).collect();
        assert_eq!(names.len(), statistics().len());
        for statistic in statistics() {
            assert!(
                !statistic.formula.is_empty() && !statistic.unit.is_empty() && !statistic.source.is_empty()
            );
            assert!(
                statistic.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                statistic.name
            );
        }
        assert_eq!(measure("").get("no_such_name"), None);
    }

    #[test]
    fn everything_about_nothing_is_zero() {
        let mut measurements = measure("a b");
        let measurer = Measurer::new(Words::Whitespace);
        measurer.measure_all("the # of #", &mut measurements);
        assert_eq!((measurements.get("dclm_stop_words"), measurements.get("hashes")), (Some(2.0), Some(2.0)));
        measurer.measure("", &mut measurements);
        for statistic in statistics() {
            assert_eq!(statistic.value(&measurements), 0.0, "{}", statistic.name);
        }
    }

    #[test]
    fn sizes_and_lines() {
        check("é汉 x", &[("bytes", 7.0), ("characters", 4.0), ("lines", 1.0), ("whitespace_words", 2.0)]);
        check("a\n\n b\r\nc\u{85}", &[("lines", 4.0), ("nonblank_lines", 3.0)]);
        check("\n", &[("lines", 1.0), ("nonblank_lines", 0.0)]);
        check("a\n \nb ", &[("lines", 3.0), ("nonblank_lines", 2.0), ("whitespace_ratio", 4.0 / 6.0)]);
        check("a1 b2", &[("digits_ratio", 0.4), ("letters_ratio", 0.4)]);
    }

    #[test]
    fn kinds_of_words() {
        let kinds = [("whitespace_words", 8.0), ("content_words", 5.0), ("alphanumeric_words", 3.0)];
        check("one, -- • ½ ± 2nd ... (.)", &kinds);
        check("one, -- • ½ ± 2nd ... (.)", &[("alphabetic_words", 2.0), ("alphabetic_words_ratio", 0.25)]);
        check("words: 汉字 and カナ", &[("words", 6.0), ("spaced_words", 2.0), ("whitespace_words", 4.0)]);
        check(
            "用iPhone15拍照，很好。",
            &[("words", 6.0), ("spaced_words", 0.0), ("unspaced_letters_ratio", 5.0 / 11.0)],
        );
        check("ไทย", &[("words", 3.0)]);
        check("don't re-use", &[("words", 2.0)]);
    }

    #[test]
    fn word_lengths() {
        check(
            "a bb, -- ccc",
            &[("mean_word_length", 7.0 / 3.0), ("median_word_length", 2.5), ("longest_word", 3.0)],
        );
        check("né 汉字字", &[("mean_word_length", 2.5), ("mean_spaced_word_length", 2.0)]);
        let long = format!("{} {} b", "x".repeat(300), "y".repeat(1000));
        check(&long, &[("median_word_length", 300.0), ("longest_word", 1000.0)]);
        check(&"z".repeat(256), &[("median_word_length", 256.0)]);
    }

    #[test]
    fn symbols() {
        check("# a #b# ##", &[("hashes", 5.0), ("hash_ratio", 1.25)]);
        check("a... .... ...... .. … b…", &[("ellipses", 6.0), ("ellipsis_ratio", 1.0)]);
        check("..\n.", &[("ellipses", 0.0)]);
    }

    #[test]
    fn bullets_and_ellipses_of_lines() {
        check(" - a\n• b\n\nc - d", &[("bullet_lines", 2.0), ("bullet_lines_ratio", 0.5)]);
        check("a... \nb…\nc.. .\n...", &[("ellipsis_lines", 3.0), ("ellipsis_lines_ratio", 0.75)]);
        check("a...\n\n\n", &[("ellipsis_lines", 1.0), ("lines", 3.0)]);
        check("a... b", &[("ellipsis_lines", 0.0)]);
        check("* a\n– b\n−c", &[("bullet_lines", 0.0)]);
    }

    #[test]
    fn stop_words_with_and_without_case() {
        let text = "The “the” the, THE of to-be That's with\u{200b} (AND) thé";
        check(text, &[("exact_stop_words", 1.0), ("exact_stop_words_distinct", 1.0)]);
        check(text, &[("stop_words", 7.0), ("stop_words_distinct", 4.0)]);
        check(
            "the be to of and that have with",
            &[("exact_stop_words_distinct", 8.0), ("stop_words_distinct", 8.0)],
        );
        check(
            "a bee too often hand than haves within b\u{1}",
            &[("exact_stop_words", 0.0), ("stop_words", 0.0)],
        );
    }

    #[test]
    fn scripts() {
        check(
            "Привет",
            &[("latin_letters_ratio", 0.0), ("letters_ratio", 1.0), ("unspaced_letters_ratio", 0.0)],
        );
        check("naïve 汉字!", &[("latin_letters_ratio", 5.0 / 7.0), ("unspaced_letters_ratio", 2.0 / 7.0)]);
    }

    #[test]
    fn measurements_are_reused_without_a_trace() {
        let mut reused = Measurements::default();
        MEASURER.measure(&format!("the {} … #", "x".repeat(400)), &mut reused);
        MEASURER.measure("to be", &mut reused);
        let fresh = measure("to be");
        for statistic in statistics() {
            assert_eq!(statistic.value(&reused), statistic.value(&fresh), "{}", statistic.name);
        }
    }

    proptest! {
        /// The definitions, written down as plainly as they are stated.
        #[test]
        fn agrees_with_the_definitions(text in "([a-cT.#•…é汉😀₂１,\\- ]|the|\\.\\.\\.|[\n\r\u{85}\u{1c}\u{1f}\u{a0}]){0,40}") {
            let words: Vec<&str> = Words::Whitespace.split(&text).collect();
            let content: Vec<&str> =
                words.iter().copied().filter(|w| w.chars().any(|c| !is_punctuation(c))).collect();
            let normal = text.replace("\r\n", "\n");
            let mut lines: Vec<&str> = normal.split(is_line_break).collect();
            if lines.last() == Some(&"") {
                lines.pop();
            }
            let count_lines = |is: fn(&str) -> bool| lines.iter().filter(|l| is(l)).count();
            let bullets = count_lines(|l| l.trim_start_matches(is_python_space).starts_with(['-', '•']));
            let elliptic = count_lines(|l| {
                let line = l.trim_end_matches(is_python_space);
                line.ends_with("...") || line.ends_with('…')
            });
            let mut lengths: Vec<usize> = words.iter().map(|w| w.chars().count()).collect();
            lengths.sort_unstable();
            let median = match lengths.len() {
                0 => 0.0,
                n => (lengths[(n - 1) / 2] + lengths[n / 2]) as f64 / 2.0,
            };
            let letters = text.chars().filter(|c| is_letter(*c)).count();
            let content_characters = content.iter().map(|w| w.chars().count()).sum();
            let alphabetic = words.iter().filter(|w| w.chars().any(is_letter)).count();
            let the = words.iter().filter(|w| **w == "the").count();
            let spaces = text.chars().filter(|c| is_python_space(*c)).count();
            let characters = text.chars().count();
            let measurements = measure(&text);
            for (name, expected) in [
                ("characters", count(characters)),
                ("lines", count(lines.len())),
                ("whitespace_words", count(words.len())),
                ("content_words", count(content.len())),
                ("mean_word_length", ratio(content_characters, content.len())),
                ("median_word_length", median),
                ("hashes", count(text.matches('#').count())),
                ("ellipses", count(text.matches("...").count() + text.matches('…').count())),
                ("bullet_lines_ratio", ratio(bullets, lines.len())),
                ("ellipsis_lines_ratio", ratio(elliptic, lines.len())),
                ("alphabetic_words_ratio", ratio(alphabetic, words.len())),
                ("exact_stop_words", count(the)),
                ("letters_ratio", ratio(letters, characters)),
                ("whitespace_ratio", ratio(spaces, characters)),
            ] {
                prop_assert_eq!(measurements.get(name), Some(expected), "{} of {:?}", name, &text);
            }
        }
    }
}
