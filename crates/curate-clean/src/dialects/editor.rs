//! Edits that recipes can ask for by name.

use aho_corasick::AhoCorasick;
use serde::Serialize;

use super::c4::{self, C4Values};
use super::dclm::tokens;
use super::edits::{self, EditScratch, LineEdit};
use super::urls::UrlEditor;

/// What a recipe's rule does to a text before it asks its condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Takes URLs and IPv4 addresses out, as DCLM does.
    DclmUrls,
    /// Leaves at most two line feeds in a row.
    DclmLineFeeds,
    /// RefinedWeb's line edits as DCLM has them: lines in upper case, of digits, counters, of one word; items in cart,
    /// Read more..., Sign-in. Sets `refinedweb_words_removed_ratio`.
    RefinedwebLines,
    /// C4's line edits as datatrove has them, but that a line needs no mark at its end. Sets `c4_lorem_ipsum`,
    /// `c4_curly_bracket`, `c4_sentences`.
    C4Lines,
    /// All of C4's line edits as datatrove has them; sets the same.
    C4EndedLines,
    /// Curate's own: RefinedWeb's, but that a line of one word stays, and C4's on lines about cookies, privacy and terms.
    WebLines,
}

impl Edit {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::DclmUrls,
        Self::DclmLineFeeds,
        Self::RefinedwebLines,
        Self::C4Lines,
        Self::C4EndedLines,
        Self::WebLines,
    ];

    /// The name used in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::DclmUrls => "dclm_urls",
            Self::DclmLineFeeds => "dclm_line_feeds",
            Self::RefinedwebLines => "refinedweb_lines",
            Self::C4Lines => "c4_lines",
            Self::C4EndedLines => "c4_ended_lines",
            Self::WebLines => "web_lines",
        }
    }

    /// What a report calls the documents that it changed.
    pub fn counter(self) -> &'static str {
        match self {
            Self::DclmUrls => "urls_removed",
            Self::DclmLineFeeds => "line_feeds_squeezed",
            Self::RefinedwebLines | Self::C4Lines | Self::C4EndedLines | Self::WebLines => "lines_edited",
        }
    }
}

/// Edits texts. Can be shared by threads.
#[derive(Debug)]
pub(crate) struct Editor {
    urls: UrlEditor,
    cart: AhoCorasick,
    phrases: AhoCorasick,
}

/// Buffers of [`Editor`].
#[derive(Debug, Default, Clone)]
pub(crate) struct EditorScratch {
    pub(super) lines: EditScratch,
    pub(super) spare: String,
}

/// What an edit did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Edited {
    pub(crate) changed: bool,
    /// Part of the words that went, where the edit counts them.
    pub(crate) words_removed: f64,
    /// Set by the edits of C4.
    pub(crate) c4: Option<C4Values>,
}

impl Editor {
    pub(crate) fn new() -> Self {
        Self { urls: UrlEditor::new(), cart: edits::cart(), phrases: c4::phrases() }
    }

    /// Writes the edited text into `out`, whose contents go, if it differs from `text`.
    pub(crate) fn apply(
        &self,
        edit: Edit,
        text: &str,
        scratch: &mut EditorScratch,
        out: &mut String,
    ) -> Edited {
        match edit {
            Edit::DclmUrls => only(self.urls.remove(text, &mut scratch.spare, out)),
            Edit::DclmLineFeeds => {
                only(LineEdit::SqueezeLineFeeds.apply(text, &self.cart, &mut scratch.lines, out))
            }
            Edit::RefinedwebLines => refinedweb_lines(text, &self.cart, scratch, out),
            Edit::WebLines => {
                let policies = |line: &str| c4::is_about_policies(line, &self.phrases);
                let has_policies = policies(text);
                only(edits::web_lines(text, &self.cart, |line| has_policies && policies(line), scratch, out))
            }
            Edit::C4Lines | Edit::C4EndedLines => {
                let needs_end_mark = edit == Edit::C4EndedLines;
                let (changed, values) =
                    c4::edit(text, needs_end_mark, &self.phrases, &mut scratch.spare, out);
                Edited { c4: Some(values), ..only(changed) }
            }
        }
    }
}

fn only(changed: bool) -> Edited {
    Edited { changed, words_removed: 0.0, c4: None }
}

fn refinedweb_lines(text: &str, cart: &AhoCorasick, scratch: &mut EditorScratch, out: &mut String) -> Edited {
    let mut changed = false;
    let edits = if LineEdit::any_applies(text, cart) { &LineEdit::REFINEDWEB[..] } else { &[] };
    for edit in edits {
        let now = if changed { &**out } else { text };
        if edit.apply(now, cart, &mut scratch.lines, &mut scratch.spare) {
            std::mem::swap(&mut scratch.spare, out);
            changed = true;
        }
    }
    Edited { changed, words_removed: words_removed(text, changed.then_some(out)), c4: None }
}

/// A text that stays as it is loses nothing, unless it had no words to begin with.
fn words_removed(text: &str, edited: Option<&mut String>) -> f64 {
    let Some(edited) = edited else {
        let has_words = text.starts_with(|c: char| c.is_ascii_alphanumeric()) || tokens(text) > 0;
        return if has_words { 0.0 } else { 1.0 };
    };
    match tokens(text) {
        0 => 1.0,
        before => (before as f64 - tokens(edited) as f64) / before as f64,
    }
}
