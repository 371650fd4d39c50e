//! A document: one text with its identity, borrowed from the record that stores it.

use std::borrow::Cow;
use std::ops::Range;

/// One text with its identity, as a stage sees it.
///
/// The text borrows from the record where it can (no escapes, no edits). A codec that can splice a new text into
/// the stored record says where the old one lies (`text_span`), so that an edited document keeps every other
/// field byte for byte, and an untouched one is written back as it came.
#[derive(Debug, Clone)]
pub struct Document<'a> {
    raw: &'a [u8],
    text_span: Option<Range<usize>>,
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    text: Cow<'a, str>,
    edited: bool,
    /// Members of a JSON object, each after a comma; empty for most.
    fields: Cow<'a, str>,
}

impl<'a> Document<'a> {
    /// A document stored as `raw`, without its line end. `source` is empty when the record names none.
    pub fn new(
        raw: &'a [u8],
        id: impl Into<Cow<'a, str>>,
        source: impl Into<Cow<'a, str>>,
        text: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            raw,
            text_span: None,
            id: id.into(),
            source: source.into(),
            text: text.into(),
            edited: false,
            fields: Cow::Borrowed(""),
        }
    }

    /// Adds fields beyond the common ones, for a document whose record is not JSON itself: members of a JSON
    /// object with a comma before each, such as `,"url":"http://a.example/"`.
    pub fn with_fields(mut self, fields: impl Into<Cow<'a, str>>) -> Self {
        self.fields = fields.into();
        self
    }

    /// What [`with_fields`](Self::with_fields) added; empty for a document whose record is JSON.
    pub fn fields(&self) -> &str {
        &self.fields
    }

    /// Says where in `raw` the encoded text lies, so that an edit can be spliced in.
    pub fn with_text_span(mut self, span: Range<usize>) -> Self {
        self.text_span = Some(span);
        self
    }

    /// The record as it is stored, without its line end.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where in [`raw`](Self::raw) the encoded text lies; `None` where the record can only be written anew.
    pub fn text_span(&self) -> Option<Range<usize>> {
        self.text_span.clone()
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The corpus that the document belongs to; empty when the record names none.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the text; the document counts as edited only if that changes it.
    pub fn set_text(&mut self, text: String) {
        if text != *self.text {
            self.text = Cow::Owned(text);
            self.edited = true;
        }
    }

    /// True once a stage has changed the text.
    pub fn is_edited(&self) -> bool {
        self.edited
    }

    /// The new text, if the document was edited since it was last parked.
    pub(crate) fn into_edit(self) -> Option<String> {
        match self.text {
            Cow::Owned(edit) => Some(edit),
            Cow::Borrowed(_) => None,
        }
    }

    /// Lets go of the borrowed record, so that the document can wait for its turn beside its block.
    pub fn park(self) -> Parked {
        let raw = self.raw;
        let park = |field: Cow<'a, str>| match field {
            Cow::Borrowed(part) => match offset_in(raw, part) {
                Some(start) => Field::InRecord(start..start + part.len()),
                None => Field::Owned(part.to_owned()),
            },
            Cow::Owned(owned) => Field::Owned(owned),
        };
        Parked {
            id: park(self.id),
            source: park(self.source),
            text: park(self.text),
            text_span: self.text_span,
            edited: self.edited,
            fields: self.fields.into_owned().into(),
        }
    }
}

/// A document without its record: owned parts, and ranges of the record for the rest.
#[derive(Debug)]
pub struct Parked {
    id: Field,
    source: Field,
    text: Field,
    text_span: Option<Range<usize>>,
    edited: bool,
    fields: Box<str>,
}

#[derive(Debug)]
enum Field {
    InRecord(Range<usize>),
    Owned(String),
}

impl Parked {
    pub(crate) fn set_text(&mut self, text: String) {
        self.text = Field::Owned(text);
        self.edited = true;
    }

    /// UTF-8 bytes of the text.
    pub(crate) fn text_len(&self) -> usize {
        match &self.text {
            Field::InRecord(range) => range.len(),
            Field::Owned(text) => text.len(),
        }
    }

    /// Borrows the document again; `raw` is the record that it was parked from.
    pub fn resume<'a>(&'a self, raw: &'a [u8]) -> Document<'a> {
        let borrow = |field: &'a Field| match field {
            Field::InRecord(range) => Cow::Borrowed(
                std::str::from_utf8(&raw[range.clone()]).expect("was a str of this record when parked"),
            ),
            Field::Owned(owned) => Cow::Borrowed(owned.as_str()),
        };
        Document {
            raw,
            text_span: self.text_span.clone(),
            id: borrow(&self.id),
            source: borrow(&self.source),
            text: borrow(&self.text),
            edited: self.edited,
            fields: Cow::Borrowed(&self.fields),
        }
    }
}

/// The offset of `part` in `whole`, if it is a sub-slice of it.
fn offset_in(whole: &[u8], part: &str) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset + part.len() <= whole.len()).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_documents_come_back_as_they_were() {
        let raw = br#"{"id":"a","text":"plain"}"#.as_slice();
        let text = std::str::from_utf8(&raw[18..23]).unwrap();
        let doc = Document::new(raw, "made-up", "", text).with_text_span(17..24);
        let parked = doc.clone().park();
        assert!(matches!(parked.text, Field::InRecord(_)), "a borrowed text is not copied");
        let back = parked.resume(raw);
        assert_eq!((back.id(), back.source(), back.text()), ("made-up", "", "plain"));
        assert_eq!(back.text_span(), Some(17..24));
        assert!(!back.is_edited());
    }

    #[test]
    fn an_edit_that_changes_nothing_is_no_edit() {
        let mut doc = Document::new(b"x", "i", "s", "same");
        doc.set_text("same".to_owned());
        assert!(!doc.is_edited());
        doc.set_text("other".to_owned());
        assert!(doc.is_edited());
        assert_eq!(doc.park().resume(b"x").text(), "other");
    }
}
