//! From a text to a language: sample, script, model.

use std::sync::OnceLock;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::model::{Counts, LANES, Model};
use super::sample::pieces;
use super::script::Letters;
use super::{LanguageCode, LanguageTag, SampleOptions, Script};

/// What was found out about a text's language.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Identified {
    /// The most likely language; `und` for a text without letters.
    pub language: LanguageCode,
    /// The script of most letters of the sample; [`Script::NONE`] without letters.
    pub script: Script,
    /// Probability of `language`, 0..=1; 0 for `und`.
    pub score: f32,
    /// The second most likely language and its probability, where the model had to choose.
    pub runner_up: Option<(LanguageCode, f32)>,
    /// The language that most pieces of the sample are in that are surely not in `language`.
    pub second: Option<LanguageCode>,
    /// The share of the sample that is surely in another language than `language`, 0..=1.
    pub other_share: f32,
}

impl Identified {
    const NOTHING: Self = Self {
        language: LanguageCode::UND,
        script: Script::NONE,
        score: 0.0,
        runner_up: None,
        second: None,
        other_share: 0.0,
    };

    /// Is a fifth of the sample or more in another language? Quotations and menus are less, parallel texts more.
    pub fn mixed(&self) -> bool {
        self.other_share >= 0.2
    }

    /// Language and script: `sr-Latn`.
    pub fn tag(&self) -> LanguageTag {
        LanguageTag { language: self.language, script: (self.script != Script::NONE).then_some(self.script) }
    }
}

/// Something that tells languages: the embedded model, or one read from a file.
pub trait LanguageModel: Send + Sync {
    /// The language of `text`. The same text gives the same answer whatever `scratch` was used for before.
    fn identify(&self, text: &str, scratch: &mut LanguageScratch) -> Identified;
}

/// Buffers that [`LanguageModel::identify`] uses again. One for each thread; about 150 kB.
#[derive(Debug, Default)]
pub struct LanguageScratch {
    counts: Counts,
    clean: String,
    others: Vec<(LanguageCode, usize)>,
}

/// The embedded model. See the module for what it is, `model.NOTICE` for where it is from.
pub struct LanguageId {
    model: Model,
    codes: Vec<LanguageCode>,
    sample: SampleOptions,
}

/// A sample of at least this size is also judged in pieces, to see whether it is in one language. A piece of half the size
/// is told right often enough that [`PIECE_SURE`] rarely errs.
const PIECES_FROM: usize = 768;
const PIECE_BYTES: usize = 320;
const PIECE_SURE: f32 = 0.9;

/// Posterior probabilities of naive Bayes are far too sure, since n-grams are not independent. Scores are divided by
/// `a * evidence ^ b` before they become probabilities; a feature that occurs once is evidence of 1. py3langid divides by the
/// square root of the length in bytes, which is too modest for short texts and for repetitive ones.
/// With these values mean score and accuracy differ by 0.03 on the example sentences of spaCy, by 0.04 on one to four words
/// of them (expected calibration error), and by 0.01 on paragraphs of the Declaration of Human Rights.
const TEMPERATURE: (f32, f32) = (0.44, 0.64);

impl LanguageId {
    /// The model that is part of the program, made ready on first use (some 25 ms; 11 MB stay, twice as much for that moment).
    pub fn embedded() -> &'static Self {
        static EMBEDDED: OnceLock<LanguageId> = OnceLock::new();
        EMBEDDED.get_or_init(|| Self::with_sample(SampleOptions::default()))
    }

    /// The same model with a sample of another size; a copy of its own.
    pub fn with_sample(sample: SampleOptions) -> Self {
        let model = Model::from_bytes(include_bytes!("model.bin")).expect("the embedded model is whole");
        let code =
            |code: &String| LanguageCode::of_label(code).expect("the model's codes are two or three letters");
        let codes = model.codes.iter().map(code).collect();
        Self { model, codes, sample }
    }

    /// The languages of the model, without those that are told by their script; sorted.
    pub fn languages(&self) -> Vec<LanguageCode> {
        let mut codes = self.codes.clone();
        codes.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        codes.dedup();
        codes
    }

    /// The language of `text`, from a sample of it. Empty texts and texts without letters are `und` with score 0.
    pub fn identify(&self, text: &str, scratch: &mut LanguageScratch) -> Identified {
        let mut letters = Letters::default();
        for window in self.sample.windows(text) {
            letters.add(window);
        }
        if letters.total == 0 {
            return Identified::NOTHING;
        }
        let shouted = letters.lower == 0 && letters.upper > 1;
        let windows = self.sample.windows(text);
        let bytes = windows.map(str::len).sum::<usize>();
        let mut buffer = std::mem::take(&mut scratch.clean);
        let mut found =
            self.decide(&letters, self.sample.windows(text), shouted, &mut scratch.counts, &mut buffer);
        scratch.clean = buffer;
        if bytes >= PIECES_FROM {
            self.find_others(text, shouted, scratch, &mut found);
        }
        found
    }

    /// Judges the parts of a text whose letters are counted: a script of one language needs no model.
    fn decide<'t>(
        &self,
        letters: &Letters,
        parts: impl Iterator<Item = &'t str> + Clone,
        shouted: bool,
        counts: &mut Counts,
        buffer: &mut String,
    ) -> Identified {
        let (script, share) = letters.main();
        let contains = |mark: &str| parts.clone().any(|part| part.contains(mark));
        if let Some(language) = script.only_language().or_else(|| by_marks(script, contains)) {
            let language = LanguageCode::of_label(language).expect("the tables hold codes");
            return Identified { language, script, score: share, ..Identified::NOTHING };
        }
        for part in parts.clone() {
            self.model.count(cleaned(part, shouted, buffer).as_bytes(), counts);
        }
        let mut scores = [0.0; LANES];
        let Some(evidence) = self.model.score(counts, &mut scores) else {
            return Identified { script, ..Identified::NOTHING };
        };
        let best = self.two_best(&mut scores, evidence);
        let contains = |mark: &str| parts.clone().any(|part| part.contains(mark));
        let best = by_marks_of_cantonese(best, contains);
        let [best, second] = by_words(best, parts.flat_map(str::split_whitespace));
        Identified { language: best.0, script, score: best.1, runner_up: Some(second), ..Identified::NOTHING }
    }

    /// The two most likely languages with their probabilities. A language that has two classes has their sum.
    fn two_best(&self, scores: &mut [f32; LANES], evidence: f32) -> [(LanguageCode, f32); 2] {
        let scores = &mut scores[..self.codes.len()];
        let highest = scores.iter().copied().fold(f32::MIN, f32::max);
        let heat = TEMPERATURE.0 * evidence.powf(TEMPERATURE.1);
        let mut sum = 0.0;
        for score in scores.iter_mut() {
            let distance = (*score - highest) / heat;
            *score = if distance < -16.0 { 0.0 } else { distance.exp() };
            sum += *score;
        }
        let mut best = [(LanguageCode::UND, 0.0); 2];
        for (class, &code) in self.codes.iter().enumerate() {
            if self.codes[..class].last() == Some(&code) {
                continue; // Classes of one language are neighbours; the first speaks for both.
            }
            let twin = if self.codes.get(class + 1) == Some(&code) { scores[class + 1] } else { 0.0 };
            let part = (scores[class] + twin) / sum;
            if part > best[0].1 {
                best = [(code, part), best[0]];
            } else if part > best[1].1 {
                best[1] = (code, part);
            }
        }
        best
    }

    /// Judges the sample piece by piece, and notes how much of it is surely in another language.
    fn find_others(&self, text: &str, shouted: bool, scratch: &mut LanguageScratch, found: &mut Identified) {
        let mut buffer = std::mem::take(&mut scratch.clean);
        scratch.others.clear();
        let (mut total, mut other) = (0, 0);
        for piece in self.sample.windows(text).flat_map(|window| pieces(window, PIECE_BYTES)) {
            let mut letters = Letters::default();
            letters.add(piece);
            if letters.total == 0 {
                continue;
            }
            let here =
                self.decide(&letters, std::iter::once(piece), shouted, &mut scratch.counts, &mut buffer);
            total += piece.len();
            if here.language != found.language && here.language.as_str() != "zxx" && here.score >= PIECE_SURE
            {
                other += piece.len();
                match scratch.others.iter_mut().find(|(code, _)| *code == here.language) {
                    Some((_, bytes)) => *bytes += piece.len(),
                    None => scratch.others.push((here.language, piece.len())),
                }
            }
        }
        scratch.clean = buffer;
        found.other_share = other as f32 / total.max(1) as f32;
        // Of equally large ones the first in the text.
        found.second = scratch.others.iter().rev().max_by_key(|(_, bytes)| *bytes).map(|&(code, _)| code);
    }
}

impl LanguageModel for LanguageId {
    fn identify(&self, text: &str, scratch: &mut LanguageScratch) -> Identified {
        LanguageId::identify(self, text, scratch)
    }
}

/// The text as the model knows text: NFC, and not all in capitals. `buffer` is used only if something changes.
fn cleaned<'t>(text: &'t str, shouted: bool, buffer: &'t mut String) -> &'t str {
    let composed = text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes;
    if composed && !shouted {
        return text;
    }
    buffer.clear();
    match (composed, shouted) {
        (true, _) => buffer.extend(text.chars().flat_map(char::to_lowercase)),
        (false, true) => buffer.extend(text.nfc().flat_map(char::to_lowercase)),
        (false, false) => buffer.extend(text.nfc()),
    }
    buffer
}

/// Written Cantonese shows by characters that Standard Chinese does without; traditional characters alone are no sign of it.
fn by_marks_of_cantonese(
    best: [(LanguageCode, f32); 2],
    contains: impl Fn(&str) -> bool,
) -> [(LanguageCode, f32); 2] {
    const MARKS: [&str; 12] = ["嘅", "唔", "咗", "喺", "啲", "嚟", "冇", "佢", "哋", "嗰", "咁", "嘢"];
    let [(first, first_part), (second, second_part)] = best;
    if first.as_str() != "yue" || MARKS.iter().any(|mark| contains(mark)) {
        return best;
    }
    let chinese = LanguageCode::of_label("zh").expect("a code");
    // What spoke for Cantonese spoke for Chinese.
    let part = if second == chinese { first_part + second_part } else { first_part };
    [(chinese, part), (first, 0.0)]
}

/// Words that Indonesian and Malay spell or choose differently, the Indonesian one first. The two share most n-grams, and
/// formal Indonesian looks Malay to the model.
const INDONESIAN_MALAY: [(&str, &str); 23] = [
    ("bahwa", "bahawa"),
    ("karena", "kerana"),
    ("yaitu", "iaitu"),
    ("berbeda", "berbeza"),
    ("kantor", "pejabat"),
    ("uang", "wang"),
    ("mobil", "kereta"),
    ("perusahaan", "syarikat"),
    ("internasional", "antarabangsa"),
    ("universitas", "universiti"),
    ("polisi", "polis"),
    ("nomor", "nombor"),
    ("kualitas", "kualiti"),
    ("informasi", "maklumat"),
    ("kota", "bandar"),
    ("listrik", "elektrik"),
    ("pria", "lelaki"),
    ("memiliki", "mempunyai"),
    ("merupakan", "ialah"),
    ("bisa", "boleh"),
    ("harus", "hendaklah"),
    ("pemerintah", "kerajaan"),
    ("aktivitas", "aktiviti"),
];
/// What one such word adds to the log odds.
const WORD_ODDS: f32 = 1.5;
/// Log odds before any word: there is several times as much Indonesian text as Malay, and the model takes them for equal.
const INDONESIAN_ODDS: f32 = 1.5;

/// Where the choice is between Indonesian and Malay, the words above have a say.
fn by_words<'w>(
    best: [(LanguageCode, f32); 2],
    words: impl Iterator<Item = &'w str>,
) -> [(LanguageCode, f32); 2] {
    let [(first, first_part), (second, second_part)] = best;
    let indonesian = match (first.as_str(), second.as_str()) {
        ("id", "ms") => 1.0,
        ("ms", "id") => -1.0,
        _ => return best,
    };
    let balance: i32 = words
        .map(|word| word.trim_matches(|letter: char| !letter.is_alphabetic()))
        .map(|word| {
            let is = |other: &str| word.eq_ignore_ascii_case(other);
            let find = |&(indonesian, malay): &(&str, &str)| {
                is(indonesian).then_some(1).or_else(|| is(malay).then_some(-1))
            };
            INDONESIAN_MALAY.iter().find_map(find).unwrap_or(0)
        })
        .sum();
    let odds = first_part / second_part.max(f32::MIN_POSITIVE)
        * (indonesian * (INDONESIAN_ODDS + WORD_ODDS * balance as f32)).exp();
    let both = first_part + second_part;
    let part = if odds.is_finite() { both * odds / (1.0 + odds) } else { both };
    if part * 2.0 >= both {
        [(first, part), (second, both - part)]
    } else {
        [(second, both - part), (first, part)]
    }
}

/// Languages that the model lacks and that share a script with one that it has, by letters and syllables that only one of
/// them writes: Tigrinya spells the plain vowel with another letter than Amharic; Yiddish points its alefs and has letters
/// for doubled vav and yod; the Tibetan verb "to be" and genitive differ from Dzongkha's.
fn by_marks(script: Script, contains: impl Fn(&str) -> bool) -> Option<&'static str> {
    let any = |marks: &[&str]| marks.iter().any(|mark| contains(mark));
    match script.as_str() {
        "Ethi" if any(&["እዩ", "ናይ", "ካብ"]) || (any(&["ኣ"]) && !any(&["አ"])) => Some("ti"),
        "Hebr" if any(&["װ", "ױ", "ײ", "אַ", "אָ", "פֿון"]) => Some("yi"),
        "Tibt" if !any(&["ཨིན", "འབད", "ལུ་"]) => Some("bo"),
        _ => None,
    }
}
