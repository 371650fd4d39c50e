//! What other implementations of the same rules count: datatrove, dolma, DCLM and NeMo Curator.
//!
//! All of them publish Gopher's thresholds, and each counts other things: which words, which lines, whether the first
//! copy is a duplicate, what a share is a share of. Here each has statistics of its own, by the prefix of its name,
//! measured exactly as its code does, odd parts included. They are only measured if a rule asks for one.

mod c4;
mod datatrove;
mod dclm;
mod dolma;
mod editor;
mod edits;
mod grams;
mod language;
mod nemo;
mod repeats;
mod stop_words;
mod sentences;
pub(crate) mod uax29;
mod urls;

use self::c4::C4Values;
use self::datatrove::DatatroveValues;
use self::dclm::{DclmValues, share};
use self::dolma::DolmaValues;
use self::grams::{Counts, Grams};
use self::nemo::NemoValues;
use self::repeats::RepeatValues;
use crate::words::{Classes, Words};
use crate::{Measurements, StatisticInfo};

pub use self::editor::Edit;
pub(crate) use self::editor::{Editor, EditorScratch};
pub(crate) use self::language::LanguageWords;
pub(crate) use self::stop_words::{MOST as MOST_STOP_WORDS, StopWords};

/// Statistics that are measured together, as a set of bits.
pub(crate) type Groups = u16;

const DCLM_BASICS: Groups = 1;
const DCLM_GRAMS: Groups = 1 << 1;
const DOLMA_BASICS: Groups = 1 << 2;
const DOLMA_GRAMS: Groups = 1 << 3;
const NEMO_BASICS: Groups = 1 << 4;
const NEMO_GRAMS: Groups = 1 << 5;

const RECIPE: Groups = 1 << 10;
const REPEAT_BASICS: Groups = 1 << 11;
const REPEAT_GRAMS: Groups = 1 << 12;
const LANGUAGE: Groups = 1 << 13;

/// Every group.
pub(crate) const ALL: Groups = Groups::MAX;

/// The statistics that are no dialect's, but `bytes`, which costs nothing.
pub(crate) const COMMON: Groups = 1 << 6;

const DATATROVE_BASICS: Groups = 1 << 7;
const DATATROVE_GRAMS: Groups = 1 << 8;
const FINEWEB: Groups = 1 << 9;

/// The group of a statistic; none for one that needs no measuring.
pub(crate) fn groups_of(name: &str) -> Groups {
    let (basics, grams) = match name.split_once('_').map(|(dialect, _)| dialect) {
        Some("recipe") => return RECIPE,
        Some("language") => return LANGUAGE,
        Some("repeat") => (REPEAT_BASICS, REPEAT_GRAMS),
        Some("dclm") => (DCLM_BASICS, DCLM_GRAMS),
        Some("dolma") => (DOLMA_BASICS, DOLMA_GRAMS),
        Some("nemo") => (NEMO_BASICS, NEMO_GRAMS),
        Some("datatrove") => (DATATROVE_BASICS, DATATROVE_GRAMS),
        Some("fineweb") => (FINEWEB, FINEWEB),
        Some("refinedweb" | "c4") => return 0,
        _ if name == "bytes" => return 0,
        _ => return COMMON,
    };
    if name.ends_with("grams") { grams } else { basics }
}

/// Tables that dialects share with the rest, and those of their own.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'t> {
    pub(crate) words: Words,
    pub(crate) classes: &'t Classes,
    pub(crate) phrases: &'t aho_corasick::AhoCorasick,
    pub(crate) stop_words: &'t StopWords,
    pub(crate) languages: &'t LanguageWords,
}

/// Finds NeMo's phrases; see [`Tables`].
pub(crate) fn phrases() -> aho_corasick::AhoCorasick {
    nemo::phrases()
}

/// What was counted in a text, and the buffers it takes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Dialects {
    measured: Groups,
    /// Set by the edit, if there was one.
    words_removed: f64,
    c4: C4Values,
    datatrove: DatatroveValues,
    dclm: DclmValues,
    dolma: DolmaValues,
    nemo: NemoValues,
    repeats: RepeatValues,
    recipe_stop_words: usize,
    language_stop_words: usize,
    scratch: DialectScratch,
}

#[derive(Debug, Default, Clone)]
struct DialectScratch {
    counts: Counts,
    grams: Grams,
    lengths: Vec<u32>,
    /// Where the words stand, in bytes.
    places: Vec<(u32, u32)>,
    joined: String,
}

impl Dialects {
    /// Nothing is known about the next text: all statistics are 0 until they are measured.
    pub(crate) fn clear(&mut self) {
        let scratch = std::mem::take(&mut self.scratch);
        *self = Self { scratch, ..Self::default() };
    }

    /// Notes which part of the words the last edit took.
    pub(crate) fn set_words_removed(&mut self, ratio: f64) {
        self.words_removed = ratio;
    }

    /// Notes what the last edit of C4's saw.
    pub(crate) fn set_c4(&mut self, values: C4Values) {
        self.c4 = values;
    }

    /// Measures what of `groups` has not been measured since [`Dialects::clear`].
    pub(crate) fn measure(&mut self, text: &str, groups: Groups, tables: Tables<'_>) {
        let missing = groups & !(self.measured | COMMON);
        if missing == 0 {
            return;
        }
        self.measured |= missing;
        let (classes, scratch) = (tables.classes, &mut self.scratch);
        if missing & DATATROVE_BASICS != 0 {
            self.datatrove.measure_basics(text, scratch);
        }
        if missing & DATATROVE_GRAMS != 0 {
            self.datatrove.measure_grams(text, tables, scratch);
        }
        if missing & FINEWEB != 0 {
            self.datatrove.measure_fineweb(text, tables, scratch);
        }
        if missing & RECIPE != 0 {
            self.recipe_stop_words = tables.stop_words.distinct(classes.tokens(text).map(|token| token.text));
        }
        if missing & LANGUAGE != 0 {
            let words = classes.tokens(text).map(|token| language::bare(&token));
            self.language_stop_words = tables.languages.most_distinct(words);
        }
        if missing & REPEAT_BASICS != 0 {
            self.repeats.measure_basics(text, scratch);
        }
        if missing & REPEAT_GRAMS != 0 {
            self.repeats.measure_grams(text, tables, scratch);
        }
        if missing & DCLM_BASICS != 0 {
            self.dclm.measure_basics(text, classes, scratch);
        }
        if missing & DCLM_GRAMS != 0 {
            self.dclm.measure_grams(text, scratch);
        }
        if missing & DOLMA_BASICS != 0 {
            self.dolma.measure_basics(text, classes, scratch);
        }
        if missing & DOLMA_GRAMS != 0 {
            self.dolma.measure_grams(text, classes, scratch);
        }
        if missing & NEMO_BASICS != 0 {
            self.nemo.measure_basics(text, tables, scratch);
        }
        if missing & NEMO_GRAMS != 0 {
            self.nemo.measure_grams(text, classes, scratch);
        }
    }
}

const REPETITION: &str = "datatrove 0.10.1 gopher_repetition_filter.py";
const C4: &str = "datatrove 0.10.1 c4_filters.py";
const FINEWEB_QUALITY: &str = "datatrove 0.10.1 fineweb_quality_filter.py";
const CURATE: &str = "curate";
const DCLM: &str = "DCLM 361714b content_filters.py";
const MODIFIERS: &str = "DCLM 361714b modifiers.py, word_removal_ratio_filter";
const DOLMA: &str = "dolma 1.2.1 taggers/gopher.py gopher_v1";
const NEMO: &str = "NeMo Curator 1e2e427 filters/heuristic";

macro_rules! statistics {
    ($($name:literal, $unit:literal, $formula:expr, $source:ident, $m:ident => $value:expr;)*) => {
        /// The statistics of all dialects.
        pub(crate) const STATISTICS: &[StatisticInfo] = &[$(StatisticInfo {
            name: $name,
            unit: $unit,
            formula: $formula,
            source: $source,
            value: |measurements: &Measurements| {
                let $m = &measurements.dialects;
                $value
            },
        }),*];
    };
}

fn number(count: usize) -> f64 {
    count as f64
}

const DATATROVE_TOP: &str = "characters of the first of the most frequent n-grams, joined by spaces, which may stand there \
                             once, times its count / characters";
const DATATROVE_DUPLICATE: &str = "characters of the words of n-grams that stood further ahead already, going on behind \
                                   each / characters";
const REPEAT_TOP: &str = "longest of the most frequent n-grams of alphanumeric words bare of punctuation, one for each \
                          code point of Han, Kana, Thai, Lao, Khmer and Myanmar, times its count / characters of those \
                          words; 0 if no n-gram repeats";
const REPEAT_DUPLICATE: &str = "characters of those words in n-grams that stood further ahead already, each word once / characters of those words";
const DCLM_TOP: &str = "longest of the most frequent n-grams times its count / characters of words between Unicode's \
                        boundaries that begin with a letter or digit; 0 if no n-gram repeats";
const DCLM_DUPLICATE: &str =
    "characters of words in any repeated n-gram, each word once / characters of those words";
const DOLMA_TOP: &str = "characters of the first of the most frequent n-grams, which may stand there once, times its \
                         count / characters of words; 5 decimals";
const DOLMA_DUPLICATE: &str = "characters of repeated n-grams / characters of all n-grams, overlaps counted for each; 5 \
                               decimals";
const NEMO_TOP: &str = "characters that go when the most frequent n-gram, the first of several, joined by spaces, is \
                        replaced by nothing / characters; 1 if there are too few words";
const NEMO_DUPLICATE: &str = "characters of n-grams that stood further ahead already, with the spaces between their words, \
                              overlaps once / characters; 1 if there are too few words";

statistics! {
    "datatrove_duplicate_paragraphs_ratio", "0..1",
        "second and later copies of paragraphs (between two or more line feeds) / paragraphs", REPETITION,
        m => share(m.datatrove.paragraphs.copies, m.datatrove.paragraphs.all);
    "datatrove_duplicate_paragraph_characters_ratio", "0..1",
        "characters of second and later copies of paragraphs / characters", REPETITION,
        m => share(m.datatrove.paragraphs.copied_characters, m.datatrove.characters);
    "datatrove_duplicate_lines_ratio", "0..1", "second and later copies of lines (between line feeds) / lines",
        REPETITION, m => share(m.datatrove.lines.copies, m.datatrove.lines.all);
    "datatrove_duplicate_line_characters_ratio", "0..1", "characters of second and later copies of lines / characters",
        REPETITION, m => share(m.datatrove.lines.copied_characters, m.datatrove.characters);
    "datatrove_top_2grams", "0..1", DATATROVE_TOP, REPETITION, m => m.datatrove.grams[0];
    "datatrove_top_3grams", "0..1", DATATROVE_TOP, REPETITION, m => m.datatrove.grams[1];
    "datatrove_top_4grams", "0..1", DATATROVE_TOP, REPETITION, m => m.datatrove.grams[2];
    "datatrove_duplicate_5grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[3];
    "datatrove_duplicate_6grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[4];
    "datatrove_duplicate_7grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[5];
    "datatrove_duplicate_8grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[6];
    "datatrove_duplicate_9grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[7];
    "datatrove_duplicate_10grams", "0..1", DATATROVE_DUPLICATE, REPETITION, m => m.datatrove.grams[8];

    "c4_lorem_ipsum", "0 or 1", "an edit of C4's met a line with lorem ipsum", C4,
        m => number(usize::from(m.c4.has_lorem_ipsum));
    "c4_curly_bracket", "0 or 1", "an edit of C4's met a line with {", C4,
        m => number(usize::from(m.c4.has_curly_bracket));
    "c4_sentences", "sentences", "sentences by spaCy's sentencizer of the lines that an edit of C4's left", C4,
        m => number(m.c4.sentences);

    "fineweb_lines", "lines", "lines between line feeds that are not blank", FINEWEB_QUALITY,
        m => number(m.datatrove.fineweb.lines.all);
    "fineweb_ended_lines_ratio", "0..1", "fineweb_lines whose last character is one of 159 that end sentences / \
        fineweb_lines", FINEWEB_QUALITY, m => share(m.datatrove.fineweb.ended_lines, m.datatrove.fineweb.lines.all);
    "fineweb_short_lines_ratio", "0..1", "fineweb_lines of at most 30 code points / fineweb_lines", FINEWEB_QUALITY,
        m => share(m.datatrove.fineweb.short_lines, m.datatrove.fineweb.lines.all);
    "fineweb_duplicate_line_characters_ratio", "0..1",
        "characters of second and later copies of fineweb_lines / characters without line feeds", FINEWEB_QUALITY,
        m => share(m.datatrove.fineweb.lines.copied_characters, m.datatrove.fineweb.characters);
    "fineweb_line_feeds_per_word", "per word", "line feeds / whitespace words", FINEWEB_QUALITY,
        m => share(m.datatrove.fineweb.line_feeds, m.datatrove.fineweb.words);

    "dclm_tokens", "words", "fastText tokens that begin with a letter or digit", DCLM, m => number(m.dclm.tokens);
    "dclm_mean_word_length", "code points", "mean length of whitespace words", DCLM,
        m => share(m.dclm.word_characters, m.dclm.words);
    "dclm_symbol_ratio", "per word", "occurrences of #, ..., `. . .` and … / whitespace words", DCLM,
        m => share(m.dclm.symbols, m.dclm.words);
    "dclm_lines", "lines", "stripped lines that are not empty", DCLM, m => number(m.dclm.lines.all);
    "dclm_bullet_lines", "lines", "lines that begin with ●, •, * or -", DCLM, m => number(m.dclm.bullet_lines);
    "dclm_ellipsis_lines", "lines", "lines that end with ..., `. . .` or …", DCLM,
        m => number(m.dclm.ellipsis_lines);
    "dclm_words_without_letter_ratio", "0..1", "whitespace words without a letter / whitespace words", DCLM,
        m => share(m.dclm.words_without_letter, m.dclm.words);
    "dclm_stop_words", "occurrences", "whitespace words that are one of Gopher's eight, in any case", DCLM,
        m => number(m.dclm.stop_words);
    "dclm_duplicate_lines_ratio", "0..1", "copies of repeated lines, the first too / lines", DCLM,
        m => m.dclm.share_of_copied_lines();
    "dclm_paragraphs", "paragraphs", "stripped pieces between two line feeds that are not empty", DCLM,
        m => number(m.dclm.paragraphs.all);
    "dclm_duplicate_paragraphs_ratio", "0..1", "copies of repeated paragraphs, the first too / paragraphs", DCLM,
        m => m.dclm.share_of_copied_paragraphs();
    "dclm_duplicate_line_characters_ratio", "0..1", "characters of repeated lines / characters of lines", DCLM,
        m => m.dclm.share_of_copied_line_characters();
    "dclm_duplicate_paragraph_characters_ratio", "0..1",
        "characters of repeated paragraphs / characters of paragraphs", DCLM,
        m => m.dclm.share_of_copied_paragraph_characters();
    "dclm_top_2grams", "0..1", DCLM_TOP, DCLM, m => m.dclm.grams[0];
    "dclm_top_3grams", "0..1", DCLM_TOP, DCLM, m => m.dclm.grams[1];
    "dclm_top_4grams", "0..1", DCLM_TOP, DCLM, m => m.dclm.grams[2];
    "dclm_duplicate_5grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[3];
    "dclm_duplicate_6grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[4];
    "dclm_duplicate_7grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[5];
    "dclm_duplicate_8grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[6];
    "dclm_duplicate_9grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[7];
    "dclm_duplicate_10grams", "0..1", DCLM_DUPLICATE, DCLM, m => m.dclm.grams[8];

    "recipe_stop_words_distinct", "words", "different whitespace words, as they stand, among the recipe's `stop_words`",
        CURATE, m => number(m.recipe_stop_words);

    "repeat_lines_ratio", "0..1", "second and later copies of stripped lines that are not blank / those lines", CURATE,
        m => m.repeats.lines;
    "repeat_line_characters_ratio", "0..1", "characters of those copies / characters of those lines", CURATE,
        m => m.repeats.line_characters;
    "repeat_paragraphs_ratio", "0..1",
        "second and later copies of stripped pieces between two line feeds that are not blank / those pieces", CURATE,
        m => m.repeats.paragraphs;
    "repeat_paragraph_characters_ratio", "0..1", "characters of those copies / characters of those pieces", CURATE,
        m => m.repeats.paragraph_characters;
    "repeat_top_2grams", "0..1", REPEAT_TOP, CURATE, m => m.repeats.grams[0];
    "repeat_top_3grams", "0..1", REPEAT_TOP, CURATE, m => m.repeats.grams[1];
    "repeat_top_4grams", "0..1", REPEAT_TOP, CURATE, m => m.repeats.grams[2];
    "repeat_duplicate_5grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[3];
    "repeat_duplicate_6grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[4];
    "repeat_duplicate_7grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[5];
    "repeat_duplicate_8grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[6];
    "repeat_duplicate_9grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[7];
    "repeat_duplicate_10grams", "0..1", REPEAT_DUPLICATE, CURATE, m => m.repeats.grams[8];

    "language_stop_words_distinct", "words",
        "different whitespace words, in any case and bare of punctuation, among the stop words of the language that has \
        most of them, of 36 in the Latin script", CURATE, m => number(m.language_stop_words);

    "refinedweb_words_removed_ratio", "0..1",
        "dclm_tokens that the edit refinedweb_lines took / dclm_tokens before it; 1 if there were none", MODIFIERS,
        m => m.words_removed;

    "dolma_words", "words", "word_count: whitespace words", DOLMA, m => number(m.dolma.words);
    "dolma_median_word_length", "code points", "median_word_length, of whitespace words", DOLMA,
        m => m.dolma.median_word_length;
    "dolma_symbol_ratio", "0..1", "words that contain # or … / words; 5 decimals", DOLMA, m => m.dolma.symbol_ratio;
    "dolma_alphabetic_words_ratio", "0..1", "words with a letter / words; 5 decimals", DOLMA,
        m => m.dolma.alphabetic_ratio;
    "dolma_stop_words", "occurrences", "required_word_count: words that are one of Gopher's eight, as they stand", DOLMA,
        m => number(m.dolma.stop_words);
    "dolma_bullet_lines_ratio", "0..1", "lines that begin with * or - / lines, empty ones too; 5 decimals", DOLMA,
        m => m.dolma.bullet_ratio;
    "dolma_ellipsis_lines_ratio", "0..1", "lines that end with … / lines, empty ones too; 5 decimals", DOLMA,
        m => m.dolma.ellipsis_ratio;
    "dolma_duplicate_lines_ratio", "0..1", "copies of repeated lines, the first and empty ones too / lines; 5 decimals",
        DOLMA, m => m.dolma.duplicate_lines;
    "dolma_duplicate_line_characters_ratio", "0..1", "characters of repeated lines / characters of words; 5 decimals",
        DOLMA, m => m.dolma.duplicate_line_characters;
    "dolma_top_2grams", "0..1", DOLMA_TOP, DOLMA, m => m.dolma.grams[0];
    "dolma_top_3grams", "0..1", DOLMA_TOP, DOLMA, m => m.dolma.grams[1];
    "dolma_top_4grams", "0..1", DOLMA_TOP, DOLMA, m => m.dolma.grams[2];
    "dolma_duplicate_5grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[3];
    "dolma_duplicate_6grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[4];
    "dolma_duplicate_7grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[5];
    "dolma_duplicate_8grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[6];
    "dolma_duplicate_9grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[7];
    "dolma_duplicate_10grams", "0..1", DOLMA_DUPLICATE, DOLMA, m => m.dolma.grams[8];

    "nemo_non_alphanumeric_ratio", "0..1", "characters that are no ASCII letter or digit, \\n ? ! , or . / characters",
        NEMO, m => share(m.nemo.characters - m.nemo.alphanumeric_characters, m.nemo.characters);
    "nemo_symbol_ratio", "0..1", "words that are an ellipsis or hold more runs of # than half their characters / words",
        NEMO, m => share(m.nemo.symbol_words, m.nemo.words);
    "nemo_digits_ratio", "0..1", "decimal digits of all scripts / characters", NEMO,
        m => share(m.nemo.digits, m.nemo.characters);
    "nemo_urls_ratio", "0..1", "characters of http and https URLs / characters", NEMO,
        m => share(m.nemo.url_characters, m.nemo.characters);
    "nemo_white_space_ratio", "0..1", "tabs, line feeds, carriage returns, backspaces and spaces / characters", NEMO,
        m => share(m.nemo.white_space, m.nemo.characters);
    "nemo_parentheses_ratio", "0..1", "characters {}⟨⟩[]() / characters", NEMO,
        m => share(m.nemo.parentheses, m.nemo.characters);
    "nemo_boilerplate_ratio", "0..1", "pieces between two line feeds with a policy phrase / pieces; 1 for lorem ipsum",
        NEMO, m => m.nemo.boilerplate_ratio;
    "nemo_distinct_lines_ratio", "0..1", "different lines / lines, blank ones left out", NEMO,
        m => share(m.nemo.lines.distinct, m.nemo.lines.all);
    "nemo_distinct_paragraphs_ratio", "0..1", "different paragraphs / paragraphs, empty ones too", NEMO,
        m => share(m.nemo.paragraphs.distinct, m.nemo.paragraphs.all);
    "nemo_distinct_line_characters_ratio", "0..1", "characters of different lines / characters of lines", NEMO,
        m => share(m.nemo.lines.distinct_characters, m.nemo.lines.characters);
    "nemo_distinct_paragraph_characters_ratio", "0..1",
        "characters of different paragraphs / characters of paragraphs", NEMO,
        m => share(m.nemo.paragraphs.distinct_characters, m.nemo.paragraphs.characters);
    "nemo_words", "words", "whitespace words", NEMO, m => number(m.nemo.words);
    "nemo_lines_without_end_mark_ratio", "0..1", "lines that do not end with . ? ! \" or ' / lines", NEMO,
        m => share(m.nemo.lines_without_end_mark, m.nemo.lines.all);
    "nemo_alphabetic_words_ratio", "0..1", "words with an alphabetic character in Unicode's sense / words", NEMO,
        m => share(m.nemo.alphabetic_words, m.nemo.words);
    "nemo_stop_words", "occurrences", "words that are one of Gopher's eight, as they stand", NEMO,
        m => number(m.nemo.stop_words);
    "nemo_mean_word_length", "code points", "mean length of words", NEMO,
        m => share(m.nemo.word_characters, m.nemo.words);
    "nemo_longest_word", "code points", "length of the longest word", NEMO, m => number(m.nemo.longest_word);
    "nemo_ellipsis_lines_ratio", "0..1", "lines that end with one of eight ellipses / lines", NEMO,
        m => share(m.nemo.ellipsis_lines, m.nemo.lines.all);
    "nemo_bullet_lines_ratio", "0..1", "lines that begin with one of twelve bullets / lines", NEMO,
        m => share(m.nemo.bullet_lines, m.nemo.lines.all);
    "nemo_top_2grams", "0..1", NEMO_TOP, NEMO, m => m.nemo.grams[0];
    "nemo_top_3grams", "0..1", NEMO_TOP, NEMO, m => m.nemo.grams[1];
    "nemo_top_4grams", "0..1", NEMO_TOP, NEMO, m => m.nemo.grams[2];
    "nemo_duplicate_5grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[3];
    "nemo_duplicate_6grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[4];
    "nemo_duplicate_7grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[5];
    "nemo_duplicate_8grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[6];
    "nemo_duplicate_9grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[7];
    "nemo_duplicate_10grams", "0..1", NEMO_DUPLICATE, NEMO, m => m.nemo.grams[8];
}
