//! The codec: records of any input format to documents, documents to JSON Lines.

use std::sync::Arc;

use curate_core::{Codec, Document, Malformed, Parsed, Record};

use crate::error::Result;
use crate::format::{Format, PIECE_TAG};
use crate::json::{self, Fault, FieldPath};
use crate::page::{self, Extractor};
use crate::warc;

/// Reads records of every format, writes JSON Lines.
///
/// An untouched JSON record is written back byte for byte; in an edited one only the text is replaced.
#[derive(Clone)]
pub struct Records {
    text: FieldPath,
    id: FieldPath,
    source: FieldPath,
    /// Write every document anew with the fields of the document schema first, even an untouched one.
    canonical: bool,
    extractor: Option<Arc<dyn Extractor>>,
}

impl Records {
    /// # Errors
    /// A path with an empty name in it.
    pub fn new(text_field: &str, id_field: &str) -> Result<Self> {
        Ok(Self {
            text: FieldPath::parse(text_field)?,
            id: FieldPath::parse(id_field)?,
            source: FieldPath::parse("source")?,
            canonical: false,
            extractor: None,
        })
    }

    /// Makes records that have no `id` of their own carry the made-up one, and texts stand under `text`.
    pub fn canonical(mut self) -> Self {
        self.canonical = true;
        self
    }

    /// Reads web pages too, with `extractor` finding their main text. Without one they are set aside.
    pub fn with_extractor(mut self, extractor: Arc<dyn Extractor>) -> Self {
        self.extractor = Some(extractor);
        self
    }

    fn parse_json<'a>(&self, record: Record<'a>) -> std::result::Result<Document<'a>, Fault> {
        let raw = record.bytes;
        let [text, id, source] = json::find(raw, [&self.text, &self.id, &self.source])?;
        let Some(text) = text else {
            return Err(Fault {
                offset: 0,
                message: format!("expected a string in `{}`, found no such field", self.text),
            });
        };
        let text_span = text.range.clone();
        let text = json::text(raw, &text, &self.text)?;
        let source = match source {
            Some(found) => json::identifier(raw, &found, &self.source)?,
            None => "".into(),
        };
        let own_id = id.is_some();
        let id = match id {
            Some(found) => json::identifier(raw, &found, &self.id)?,
            None => made_up_id(record).into(),
        };
        let doc = Document::new(raw, id, source, text);
        let spliceable = !self.canonical || own_id && self.text_is_at_top();
        if spliceable {
            return Ok(doc.with_text_span(text_span));
        }
        Ok(doc.with_fields(json::other_fields(raw, &[&self.text, &self.id])?))
    }

    fn text_is_at_top(&self) -> bool {
        self.text.to_string() == "text" && self.id.to_string() == "id"
    }
}

/// The value of a document's field as text: the content of a string, or a number, `true`, `false`, an object or an array as
/// it is written. `None` if there is none, or it is `null`.
pub fn field_of(doc: &Document<'_>, path: &FieldPath) -> Option<String> {
    let built;
    let record = match doc.fields().strip_prefix(',') {
        Some(members) => {
            built = format!("{{{members}}}");
            built.as_bytes()
        }
        None if doc.text_span().is_some() => doc.raw(),
        None => return None,
    };
    let [found] = json::find(record, [path]).ok()?;
    let value = json::identifier(record, &found?, path).ok()?;
    (value != "null").then(|| value.into_owned())
}

/// The id of a record that has none: where it stands.
pub(crate) fn made_up_id(record: Record<'_>) -> String {
    format!("{}:{}", record.origin, record.ordinal + 1)
}

/// A text file is called by its name; a piece of one by its place too.
fn parse_text(record: Record<'_>) -> std::result::Result<Document<'_>, Fault> {
    let text = std::str::from_utf8(record.bytes)
        .map_err(|e| Fault { offset: e.valid_up_to(), message: "expected UTF-8 text".to_owned() })?;
    Ok(match record.format == PIECE_TAG {
        true => Document::new(record.bytes, made_up_id(record), "", text),
        false => Document::new(record.bytes, record.origin, "", text),
    })
}

/// What a record holds, by the tag of its block.
enum Kind {
    Json,
    Text,
    Html,
    Warc,
    Arc,
}

impl Kind {
    fn of(tag: u32) -> Self {
        let kinds = [
            (Format::JsonLines, Self::Json),
            (Format::Html, Self::Html),
            (Format::Warc, Self::Warc),
            (Format::Arc, Self::Arc),
        ];
        let known = kinds.into_iter().find(|(format, _)| format.tag() == tag);
        known.map_or(Self::Text, |(_, kind)| kind)
    }
}

impl Codec for Records {
    fn parse<'a>(&self, record: Record<'a>) -> std::result::Result<Parsed<'a>, Malformed> {
        if record.format == Format::JsonLines.tag() && record.bytes.trim_ascii().is_empty() {
            return Ok(Parsed::Nothing);
        }
        let extractor = self.extractor.as_deref();
        let parsed = match Kind::of(record.format) {
            Kind::Json => self.parse_json(record).map(Parsed::Document),
            Kind::Text => parse_text(record).map(Parsed::Document),
            Kind::Html => Ok(page::parse_file(record, extractor)),
            Kind::Warc => warc::parse_warc(record, extractor),
            Kind::Arc => warc::parse_arc(record, extractor),
        };
        parsed.map_err(|fault| Malformed {
            file: record.origin.to_owned(),
            line: record.ordinal + 1,
            offset: record.offset + fault.offset as u64,
            message: fault.message,
        })
    }

    fn is_verbatim(&self, doc: &Document<'_>) -> bool {
        doc.text_span().is_some() && !doc.is_edited() && doc.set_fields().is_empty()
    }

    fn write(&self, doc: &Document<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        match doc.text_span() {
            Some(_) if !doc.is_edited() => out.extend_from_slice(doc.raw()),
            Some(span) => {
                out.extend_from_slice(&doc.raw()[..span.start]);
                json::append_json_string(out, doc.text());
                out.extend_from_slice(&doc.raw()[span.end..]);
            }
            None => {
                json::document_fields(out, doc.id(), doc.text(), doc.source());
                out.extend_from_slice(doc.fields().as_bytes());
                out.push(b'}');
            }
        }
        for (path, value) in doc.set_fields() {
            json::set_field(out, start, path, value);
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8], format: Format) -> Record<'_> {
        Record { bytes, origin: "in.jsonl", offset: 100, ordinal: 6, format: format.tag() }
    }

    fn document<'a>(parsed: std::result::Result<Parsed<'a>, Malformed>) -> Document<'a> {
        match parsed.unwrap() {
            Parsed::Document(doc) => doc,
            other => panic!("no document but {other:?}"),
        }
    }

    /// Parses `line`, replaces its text if asked to, and writes it.
    fn through(codec: &Records, line: &str, edit: Option<&str>) -> String {
        let mut doc = document(codec.parse(record(line.as_bytes(), Format::JsonLines)));
        if let Some(text) = edit {
            doc.set_text(text.to_owned());
        }
        let mut out = Vec::new();
        codec.write(&doc, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn untouched_records_leave_as_they_came() {
        let codec = Records::new("text", "id").unwrap();
        for line in [
            r#"{"id":"a","text":"x"}"#,
            r#"  {"x" : 1.50e+3, "text":"\u0041\/é", "extra":{"b":[null,  true]}, "id":7}  "#,
            "{\"text\":\"no id\"}\r",
        ] {
            assert_eq!(through(&codec, line, None), format!("{line}\n"));
        }
    }

    #[test]
    fn an_edit_replaces_the_text_alone() {
        let codec = Records::new("text", "id").unwrap();
        let line = r#"{"n" : 1.50, "text": "old\n" ,"z":"\u0041"}"#;
        assert_eq!(
            through(&codec, line, Some("a \"b\"\n\u{1}é")),
            r#"{"n" : 1.50, "text": "a \"b\"\n\u0001é" ,"z":"\u0041"}"#.to_owned() + "\n"
        );
        let nested = Records::new("doc.body", "doc.key").unwrap();
        let line = r#"{"doc":{"key":"k","body":"old"},"text":"other"}"#;
        assert_eq!(
            through(&nested, line, Some("new")),
            r#"{"doc":{"key":"k","body":"new"},"text":"other"}"#.to_owned() + "\n"
        );
    }

    #[test]
    fn a_set_field_is_added_or_replaced_alone() {
        let codec = Records::new("text", "id").unwrap();
        let check = |line: &str, path: &str, expected: &str| {
            let mut doc = document(codec.parse(record(line.as_bytes(), Format::JsonLines)));
            doc.set_field(path, "0.5".to_owned());
            assert!(!codec.is_verbatim(&doc));
            let mut out = b"before\n".to_vec();
            codec.write(&doc, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("before\n{expected}\n"));
        };
        check(r#"{"text":"x" , "n":1.50 } "#, "q", r#"{"text":"x" , "n":1.50 ,"q":0.5} "#);
        check(r#"{"q" : [1,2],"text":"}"}"#, "q", r#"{"q" : 0.5,"text":"}"}"#);
        check(r#"{"text":"x"}"#, "metadata.q", r#"{"text":"x","metadata":{"q":0.5}}"#);
        check(r#"{"text":"x","m":{ }}"#, "m.q", r#"{"text":"x","m":{ "q":0.5}}"#);
        check(r#"{"m":{"a":{"q":1}},"text":"x"}"#, "m.a.q", r#"{"m":{"a":{"q":0.5}},"text":"x"}"#);
        check(r#"{"m":null,"text":"x"}"#, "m.q", r#"{"m":{"q":0.5},"text":"x"}"#);
        let mut doc = document(codec.parse(record(b"plain", Format::Text)));
        doc.set_field("q", "1".to_owned());
        let mut out = Vec::new();
        codec.write(&doc, &mut out);
        assert_eq!(out, b"{\"id\":\"in.jsonl\",\"text\":\"plain\",\"q\":1}\n");
    }

    #[test]
    fn ids_and_sources_are_read_or_made_up() {
        let codec = Records::new("text", "id").unwrap();
        let check = |line: &str, id: &str, source: &str| {
            let doc = document(codec.parse(record(line.as_bytes(), Format::JsonLines)));
            assert_eq!((doc.id(), doc.source()), (id, source), "{line}");
        };
        check(r#"{"id":"a\u0062","text":"","source":"web"}"#, "ab", "web");
        check(r#"{"id":17,"text":""}"#, "17", "");
        check(r#"{"text":""}"#, "in.jsonl:7", "");
    }

    #[test]
    fn a_record_that_is_written_anew_loses_nothing() {
        let through = |text: &str, id: &str, line: &str| {
            let codec = Records::new(text, id).unwrap().canonical();
            through(&codec, line, None)
        };
        assert_eq!(
            through("text", "id", r#"{"n":1.50,"text":"t","source":"s","m":{"a":[1, 2]}}"#),
            r#"{"id":"in.jsonl:7","text":"t","source":"s","n":1.50,"m":{"a":[1, 2]}}"#.to_owned() + "\n"
        );
        assert_eq!(
            through("doc.body", "doc.key", r#"{"doc":{"key":"k","body":"t","x":{"y":null}},"z":"\u0041"}"#),
            r#"{"id":"k","text":"t","doc":{"x":{"y":null}},"z":"\u0041"}"#.to_owned() + "\n"
        );
        assert_eq!(
            through("doc.body", "doc.key", r#"{"doc":{"key":"k","body":"t"}}"#),
            r#"{"id":"k","text":"t"}"#.to_owned() + "\n"
        );
    }

    #[test]
    fn malformed_records_say_where() {
        let codec = Records::new("text", "id").unwrap();
        let check = |bytes: &[u8], format, offset, part: &str| {
            let malformed = codec.parse(record(bytes, format)).unwrap_err();
            assert_eq!((malformed.line, malformed.offset), (7, offset), "{malformed}");
            assert!(malformed.message.contains(part), "{malformed}");
        };
        check(br#"{"text":1}"#, Format::JsonLines, 108, "found a number");
        check(br#"{"body":"x"}"#, Format::JsonLines, 100, "no such field");
        check(b"abc\xff", Format::Text, 103, "UTF-8");
        assert!(matches!(codec.parse(record(b"  ", Format::JsonLines)), Ok(Parsed::Nothing)));
    }

    #[test]
    fn text_files_become_records() {
        let codec = Records::new("text", "id").unwrap();
        let doc = document(codec.parse(record(b"a\n\"b\"", Format::Text)));
        let mut out = Vec::new();
        codec.write(&doc, &mut out);
        assert_eq!(out, b"{\"id\":\"in.jsonl\",\"text\":\"a\\n\\\"b\\\"\"}\n");
    }

    #[test]
    fn fields_are_found_wherever_a_document_has_them() {
        let record_of = record(br#"{"text":"x","n":1,"m":{"url":"a\u0062"},"z":null}"#, Format::JsonLines);
        for codec in [Records::new("text", "id").unwrap(), Records::new("text", "id").unwrap().canonical()] {
            let doc = document(codec.parse(record_of));
            let field = |path: &str| field_of(&doc, &FieldPath::parse(path).unwrap());
            assert_eq!(field("m.url").as_deref(), Some("ab"));
            assert_eq!(field("n").as_deref(), Some("1"));
            assert_eq!((field("z"), field("m.no"), field("no")), (None, None, None));
        }
        let doc = document(Records::new("text", "id").unwrap().parse(record(b"plain", Format::Text)));
        assert_eq!(field_of(&doc, &FieldPath::parse("url").unwrap()), None);
    }

    #[test]
    fn canonical_records_have_id_and_text() {
        let codec = Records::new("body", "id").unwrap().canonical();
        assert_eq!(
            through(&codec, r#"{"body":"x","source":"s"}"#, None),
            "{\"id\":\"in.jsonl:7\",\"text\":\"x\",\"source\":\"s\"}\n"
        );
        let codec = Records::new("text", "id").unwrap().canonical();
        assert_eq!(
            through(&codec, r#"{"id":"i","text":"x", "k":1}"#, None),
            "{\"id\":\"i\",\"text\":\"x\", \"k\":1}\n"
        );
    }

    mod properties {
        use proptest::prelude::*;
        use serde_json::{Map, Value, json};

        use super::*;

        fn any_json() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                // Eighths, which every reader of decimals reads alike.
                any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
                any::<String>().prop_map(Value::from),
            ];
            leaf.prop_recursive(3, 20, 4, |inner| {
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                    prop::collection::vec((any::<String>(), inner), 0..4)
                        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
                ]
            })
        }

        /// What serde_json makes of a line: the text, or nothing if it is no object with a string `text`.
        fn oracle(line: &[u8]) -> Option<String> {
            let value: Value = serde_json::from_slice(line).ok()?;
            value.as_object()?.get("text")?.as_str().map(str::to_owned)
        }

        fn parse(line: &[u8]) -> Option<String> {
            let codec = Records::new("text", "id").unwrap();
            match codec.parse(record(line, Format::JsonLines)) {
                Ok(Parsed::Document(doc)) => Some(doc.text().to_owned()),
                _ => None,
            }
        }

        proptest! {
            #[test]
            fn texts_are_those_of_serde_json(
                before in any_json(), text in any::<String>(), after in any_json(), pretty: bool, edit in any::<String>()
            ) {
                let value = json!({ "a": before, "text": text, "z": after });
                let line = if pretty { format!("{value:#}").replace('\n', " ") } else { value.to_string() };
                prop_assert_eq!(parse(line.as_bytes()), Some(text));
                let codec = Records::new("text", "id").unwrap();
                prop_assert_eq!(through(&codec, &line, None), format!("{line}\n"));
                let edited: Value = serde_json::from_str(&through(&codec, &line, Some(&edit))).unwrap();
                prop_assert_eq!(edited, json!({ "a": value["a"], "text": edit, "z": value["z"] }));
            }

            /// Damaged lines never panic, and whatever is taken for a document has the text that serde_json sees.
            #[test]
            fn damaged_lines_are_refused_or_read_alike(
                value in any_json(), text in any::<String>(), at in any::<prop::sample::Index>(), byte: u8, cut: bool
            ) {
                let mut line = json!({ "text": text, "v": value }).to_string().into_bytes();
                let at = at.index(line.len());
                if cut { line.truncate(at) } else { line[at] = byte };
                if let (Some(ours), Some(theirs)) = (parse(&line), oracle(&line)) {
                    prop_assert_eq!(ours, theirs);
                }
                if cut {
                    prop_assert_eq!(parse(&line), None);
                }
            }

            #[test]
            fn any_bytes_are_refused_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
                prop_assert_eq!(parse(&line).is_some() && oracle(&line).is_none(), false);
            }
        }
    }
}
