//! Normalising: one text, one spelling of it, nothing lost that a reader could see.
//!
//! In this order, each step only where a scan found something for it to do:
//!
//! 1. Mojibake is repaired (`Ã©` becomes `é`); quotes, ligatures, widths and HTML entities stay as they are.
//! 2. Line ends become LF: CR LF, CR, NEL, LS, PS, VT and FF. What shows nothing goes: C0 and C1 controls but TAB and
//!    LF, whole ANSI escape sequences, U+FEFF, U+2060, the soft hyphen, bidi controls on lines without right-to-left
//!    text, and joiners and zero-width spaces anywhere but behind the scripts and emoji that use them.
//! 3. The text is composed (NFC). Never NFKC: `10³` is not `103`, and `ﬁ` or `Ａ` is how someone wrote it.
//! 4. Spaces and TABs at line ends go; more than one blank line in a row becomes one; blank lines at the start and
//!    the end go. A final LF stays, and so does the indentation of the first line.
//!
//! A step can make work for an earlier one: a soft hyphen may have split a mojibake sequence. The steps are therefore
//! repeated until nothing changes, which makes normalising idempotent.

use std::borrow::Cow;

use curate_core::Counters;
use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::chars::{is_joining, is_right_to_left};
use crate::mojibake::Gate;

/// Two rounds settle ordinary text. The bound is for text made to resist, such as mojibake of mojibake of mojibake.
const MAX_ROUNDS: usize = 32;

/// What a character may be reason to look closer for.
mod suspect {
    /// May begin mojibake.
    pub(super) const LEAD: u8 = 1;
    /// May continue it.
    pub(super) const CONTINUATION: u8 = 2;
    /// May have to go, or to become LF.
    pub(super) const REMOVABLE: u8 = 4;
    /// May not be in NFC.
    pub(super) const UNCOMPOSED: u8 = 8;
}

/// Normalises texts; see the module's documentation for what that means.
///
/// Holds 64 KiB of tables, takes a few milliseconds to build, and can be shared by threads.
#[derive(Debug)]
pub struct Normaliser {
    gate: Gate,
    /// What each character of the basic multilingual plane is suspected of.
    suspects: Box<[u8]>,
}

/// What normalising did to a text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    pub mojibake_repaired: bool,
    pub line_ends_unified: bool,
    /// C0 and C1 controls and escape sequences.
    pub controls_removed: bool,
    /// Soft hyphens, byte-order marks, stray joiners and bidi controls.
    pub invisibles_removed: bool,
    pub nfc_composed: bool,
    pub trailing_spaces_removed: bool,
    pub blank_lines_removed: bool,
}

impl Changes {
    /// True if the text was changed at all.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Counts the document under the name of each change made to it, and under `normalised` if there was one.
    pub fn count(&self, counters: &mut Counters) {
        for (changed, name) in [
            (self.any(), "normalised"),
            (self.mojibake_repaired, "mojibake_repaired"),
            (self.line_ends_unified, "line_ends_unified"),
            (self.controls_removed, "controls_removed"),
            (self.invisibles_removed, "invisibles_removed"),
            (self.nfc_composed, "nfc_composed"),
            (self.trailing_spaces_removed, "trailing_spaces_removed"),
            (self.blank_lines_removed, "blank_lines_removed"),
        ] {
            if changed {
                counters.add(name, 1);
            }
        }
    }
}

/// Which steps may have work in a text.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Suspicion {
    mojibake: bool,
    removable: bool,
    uncomposed: bool,
    blanks: bool,
}

impl Default for Normaliser {
    fn default() -> Self {
        Self::new()
    }
}

impl Normaliser {
    pub fn new() -> Self {
        let gate = Gate::new();
        let suspects =
            (0..=0xffff).map(|code| char::from_u32(code).map_or(0, |c| suspected_of(&gate, c))).collect();
        Self { gate, suspects }
    }

    /// The normal form of `text`, borrowed if it already is in that form, and what was done to reach it.
    ///
    /// A clean ASCII text costs one vectorised scan and no allocation. The result may be empty.
    pub fn normalise<'t>(&self, text: &'t str) -> (Cow<'t, str>, Changes) {
        let mut text = Cow::Borrowed(text);
        let mut changes = Changes::default();
        for _ in 0..MAX_ROUNDS {
            let suspicion = self.scan(&text);
            if suspicion == Suspicion::default() {
                break;
            }
            match self.round(&text, suspicion, &mut changes) {
                Some(changed) => text = Cow::Owned(changed),
                None => break,
            }
        }
        (text, changes)
    }

    /// Every step once; `None` if they change nothing.
    fn round(&self, text: &str, mut suspicion: Suspicion, changes: &mut Changes) -> Option<String> {
        let mut changed: Option<String> = None;
        if suspicion.mojibake
            && let Some(repaired) = self.gate.repair(text)
        {
            changes.mojibake_repaired = true;
            suspicion = self.scan(&repaired);
            changed = Some(repaired);
        }
        if suspicion.removable
            && let Some(stripped) = strip(changed.as_deref().unwrap_or(text), changes)
        {
            suspicion.blanks = true;
            changed = Some(stripped);
        }
        if suspicion.uncomposed
            && let Some(composed) = compose(changed.as_deref().unwrap_or(text))
        {
            changes.nfc_composed = true;
            changed = Some(composed);
        }
        if suspicion.blanks
            && let Some(tidied) = tidy_blanks(changed.as_deref().unwrap_or(text), changes)
        {
            changed = Some(tidied);
        }
        changed
    }

    fn scan(&self, text: &str) -> Suspicion {
        let bytes = scan_bytes(text.as_bytes());
        let mut suspicion =
            Suspicion { removable: bytes.controls, blanks: bytes.blanks, ..Suspicion::default() };
        if bytes.beyond_ascii {
            self.scan_beyond_ascii(text, &mut suspicion);
        }
        suspicion
    }

    fn scan_beyond_ascii(&self, text: &str, suspicion: &mut Suspicion) {
        let mut at = 0;
        loop {
            at += ascii_prefix(&text.as_bytes()[at..]);
            let Some(c) = text[at..].chars().next() else { return };
            at += c.len_utf8();
            let suspected = self.suspected_of(c);
            if suspected == 0 {
                continue;
            }
            suspicion.removable |= suspected & suspect::REMOVABLE != 0;
            suspicion.uncomposed |= suspected & suspect::UNCOMPOSED != 0;
            if suspected & suspect::LEAD != 0 && !suspicion.mojibake {
                let is_continued = |next| self.suspected_of(next) & suspect::CONTINUATION != 0;
                // The gate takes longer to ask than the table, and C1 controls need nothing behind them.
                suspicion.mojibake = (c <= '\u{9f}' || text[at..].chars().next().is_some_and(is_continued))
                    && self.gate.starts(c, &text[at..]);
            }
        }
    }

    fn suspected_of(&self, c: char) -> u8 {
        match self.suspects.get(c as usize) {
            Some(suspected) => *suspected,
            None => suspected_of_composing(c),
        }
    }
}

fn suspected_of(gate: &Gate, c: char) -> u8 {
    let mut suspected = suspected_of_composing(c);
    if gate.may_start(c) {
        suspected |= suspect::LEAD;
    }
    if gate.may_continue(c) {
        suspected |= suspect::CONTINUATION;
    }
    if is_other_line_end(c) || is_control(c) || is_invisible(c) || is_bidi_control(c) || is_joiner(c) {
        suspected |= suspect::REMOVABLE;
    }
    suspected
}

/// A text whose characters are all starters and may all occur in NFC is in NFC.
fn suspected_of_composing(c: char) -> u8 {
    let is_inert = canonical_combining_class(c) == 0 && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes;
    if is_inert { 0 } else { suspect::UNCOMPOSED }
}

#[derive(Debug, Default)]
struct ByteScan {
    beyond_ascii: bool,
    /// Controls that are neither TAB nor LF.
    controls: bool,
    /// Spaces at line ends, or more line ends than there should be.
    blanks: bool,
}

/// Looks at each byte and the two before it, in a loop without branches that the compiler vectorises.
fn scan_bytes(bytes: &[u8]) -> ByteScan {
    let is_blank = |b: u8| (b == b' ') | (b == b'\t');
    let is_control = |b: u8| (b < 0x20) & (b != b'\t') & (b != b'\n') | (b == 0x7f);
    let [first, second, ..] = *bytes else {
        return ByteScan {
            beyond_ascii: false,
            controls: bytes.iter().any(|b| is_control(*b)),
            blanks: bytes.iter().any(|b| is_blank(*b) || *b == b'\n'),
        };
    };
    let mut beyond_ascii = first | second;
    let mut controls = u8::from(is_control(first) | is_control(second));
    let mut blanks =
        u8::from(first == b'\n' || (is_blank(first) && second == b'\n') || bytes.ends_with(b"\n\n"))
            | u8::from(bytes.last().is_some_and(|b| is_blank(*b)));
    for ((&a, &b), &c) in bytes.iter().zip(&bytes[1..]).zip(&bytes[2..]) {
        beyond_ascii |= c;
        controls |= u8::from(is_control(c));
        blanks |= u8::from((c == b'\n') & (is_blank(b) | ((b == b'\n') & (a == b'\n'))));
    }
    ByteScan { beyond_ascii: beyond_ascii >= 0x80, controls: controls != 0, blanks: blanks != 0 }
}

/// How many bytes at the start are ASCII.
fn ascii_prefix(bytes: &[u8]) -> usize {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let is_ascii = |word: &[u8; 8]| u64::from_ne_bytes(*word) & HIGH_BITS == 0;
    let (words, _) = bytes.as_chunks::<8>();
    let skipped = 8 * words.iter().take_while(|word| is_ascii(word)).count();
    skipped + bytes[skipped..].iter().take_while(|b| b.is_ascii()).count()
}

/// Unifies line ends and removes what shows nothing; `None` if there is neither.
fn strip(text: &str, changes: &mut Changes) -> Option<String> {
    let mut stripped = String::with_capacity(text.len());
    let mut line_runs_right_to_left = None;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at + c.len_utf8()..];
        at += c.len_utf8();
        if c == '\n' || is_other_line_end(c) {
            changes.line_ends_unified |= c != '\n';
            line_runs_right_to_left = None;
            if !(c == '\r' && rest.starts_with('\n')) {
                stripped.push('\n');
            }
        } else if is_control(c) {
            changes.controls_removed = true;
            at += if c == ESCAPE { escape_sequence(rest) } else { 0 };
        } else if is_invisible(c)
            || (is_joiner(c) && !stripped.chars().next_back().is_some_and(is_joining))
            || (is_bidi_control(c)
                && !*line_runs_right_to_left.get_or_insert_with(|| runs_right_to_left(text, at)))
        {
            changes.invisibles_removed = true;
        } else {
            stripped.push(c);
        }
    }
    (stripped != text).then_some(stripped)
}

const ESCAPE: char = '\u{1b}';

/// Bytes of an ANSI control sequence behind its ESC: `[`, parameters, a letter; 0 if there is none.
fn escape_sequence(rest: &str) -> usize {
    let Some(parameters) = rest.strip_prefix('[') else { return 0 };
    let letter = parameters.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | '?'));
    match letter.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => rest.len() - letter.len() + 1,
        false => 0,
    }
}

/// True if the line around byte `at` has right-to-left letters, so that a bidi control has something to control.
fn runs_right_to_left(text: &str, at: usize) -> bool {
    let is_line_end = |c| c == '\n' || is_other_line_end(c);
    let start = text[..at].rfind(is_line_end).unwrap_or(0);
    let end = text[at..].find(is_line_end).map_or(text.len(), |end| at + end);
    text[start..end].contains(is_right_to_left)
}

/// A line end that is written as LF: CR, VT, FF, NEL, LS, PS.
fn is_other_line_end(c: char) -> bool {
    matches!(c, '\u{b}'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// C0 and C1 controls and DEL, but TAB and the line ends.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\t' && c != '\n' && !is_other_line_end(c)
}

/// The byte-order mark, the word joiner that succeeds it, and the soft hyphen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{2060}' | '\u{ad}')
}

/// Zero-width space, non-joiner and joiner.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}')
}

/// Marks, embeddings, overrides and isolates of the bidirectional algorithm.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in NFC; `None` if it is already.
fn compose(text: &str) -> Option<String> {
    if is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return None;
    }
    let composed: String = text.nfc().collect();
    (composed != text).then_some(composed)
}

/// Takes spaces off line ends and surplus line ends out; `None` if there are neither.
fn tidy_blanks(text: &str, changes: &mut Changes) -> Option<String> {
    let mut tidied = String::with_capacity(text.len());
    let mut line_ends = 0;
    for (i, line) in text.split('\n').enumerate() {
        line_ends += usize::from(i > 0);
        let trimmed = line.trim_end_matches([' ', '\t']);
        changes.trailing_spaces_removed |= trimmed.len() < line.len();
        if !trimmed.is_empty() {
            let wanted = if tidied.is_empty() { 0 } else { line_ends.min(2) };
            changes.blank_lines_removed |= wanted < line_ends;
            tidied.extend(std::iter::repeat_n('\n', wanted));
            tidied.push_str(trimmed);
            line_ends = 0;
        }
    }
    let wanted = if tidied.is_empty() { 0 } else { line_ends.min(1) };
    changes.blank_lines_removed |= wanted < line_ends;
    tidied.extend(std::iter::repeat_n('\n', wanted));
    (tidied.len() < text.len()).then_some(tidied)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static NORMALISER: LazyLock<Normaliser> = LazyLock::new(Normaliser::new);

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (normal, changes) = NORMALISER.normalise(text);
        assert_eq!(normal, expected, "{text:?}");
        assert_eq!(changes.any(), text != expected, "{text:?}: {changes:?}");
        assert_eq!(
            matches!(normal, Cow::Borrowed(_)),
            text == expected,
            "{text:?} is borrowed if it is normal"
        );
    }

    #[test]
    fn leaves_normal_text_alone() {
        for text in [
            "",
            "a",
            "plain ASCII text.\n\nTwo paragraphs,\n\tindented.\n",
            "    indented first line",
            "“curly” ‘quotes’ – — … • «oui»",
            "Ａ full width, ﬁ ligature, 10³, ½, ™, &amp; &eacute; &#35;",
            "non\u{a0}breaking, thin\u{2009}space, ideographic\u{3000}space",
            "Zoë, Łódź, Привет, Ελλάδα, 汉字，かな、ไทย, 한국어",
            "می\u{200c}خواهم, क्\u{200d}ष, 👩\u{200d}💻, ❤\u{fe0f}\u{200d}🔥",
            "שלום\u{200f}! (1)",
            "private \u{e000}, replacement \u{fffd}",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn line_ends() {
        check("a\r\nb\rc\u{b}d\u{c}e\u{85}f\u{2028}g\u{2029}h", "a\nb\nc\nd\ne\nf\ng\nh");
        check("a\r\r\nb", "a\n\nb");
        check("\r", "");
    }

    #[test]
    fn what_shows_nothing() {
        check("a\u{0}b\u{1}c\u{1f}d\u{7f}e\u{81}", "abcde");
        // A line in Latin-1 was Windows-1252; elsewhere a stray control is no one's euro sign.
        check("\u{80} 5\n통화 \u{80}", "€ 5\n통화");
        check("\u{feff}start, mid\u{feff}dle", "start, middle");
        check("hy\u{ad}phen, word\u{2060}joiner", "hyphen, wordjoiner");
        check("\u{1b}[1;31mred\u{1b}[0m \u{1b}x \u{1b}[", "red x [");
        check("zero\u{200b}width, a\u{200d}b\u{200c}c", "zerowidth, abc");
        check("\u{200d}👩\u{200d}\u{200d}💻", "👩\u{200d}💻");
        check("ភាសា\u{200b}ខ្មែរ", "ភាសា\u{200b}ខ្មែរ");
        check("\u{202a}left\u{202c}\nשלום\u{200f}!\n\u{200e}right", "left\nשלום\u{200f}!\nright");
    }

    #[test]
    fn composes_but_never_folds() {
        check("e\u{301}te\u{301}", "été");
        check("\u{212b} \u{2126} \u{1100}\u{1161}", "Å Ω 가");
        check("q\u{323}\u{307} \u{3099}", "q\u{323}\u{307} \u{3099}");
        check("q\u{307}\u{323}", "q\u{323}\u{307}");
        check("e\u{200d}\u{301}", "é");
    }

    #[test]
    fn blanks() {
        check("a  \nb\t\n c \t ", "a\nb\n c");
        check("a\n\n\nb\n \n\t\n\nc", "a\n\nb\n\nc");
        check("\n\n a\n\n", " a\n");
        check("a\n", "a\n");
        check("  \n\t\n", "");
        check(" ", "");
        check("\n", "");
        check(" \n", "");
        check("a\u{a0}\n\u{a0}", "a\u{a0}\n\u{a0}");
    }

    #[test]
    fn steps_that_make_work_for_earlier_ones() {
        // A soft hyphen and a zero-width space within mojibake; a decomposed letter that completes it.
        check("caf\u{c3}\u{200b}\u{a9}.", "café.");
        check("cafA\u{303}\u{a9}.", "café.");
        check("Ã\u{ad}ndice", "índice");
        check("a \u{200b}\n\u{feff}\n\n\nb", "a\n\nb");
    }

    #[test]
    fn counts_documents_by_change() {
        let (_, changes) = NORMALISER.normalise("cafÃ© \r\n e\u{301}\u{0}\u{ad}\n\n\n\nx");
        let mut counters = Counters::default();
        changes.count(&mut counters);
        let mut expected = Counters::default();
        for name in [
            "normalised",
            "mojibake_repaired",
            "line_ends_unified",
            "controls_removed",
            "invisibles_removed",
            "nfc_composed",
            "trailing_spaces_removed",
            "blank_lines_removed",
        ] {
            expected.add(name, 1);
        }
        assert_eq!(counters, expected);
        Changes::default().count(&mut counters);
        assert_eq!(counters, expected);
    }

    #[test]
    fn suspicion_is_right_wherever_it_stands() {
        for (mark, expected) in [
            ("\r", Suspicion { removable: true, ..Suspicion::default() }),
            ("\u{7f}", Suspicion { removable: true, ..Suspicion::default() }),
            ("\u{ad}x", Suspicion { removable: true, ..Suspicion::default() }),
            ("Ã©", Suspicion { mojibake: true, ..Suspicion::default() }),
            ("\u{91}", Suspicion { mojibake: true, removable: true, ..Suspicion::default() }),
            ("e\u{301}", Suspicion { uncomposed: true, ..Suspicion::default() }),
            ("y \ny", Suspicion { blanks: true, ..Suspicion::default() }),
            ("y\n\n\ny", Suspicion { blanks: true, ..Suspicion::default() }),
            ("é¿汉", Suspicion::default()),
        ] {
            for before in 0..70 {
                let text = format!("{}{mark}{}", "x".repeat(before), "z".repeat(70 - before));
                assert_eq!(NORMALISER.scan(&text), expected, "{mark:?} behind {before} bytes");
            }
        }
    }

    /// Text in which every step has work, often at the same place.
    fn messy_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec![
                "a", "word", "é", "Ã", "©", "Â", "â", "€", "œ", "\u{a0}", " ", "  ", "\t", "\n", "\n\n\n", "\r", "\r\n",
                "\u{85}", "\u{2028}", "\u{c}", "\u{0}", "\u{1}", "&", "&amp;", "\u{80}", "\u{9d}", "\u{1b}[0m", "\u{1b}",
                "\u{feff}", "\u{ad}", "\u{200b}", "\u{200c}", "\u{200d}", "\u{200e}", "\u{202e}", "\u{2067}", "ש", "م", "क", "्",
                "👩", "💻", "\u{fe0f}", "\u{301}", "\u{327}", "\u{303}", "A", "e", "\u{2329}", "\u{212b}", "\u{1100}",
                "\u{1161}", "\u{fffd}", "Ð", "Ñ", "Р", "°", "в", "Ђ", "汉", "ไ", "\u{fb01}", "Ａ", "ï»¿", "ÃƒÂ©", "[31m",
            ]).prop_map(str::to_owned),
            1 => "\\PC{0,4}",
            1 => any::<String>(),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn normal_form_is_normal(text in messy_text()) {
            let (normal, changes) = NORMALISER.normalise(&text);
            prop_assert_eq!(changes.any(), *normal != *text);
            prop_assert!(unicode_normalization::is_nfc(&normal));
            prop_assert!(!normal.chars().any(|c| is_control(c) || is_invisible(c) || is_other_line_end(c)));
            prop_assert!(!normal.contains("\n\n\n") && !normal.starts_with('\n') && !normal.ends_with("\n\n"));
            prop_assert!(!normal.split('\n').any(|line| line.ends_with([' ', '\t'])));
            let (again, unchanged) = NORMALISER.normalise(&normal);
            prop_assert_eq!(&again, &normal);
            prop_assert_eq!(unchanged, Changes::default());
        }

        #[test]
        fn printable_ascii_only_loses_blanks(text in "[ -~\n\t]{0,80}") {
            let (normal, _) = NORMALISER.normalise(&text);
            prop_assert!(normal.split_whitespace().eq(text.split_whitespace()));
        }
    }
}
