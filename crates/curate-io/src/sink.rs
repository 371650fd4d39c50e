//! The end of a chain: kept documents, and beside them what was dropped and why.

use std::io::Write;
use std::path::Path;

use curate_core::{Document, Dropped, Error, Malformed, Sink, Value};

use crate::error::Result;
use crate::json::{append_json_string, document_fields};
use crate::output::Output;

/// What a line about a dropped document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropLogStyle {
    /// The record itself with a field `rejected`: `{…,"rejected":{"stage","reason",…proof}}`; it can be read again.
    Documents,
    /// The proof alone: `{"id","reason",…proof}`.
    Proofs,
}

/// A file that one stage's drops are written to.
pub struct DropLog {
    output: Output,
    style: DropLogStyle,
    stage: String,
    line: Vec<u8>,
}

impl DropLog {
    pub fn create(path: &Path, style: DropLogStyle, stage: &str) -> Result<Self> {
        Ok(Self { output: Output::create(Some(path))?, style, stage: stage.to_owned(), line: Vec::new() })
    }

    fn write(&mut self, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        let Self { output, style, stage, line } = self;
        line.clear();
        match style {
            DropLogStyle::Documents => {
                match doc.text_span() {
                    Some(_) => line.extend_from_slice(without_brace(doc.raw())),
                    None => {
                        document_fields(line, doc.id(), doc.text(), doc.source());
                        line.extend_from_slice(doc.fields().as_bytes());
                    }
                }
                line.extend_from_slice(b",\"rejected\":{\"stage\":");
                append_json_string(line, stage);
                line.push(b',');
                append_reason(line, dropped);
                line.extend_from_slice(b"}}\n");
            }
            DropLogStyle::Proofs => {
                line.extend_from_slice(b"{\"id\":");
                append_json_string(line, doc.id());
                line.push(b',');
                append_reason(line, dropped);
                line.extend_from_slice(b"}\n");
            }
        }
        output.write_all(line).map_err(|e| Error::io(format!("cannot write {}", output.name()), e))
    }
}

/// A JSON object without its closing brace, so that a field can follow. It has one at least: the text.
fn without_brace(raw: &[u8]) -> &[u8] {
    raw.trim_ascii_end().strip_suffix(b"}").expect("the codec accepts whole objects only")
}

/// `"reason":…` and the facts of the proof.
fn append_reason(line: &mut Vec<u8>, dropped: &Dropped) {
    line.extend_from_slice(b"\"reason\":");
    append_json_string(line, &dropped.reason);
    for (name, value) in &dropped.proof {
        line.push(b',');
        append_json_string(line, name);
        line.push(b':');
        match value {
            Value::Text(text) => append_json_string(line, text),
            Value::Count(n) => line.extend_from_slice(n.to_string().as_bytes()),
            // JSON has no infinities; the field's own type (number or null) says so.
            Value::Number(x) => {
                line.extend_from_slice(serde_json::json!(x).to_string().as_bytes());
            }
        }
    }
}

/// Writes kept documents to one output, and each stage's drops to that stage's logs.
#[derive(Default)]
pub struct DocumentSink {
    kept: Option<Output>,
    /// Logs of drops, each with the number of the stage in the chain that it belongs to.
    logs: Vec<(usize, DropLog)>,
}

impl DocumentSink {
    /// A sink for kept documents; `None` where a gate is the real end of the chain.
    pub fn new(kept: Option<Output>) -> Self {
        Self { kept, logs: Vec::new() }
    }

    /// Also writes what stage number `stage` drops to `log`.
    pub fn add_log(&mut self, stage: usize, log: DropLog) {
        self.logs.push((stage, log));
    }

    /// Completes all files.
    pub fn finish(self) -> curate_core::Result<()> {
        for (_, log) in self.logs {
            log.output.finish()?;
        }
        self.kept.map_or(Ok(()), Output::finish)
    }
}

impl Sink for DocumentSink {
    fn wants_documents(&self) -> bool {
        self.kept.is_some()
    }

    fn keep(&mut self, encoded: &[u8]) -> curate_core::Result<()> {
        let Some(output) = &mut self.kept else { return Ok(()) };
        output.write_all(encoded).map_err(|e| Error::io(format!("cannot write {}", output.name()), e))
    }

    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        self.logs.iter_mut().filter(|(at, _)| *at == stage).try_for_each(|(_, log)| log.write(doc, dropped))
    }

    fn malformed(&mut self, _raw: &[u8], _malformed: &Malformed) -> curate_core::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use curate_core::{Codec, Parsed, Record};

    use super::*;
    use crate::Records;

    #[test]
    fn rejected_records_can_be_read_again() {
        let dir = std::env::temp_dir().join(format!("curate-io-sink-{}", std::process::id()));
        let codec = Records::new("text", "id").unwrap();
        let line = br#"{"id":"a","text":"x" } "#;
        let record = Record { bytes: line, origin: "in", offset: 0, ordinal: 0, format: 0 };
        let Ok(Parsed::Document(doc)) = codec.parse(record) else { panic!("no document") };
        let dropped = Dropped {
            reason: "too_few_words".into(),
            proof: vec![
                ("rule", Value::Text("words < 50".into())),
                ("value", Value::Number(1.0)),
                ("bands", Value::Count(2)),
                ("ratio", Value::Number(f64::INFINITY)),
            ],
        };
        let mut sink = DocumentSink::new(None);
        sink.add_log(1, DropLog::create(&dir.join("r.jsonl"), DropLogStyle::Documents, "clean").unwrap());
        sink.add_log(1, DropLog::create(&dir.join("p.jsonl"), DropLogStyle::Proofs, "clean").unwrap());
        sink.dropped(1, &doc, &dropped).unwrap();
        sink.dropped(0, &doc, &dropped).unwrap();
        sink.finish().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let facts = r#""reason":"too_few_words","rule":"words < 50","value":1.0,"bands":2,"ratio":null"#;
        assert_eq!(
            read("r.jsonl"),
            format!(r#"{{"id":"a","text":"x" ,"rejected":{{"stage":"clean",{facts}}}}}"#) + "\n"
        );
        assert_eq!(read("p.jsonl"), format!(r#"{{"id":"a",{facts}}}"#) + "\n");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
