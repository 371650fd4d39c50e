//! A document: one text with its identity, borrowed from the record that stores it.

use std::borrow::Cow;
use std::cell::OnceCell;
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
    text: Text<'a>,
    edited: bool,
    /// Members of a JSON object, each after a comma; empty for most.
    fields: Cow<'a, str>,
    /// Fields that stages have set: dotted path and JSON value.
    set_fields: Cow<'a, [(String, String)]>,
    number: Option<u64>,
}

/// A text: as it is, or as its record spells it until somebody asks.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    Plain(Cow<'a, str>),
    Encoded(EncodedText<'a>),
}

/// A text that its record spells differently, decoded when it is first asked for.
#[derive(Debug, Clone)]
pub struct EncodedText<'a> {
    spelled: &'a str,
    len: usize,
    decode: fn(&str) -> String,
    decoded: OnceCell<String>,
}

impl<'a> EncodedText<'a> {
    /// `decode` makes a text of `len` UTF-8 bytes of `spelled`, and cannot fail on it.
    pub fn new(spelled: &'a str, len: usize, decode: fn(&str) -> String) -> Self {
        Self { spelled, len, decode, decoded: OnceCell::new() }
    }
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Encoded(text) => text.decoded.get_or_init(|| (text.decode)(text.spelled)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Encoded(text) => text.len,
        }
    }
}

impl<'a> From<Cow<'a, str>> for Text<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Plain(text)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Plain(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Plain(Cow::Owned(text))
    }
}

impl<'a> From<EncodedText<'a>> for Text<'a> {
    fn from(text: EncodedText<'a>) -> Self {
        Self::Encoded(text)
    }
}

/// What became of a document since it was parked.
pub(crate) struct News {
    text: Option<TextNews>,
    set_fields: Option<Vec<(String, String)>>,
    number: Option<u64>,
}

enum TextNews {
    Decoded(String),
    Edited(String),
}

impl<'a> Document<'a> {
    /// A document stored as `raw`, without its line end. `source` is empty when the record names none.
    pub fn new(
        raw: &'a [u8],
        id: impl Into<Cow<'a, str>>,
        source: impl Into<Cow<'a, str>>,
        text: impl Into<Text<'a>>,
    ) -> Self {
        Self {
            raw,
            text_span: None,
            id: id.into(),
            source: source.into(),
            text: text.into(),
            edited: false,
            fields: Cow::Borrowed(""),
            set_fields: Cow::Borrowed(&[]),
            number: None,
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
        self.text.as_str()
    }

    /// UTF-8 bytes of the text, which need not be decoded for that.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Replaces the text; the document counts as edited only if that changes it.
    pub fn set_text(&mut self, text: String) {
        if text != self.text.as_str() {
            self.text = text.into();
            self.edited = true;
        }
    }

    /// True once a stage has changed the text.
    pub fn is_edited(&self) -> bool {
        self.edited
    }

    /// Sets the field at the dotted `path` of the record to a JSON value when the record is written; what the record
    /// has there is replaced, and everything else stays byte for byte. The text and the id have their own ways.
    pub fn set_field(&mut self, path: &str, json: String) {
        let fields = self.set_fields.to_mut();
        match fields.iter_mut().find(|(name, _)| name == path) {
            Some((_, value)) => *value = json,
            None => fields.push((path.to_owned(), json)),
        }
    }

    /// The fields that stages have set, in the order in which they were first set.
    pub fn set_fields(&self) -> &[(String, String)] {
        &self.set_fields
    }

    /// The place of the document, from 0, among those that a stage has counted; `None` if none has.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Tells the stages that follow where the document stood, whatever is dropped between. It is not written.
    pub fn set_number(&mut self, number: u64) {
        self.number = Some(number);
    }

    /// True if the text was edited, or a field set, since the document was last parked.
    pub(crate) fn has_edits(&self) -> bool {
        matches!(self.text, Text::Plain(Cow::Owned(_))) || matches!(self.set_fields, Cow::Owned(_))
    }

    /// The text, if it was edited or decoded since the document was last parked, the fields, if any was set, and the number.
    pub(crate) fn into_news(self) -> Option<News> {
        let text = match self.text {
            Text::Plain(Cow::Owned(edit)) => Some(TextNews::Edited(edit)),
            Text::Plain(Cow::Borrowed(_)) => None,
            Text::Encoded(text) => text.decoded.into_inner().map(TextNews::Decoded),
        };
        let set_fields = match self.set_fields {
            Cow::Owned(fields) => Some(fields),
            Cow::Borrowed(_) => None,
        };
        let number = self.number;
        let is_news = text.is_some() || set_fields.is_some() || number.is_some();
        is_news.then_some(News { text, set_fields, number })
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
        let text = match self.text {
            Text::Plain(text) => ParkedText::Plain(park(text)),
            Text::Encoded(EncodedText { spelled, len, decode, decoded }) => {
                match (decoded.into_inner(), offset_in(raw, spelled)) {
                    (None, Some(start)) => {
                        ParkedText::Encoded { range: start..start + spelled.len(), len, decode }
                    }
                    (None, None) => ParkedText::Plain(Field::Owned(decode(spelled))),
                    (Some(text), _) => ParkedText::Plain(Field::Owned(text)),
                }
            }
        };
        Parked {
            id: park(self.id),
            source: park(self.source),
            text,
            text_span: self.text_span,
            edited: self.edited,
            fields: self.fields.into_owned().into(),
            set_fields: self.set_fields.into_owned(),
            number: self.number,
        }
    }
}

/// A document without its record: owned parts, and ranges of the record for the rest.
#[derive(Debug)]
pub struct Parked {
    id: Field,
    source: Field,
    text: ParkedText,
    text_span: Option<Range<usize>>,
    edited: bool,
    fields: Box<str>,
    set_fields: Vec<(String, String)>,
    number: Option<u64>,
}

#[derive(Debug)]
enum ParkedText {
    Plain(Field),
    Encoded { range: Range<usize>, len: usize, decode: fn(&str) -> String },
}

#[derive(Debug)]
enum Field {
    InRecord(Range<usize>),
    Owned(String),
}

impl Parked {
    pub(crate) fn update(&mut self, news: News) {
        if let Some(fields) = news.set_fields {
            self.set_fields = fields;
        }
        self.number = news.number;
        let text = match news.text {
            None => return,
            Some(TextNews::Decoded(text)) => text,
            Some(TextNews::Edited(text)) => {
                self.edited = true;
                text
            }
        };
        self.text = ParkedText::Plain(Field::Owned(text));
    }

    /// UTF-8 bytes of the text.
    pub(crate) fn text_len(&self) -> usize {
        match &self.text {
            ParkedText::Plain(Field::InRecord(range)) => range.len(),
            ParkedText::Plain(Field::Owned(text)) => text.len(),
            ParkedText::Encoded { len, .. } => *len,
        }
    }

    /// Borrows the document again; `raw` is the record that it was parked from.
    pub fn resume<'a>(&'a self, raw: &'a [u8]) -> Document<'a> {
        let part = |range: &Range<usize>| -> &'a str {
            simdutf8::basic::from_utf8(&raw[range.clone()]).expect("was a str of this record when parked")
        };
        let borrow = |field: &'a Field| match field {
            Field::InRecord(range) => Cow::Borrowed(part(range)),
            Field::Owned(owned) => Cow::Borrowed(owned.as_str()),
        };
        let text = match &self.text {
            ParkedText::Plain(field) => borrow(field).into(),
            ParkedText::Encoded { range, len, decode } => EncodedText::new(part(range), *len, *decode).into(),
        };
        Document {
            raw,
            text_span: self.text_span.clone(),
            id: borrow(&self.id),
            source: borrow(&self.source),
            text,
            edited: self.edited,
            fields: Cow::Borrowed(&self.fields),
            set_fields: Cow::Borrowed(&self.set_fields),
            number: self.number,
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
        assert!(
            matches!(parked.text, ParkedText::Plain(Field::InRecord(_))),
            "a borrowed text is not copied"
        );
        let back = parked.resume(raw);
        assert_eq!((back.id(), back.source(), back.text()), ("made-up", "", "plain"));
        assert_eq!(back.text_span(), Some(17..24));
        assert!(!back.is_edited());
    }

    #[test]
    fn an_encoded_text_is_decoded_once() {
        let raw = b"{text: ABC}".as_slice();
        let spelled = std::str::from_utf8(&raw[7..10]).unwrap();
        let doc = Document::new(raw, "i", "", EncodedText::new(spelled, 3, str::to_ascii_lowercase));
        let mut parked = doc.park();
        assert!(matches!(parked.text, ParkedText::Encoded { .. }));
        assert_eq!(parked.text_len(), 3);
        assert!(parked.resume(raw).into_news().is_none());
        let resumed = parked.resume(raw);
        assert_eq!((resumed.text_len(), resumed.text()), (3, "abc"));
        let news = resumed.into_news().unwrap();
        parked.update(news);
        assert!(matches!(&parked.text, ParkedText::Plain(Field::Owned(text)) if text == "abc"));
        assert!(!parked.resume(raw).is_edited());
    }

    #[test]
    fn fields_outlive_parking() {
        let mut doc = Document::new(b"x", "i", "s", "t");
        doc.set_field("a", "1".to_owned());
        let mut parked = doc.park();
        assert!(parked.resume(b"x").into_news().is_none());
        let mut resumed = parked.resume(b"x");
        resumed.set_field("b.c", "2".to_owned());
        resumed.set_field("a", "3".to_owned());
        assert!(resumed.has_edits() && !resumed.is_edited());
        let news = resumed.into_news().unwrap();
        parked.update(news);
        let fields = [("a".to_owned(), "3".to_owned()), ("b.c".to_owned(), "2".to_owned())];
        assert_eq!(parked.resume(b"x").set_fields(), fields);
    }

    #[test]
    fn a_number_outlives_parking() {
        let mut parked = Document::new(b"x", "i", "s", "t").park();
        let mut resumed = parked.resume(b"x");
        assert_eq!(resumed.number(), None);
        resumed.set_number(7);
        assert!(!resumed.has_edits());
        let news = resumed.into_news().unwrap();
        parked.update(news);
        assert_eq!(parked.resume(b"x").number(), Some(7));
        let mut again = parked.resume(b"x");
        again.set_text("edited".to_owned());
        let news = again.into_news().unwrap();
        parked.update(news);
        assert_eq!((parked.resume(b"x").number(), parked.resume(b"x").text()), (Some(7), "edited"));
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
