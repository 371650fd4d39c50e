//! The end of a chain: kept documents, and beside them what was dropped and why.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curate_core::{Codec, Document, Dropped, Malformed, Sink, Value};

use crate::error::Result;
use crate::json::{self, FieldPath, append_json_string, document_fields};
use crate::layout::{Destination, OutputError, OutputFormat, output_stem, shard_name, split_extension};
use crate::output::RecordFile;
use crate::records::Records;

/// What a line about a dropped document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropLogStyle {
    /// The record itself with a field `rejected`: `{…,"rejected":{"stage","reason",…proof}}`; it can be read again.
    Documents,
    /// The proof alone: `{"id","reason",…proof}`.
    Proofs,
}

/// A file that one stage's drops are written to: JSON Lines, or Parquet if its name says so.
pub struct DropLog {
    output: RecordFile,
    style: DropLogStyle,
    stage: String,
    line: Vec<u8>,
}

impl DropLog {
    pub fn create(path: &Path, style: DropLogStyle, stage: &str) -> Result<Self> {
        Ok(Self { output: RecordFile::create(Some(path))?, style, stage: stage.to_owned(), line: Vec::new() })
    }

    /// Writes what happened to a document, which a sink does by itself for those that are dropped.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
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
        output.write(line)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> curate_core::Result<()> {
        self.output.finish()
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

/// Writes kept documents to their destination, and each stage's drops to that stage's logs.
///
/// Every file appears under its name when it is complete: a shard when the next one begins, the output of an input
/// when the next input begins, the last ones with [`finish`](Self::finish).
#[derive(Default)]
pub struct DocumentSink {
    kept: Option<Kept>,
    /// Logs of drops, each with the number of the stage in the chain that it belongs to.
    logs: Vec<(Range<usize>, DropLog)>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl DocumentSink {
    /// A sink for kept documents; `stages` are the names of the chain's stages, in order.
    ///
    /// For [`OutputFormat::Dolma`] the records should be canonical ([`Records::canonical`]), as its two files are
    /// joined by `id`; stages may be named as they like, the attribute is `curate__STAGE__REASON`.
    ///
    /// # Errors
    /// An output that cannot be created. Those of a directory are created as their inputs come.
    pub fn to(destination: Destination, stages: &[String]) -> Result<Self> {
        let kept = match destination {
            Destination::Stream(path) => Kept::Files(Box::new(Shards::single(path)?)),
            Destination::Sharded { path, shard_bytes } => {
                if path.as_os_str() == "-" {
                    return Err(OutputError::ShardedStdout.into());
                }
                let (stem, extension) = split_extension(&path);
                Kept::Files(Box::new(Shards::numbered(stem, extension, shard_bytes)?))
            }
            Destination::Directory { dir, roots, to, shard_bytes } => Kept::Directory(Box::new(Directory {
                dir,
                roots,
                to,
                shard_bytes,
                stages: stages.to_vec(),
                written: HashMap::new(),
                origin: None,
                open: None,
            })),
        };
        Ok(Self { kept: Some(kept), ..Self::default() })
    }

    /// A sink for a chain whose last gate is its real end: only the logs are written.
    pub fn nowhere() -> Self {
        Self::default()
    }

    /// Also writes what the stages of these numbers drop to `log`.
    pub fn add_log(&mut self, stages: Range<usize>, log: DropLog) {
        self.logs.push((stages, log));
    }

    /// Completes all files.
    pub fn finish(mut self) -> curate_core::Result<()> {
        if !self.partial.is_empty() {
            self.keep(b"\n")?;
        }
        for (_, log) in self.logs {
            log.finish()?;
        }
        match self.kept {
            None => Ok(()),
            Some(Kept::Files(files)) => files.finish(),
            Some(Kept::Directory(directory)) => directory.open.map_or(Ok(()), InputOutput::finish),
        }
    }
}

impl Sink for DocumentSink {
    fn wants_documents(&self) -> bool {
        self.kept.is_some()
    }

    fn begin_block(&mut self, origin: &Arc<str>) -> curate_core::Result<()> {
        match &mut self.kept {
            Some(Kept::Directory(directory)) => directory.begin(origin),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, encoded: &[u8]) -> curate_core::Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        // Documents come as whole lines; only a malformed record that is passed through comes before its line end.
        if self.partial.is_empty() && encoded.ends_with(b"\n") {
            return kept.lines(encoded);
        }
        self.partial.extend_from_slice(encoded);
        if self.partial.ends_with(b"\n") {
            kept.lines(&self.partial)?;
            self.partial.clear();
        }
        Ok(())
    }

    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        if let Some(Kept::Directory(directory)) = &mut self.kept {
            directory.dropped(stage, doc, dropped)?;
        }
        self.logs
            .iter_mut()
            .filter(|(stages, _)| stages.contains(&stage))
            .try_for_each(|(_, log)| log.write(doc, dropped))
    }

    fn malformed(&mut self, _raw: &[u8], _malformed: &Malformed) -> curate_core::Result<()> {
        Ok(())
    }
}

/// An open [`Destination`].
enum Kept {
    Files(Box<Shards>),
    Directory(Box<Directory>),
}

impl Kept {
    fn lines(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        match self {
            Self::Files(files) => files.write(lines),
            Self::Directory(directory) => directory.lines(lines),
        }
    }
}

/// One file, or numbered ones that follow each other.
struct Shards {
    open: Option<RecordFile>,
    /// How shards are named and when they end; `None` for a single file.
    numbered: Option<Numbered>,
    /// Bytes of JSON in the open shard.
    bytes: u64,
}

struct Numbered {
    stem: String,
    extension: String,
    shard_bytes: u64,
    /// Number of the shard that comes next.
    next: u32,
}

impl Shards {
    fn single(path: Option<PathBuf>) -> Result<Self> {
        Ok(Self { open: Some(RecordFile::create(path.as_deref())?), numbered: None, bytes: 0 })
    }

    fn numbered(stem: String, extension: String, shard_bytes: u64) -> Result<Self> {
        let mut shards =
            Self { open: None, numbered: Some(Numbered { stem, extension, shard_bytes, next: 0 }), bytes: 0 };
        // The first is there even if nothing is kept, and a path that cannot be written fails before the work.
        shards.open()?;
        Ok(shards)
    }

    /// `stem` and `suffix` as they are, or with a number between them.
    fn new(stem: String, suffix: &str, shard_bytes: Option<u64>) -> Result<Self> {
        match shard_bytes {
            Some(shard_bytes) => Self::numbered(stem, suffix.to_owned(), shard_bytes),
            None => Self::single(Some(PathBuf::from(stem + suffix))),
        }
    }

    /// The open file; opens the next shard if there is none.
    fn open(&mut self) -> Result<&mut RecordFile> {
        let file = match (self.open.take(), &mut self.numbered) {
            (None, Some(numbered)) => {
                let path = shard_name(&numbered.stem, numbered.next, &numbered.extension);
                numbered.next += 1;
                self.bytes = 0;
                RecordFile::create(Some(&path))?
            }
            (Some(file), _) => file,
            (None, None) => unreachable!("a single file is open from the start to the end"),
        };
        Ok(self.open.insert(file))
    }

    fn write(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        if self.numbered.is_none() {
            return self.open()?.write(lines);
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            self.open()?.write(now)?;
            self.bytes += now.len() as u64;
            rest = later;
            if self.is_full() || !rest.is_empty() {
                self.close()?;
            }
        }
        Ok(())
    }

    /// How many bytes of `lines` belong to the open shard: all up to the line that fills it, and nothing after a
    /// line that needs a shard to itself. Only a shard with something in it refuses its first line.
    fn fitting(&self, lines: &[u8]) -> usize {
        let limit = self.numbered.as_ref().map_or(u64::MAX, |numbered| numbered.shard_bytes);
        let mut bytes = self.bytes;
        let mut end = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let length = line.len() as u64;
            if length > limit && bytes > 0 {
                break;
            }
            bytes += length;
            end += line.len();
            if bytes >= limit {
                break;
            }
        }
        end
    }

    fn is_full(&self) -> bool {
        self.numbered.as_ref().is_some_and(|numbered| self.bytes >= numbered.shard_bytes)
    }

    fn close(&mut self) -> curate_core::Result<()> {
        self.bytes = 0;
        self.open.take().map_or(Ok(()), RecordFile::finish)
    }

    fn finish(mut self) -> curate_core::Result<()> {
        self.close()
    }
}

/// An output for each input.
struct Directory {
    dir: PathBuf,
    roots: Vec<PathBuf>,
    to: OutputFormat,
    shard_bytes: Option<u64>,
    stages: Vec<String>,
    /// The outputs so far, each with the input that it was made for.
    written: HashMap<String, Arc<str>>,
    origin: Option<Arc<str>>,
    open: Option<InputOutput>,
}

impl Directory {
    /// Completes the last input's output and opens that of `origin`, unless they are the same.
    fn begin(&mut self, origin: &Arc<str>) -> curate_core::Result<()> {
        if self.origin.as_ref() == Some(origin) {
            return Ok(());
        }
        if let Some(open) = self.open.take() {
            open.finish()?;
        }
        let stem = output_stem(origin, &self.roots);
        if let Some(first) = self.written.insert(stem.clone(), Arc::clone(origin)) {
            let path = self.documents(&stem);
            let (first, second) = (first.to_string(), origin.to_string());
            return Err(crate::IoError::from(OutputError::SameName { path, first, second }).into());
        }
        self.refuse_input(&stem, origin)?;
        self.open = Some(self.output(&stem)?);
        self.origin = Some(Arc::clone(origin));
        Ok(())
    }

    /// Where the documents of an input are written to.
    fn documents(&self, stem: &str) -> PathBuf {
        let dir = if self.to == OutputFormat::Dolma { self.dir.join("documents") } else { self.dir.clone() };
        dir.join(format!("{stem}{}", self.to.suffix()))
    }

    /// An output that is its own input would replace what is still being read.
    fn refuse_input(&self, stem: &str, origin: &str) -> Result<()> {
        let path = self.documents(stem);
        match (fs::canonicalize(&path), fs::canonicalize(origin)) {
            (Ok(output), Ok(input)) if output == input => Err(OutputError::OverInput { path }.into()),
            _ => Ok(()),
        }
    }

    fn output(&self, stem: &str) -> Result<InputOutput> {
        let shards = |dir: PathBuf| {
            let stem = dir.join(stem).to_string_lossy().into_owned();
            Shards::new(stem, self.to.suffix(), self.shard_bytes)
        };
        if self.to != OutputFormat::Dolma {
            return Ok(InputOutput { documents: shards(self.dir.clone())?, attributes: None });
        }
        Ok(InputOutput {
            documents: shards(self.dir.join("documents"))?,
            // Its shards end where those of the documents do.
            attributes: Some(Attributes {
                file: {
                    let mut file = shards(self.dir.join("attributes").join("curate"))?;
                    if let Some(numbered) = &mut file.numbered {
                        numbered.shard_bytes = u64::MAX;
                    }
                    file
                },
                id: FieldPath::parse("id")?,
                row: Vec::new(),
            }),
        })
    }

    fn lines(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| open.lines(lines))
    }

    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        let name = self.stages.get(stage).map_or("stage", String::as_str);
        self.open.as_mut().map_or(Ok(()), |open| open.dropped(name, doc, dropped))
    }
}

/// The files of one input.
struct InputOutput {
    documents: Shards,
    /// Of the dolma layout: a row for each document.
    attributes: Option<Attributes>,
}

struct Attributes {
    file: Shards,
    id: FieldPath,
    row: Vec<u8>,
}

impl InputOutput {
    fn lines(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        let Some(attributes) = &mut self.attributes else { return self.documents.write(lines) };
        for line in lines.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
        {
            let id = attributes.id_of(line).map_err(|message| refused(&message))?;
            attributes.begin_row(&id);
            write_pair(&mut self.documents, line, attributes)?;
        }
        Ok(())
    }

    fn dropped(&mut self, stage: &str, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        let Some(attributes) = &mut self.attributes else { return Ok(()) };
        attributes.begin_row(doc.id());
        attributes.add_drop(stage, doc, dropped);
        let mut line = Vec::new();
        Records::new("text", "id")?.write(doc, &mut line);
        write_pair(&mut self.documents, &line, attributes)
    }

    fn finish(self) -> curate_core::Result<()> {
        self.documents.finish()?;
        self.attributes.map_or(Ok(()), |attributes| attributes.file.finish())
    }
}

fn refused(message: &str) -> curate_core::Error {
    crate::IoError::from(OutputError::Record {
        name: "attributes".to_owned(),
        what: "a malformed record".to_owned(),
        format: "the dolma layout",
        message: message.to_owned(),
    })
    .into()
}

/// Writes a document and its row; a shard of the one ends with that of the other.
fn write_pair(documents: &mut Shards, line: &[u8], attributes: &mut Attributes) -> curate_core::Result<()> {
    attributes.row.extend_from_slice(b"}}\n");
    if documents.fitting(line) == 0 {
        documents.close()?;
        attributes.file.close()?;
    }
    documents.write(line)?;
    attributes.file.write(&attributes.row)?;
    // A shard that its last document has filled is closed by then.
    if documents.open.is_none() {
        attributes.file.close()?;
    }
    Ok(())
}

impl Attributes {
    fn id_of(&self, line: &[u8]) -> std::result::Result<String, String> {
        let [id] = json::find(line, [&self.id]).map_err(|fault| fault.message)?;
        let id = id.map_or(Ok("".into()), |found| json::identifier(line, &found, &self.id));
        id.map(std::borrow::Cow::into_owned).map_err(|fault| fault.message)
    }

    /// `{"id":…,"attributes":{`, to be closed by two braces.
    fn begin_row(&mut self, id: &str) {
        self.row.clear();
        self.row.extend_from_slice(b"{\"id\":");
        append_json_string(&mut self.row, id);
        self.row.extend_from_slice(b",\"attributes\":{");
    }

    /// A span over the whole text, in characters as Python counts them.
    fn add_drop(&mut self, stage: &str, doc: &Document<'_>, dropped: &Dropped) {
        append_json_string(&mut self.row, &format!("curate__{stage}__{}", dropped.reason));
        let span = format!(":[[0,{},1.0]]", doc.text().chars().count());
        self.row.extend_from_slice(span.as_bytes());
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
        let mut sink = DocumentSink::nowhere();
        sink.add_log(1..2, DropLog::create(&dir.join("r.jsonl"), DropLogStyle::Documents, "clean").unwrap());
        sink.add_log(1..2, DropLog::create(&dir.join("p.jsonl"), DropLogStyle::Proofs, "clean").unwrap());
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

    /// The files below `dir` by their relative paths, decompressed.
    fn files(dir: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(at) = open.pop() {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let raw = Box::new(fs::File::open(&path).unwrap());
                let mut text = String::new();
                let mut reader = crate::decompress::decompressed(raw).unwrap();
                std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
                found.push((path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
        found.sort();
        found
    }

    fn pairs(files: &[(String, String)]) -> Vec<(&str, &str)> {
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
    }

    #[test]
    fn shards_end_with_the_document_that_fills_them() {
        let check = |pieces: &[&str], shard_bytes, expected: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out/k.jsonl.gz");
            let mut sink = DocumentSink::to(Destination::Sharded { path, shard_bytes }, &[]).unwrap();
            pieces.iter().for_each(|piece| sink.keep(piece.as_bytes()).unwrap());
            sink.finish().unwrap();
            let found = files(dir.path());
            let expected: Vec<(String, String)> = (0..)
                .zip(expected)
                .map(|(i, text)| (format!("out/k-{i:05}.jsonl.gz"), (*text).to_owned()))
                .collect();
            assert_eq!(found, expected, "{pieces:?}");
        };
        check(&[], 4, &[""]);
        check(&["a\n"], 4, &["a\n"]);
        check(&["a\nb\nc\n"], 4, &["a\nb\n", "c\n"]);
        check(&["a\n", "b\nc\n"], 3, &["a\nb\n", "c\n"]);
        check(&["a\nlarge one\nb\nc\n"], 5, &["a\n", "large one\n", "b\nc\n"]);
        check(&["large one\n", "large two\n"], 5, &["large one\n", "large two\n"]);
        check(&["a\nb\n"], 0, &["a\n", "b\n"]);
        check(&["mal", "formed", "\nb\n", "c"], 6, &["malformed\n", "b\nc\n"]);
        let stdout = Destination::Sharded { path: "-".into(), shard_bytes: 1 };
        assert!(DocumentSink::to(stdout, &[]).is_err());
    }

    fn directory(dir: &Path, to: OutputFormat, shard_bytes: Option<u64>) -> Destination {
        Destination::Directory { dir: dir.to_owned(), roots: vec!["data".into()], to, shard_bytes }
    }

    #[test]
    fn each_input_has_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = DocumentSink::to(directory(dir.path(), OutputFormat::JsonlZst, None), &[]).unwrap();
        for (origin, lines) in [
            ("data/en/a.jsonl.gz", "1\n"),
            ("data/en/a.jsonl.gz", "2\n"),
            ("data/b.txt", "3\n"),
            ("../c.warc", ""),
        ] {
            sink.begin_block(&origin.into()).unwrap();
            sink.keep(lines.as_bytes()).unwrap();
        }
        assert_eq!(files(dir.path()).iter().filter(|(name, _)| !name.contains(".tmp")).count(), 2);
        let error = sink.begin_block(&"elsewhere/b.jsonl".into()).unwrap_err().to_string();
        let path = dir.path().join("b.jsonl.zst");
        assert_eq!(
            error,
            format!("data/b.txt and elsewhere/b.jsonl would both be written to {}", path.display())
        );
        sink.finish().unwrap();
        let found = files(dir.path());
        assert_eq!(
            pairs(&found),
            [("b.jsonl.zst", "3\n"), ("c.jsonl.zst", ""), ("en/a.jsonl.zst", "1\n2\n")]
        );
        // An input in the output directory is not replaced.
        let input = dir.path().join("in.jsonl");
        crate::write_atomically(&input, b"{}\n").unwrap();
        let mut sink = DocumentSink::to(directory(dir.path(), OutputFormat::Jsonl, None), &[]).unwrap();
        let error = sink.begin_block(&input.to_str().unwrap().into()).unwrap_err().to_string();
        assert!(error.ends_with("is an input: writing it would replace what is being read"), "{error}");
    }

    #[test]
    fn dolma_has_a_row_for_each_document() {
        let dropped = Dropped { reason: "too_few".into(), proof: vec![] };
        let codec = Records::new("text", "id").unwrap();
        let parse = |line: &'static str| {
            let record = Record { bytes: line.as_bytes(), origin: "in", offset: 0, ordinal: 4, format: 0 };
            let Ok(Parsed::Document(doc)) = codec.parse(record) else { panic!("no document") };
            doc
        };
        let run = |shard_bytes| {
            let dir = tempfile::tempdir().unwrap();
            let stages = ["clean".to_owned(), "dedup".to_owned()];
            let mut sink =
                DocumentSink::to(directory(dir.path(), OutputFormat::Dolma, shard_bytes), &stages).unwrap();
            sink.begin_block(&"data/x/in.jsonl".into()).unwrap();
            sink.keep(b"{\"text\":\"t\",\"id\":\"k\\\"1\"}\n{\"id\":2,\"text\":\"\"}\n").unwrap();
            sink.dropped(0, &parse("{\"id\":\"d\",\"text\":\"\u{e9}\u{1f600}\\n\"}"), &dropped).unwrap();
            let mut edited = parse(r#"{"id":"e","text":"old"}"#);
            edited.set_text("newer".to_owned());
            sink.dropped(1, &edited, &dropped).unwrap();
            sink.keep(b"{\"id\":\"z\",\"text\":\"\"}\n").unwrap();
            sink.finish().unwrap();
            files(dir.path())
        };
        let documents = concat!(
            "{\"text\":\"t\",\"id\":\"k\\\"1\"}\n{\"id\":2,\"text\":\"\"}\n",
            "{\"id\":\"d\",\"text\":\"\u{e9}\u{1f600}\\n\"}\n{\"id\":\"e\",\"text\":\"newer\"}\n",
            "{\"id\":\"z\",\"text\":\"\"}\n"
        );
        let attributes = concat!(
            "{\"id\":\"k\\\"1\",\"attributes\":{}}\n{\"id\":\"2\",\"attributes\":{}}\n",
            "{\"id\":\"d\",\"attributes\":{\"curate__clean__too_few\":[[0,3,1.0]]}}\n",
            "{\"id\":\"e\",\"attributes\":{\"curate__dedup__too_few\":[[0,5,1.0]]}}\n",
            "{\"id\":\"z\",\"attributes\":{}}\n"
        );
        let whole = run(None);
        assert_eq!(
            pairs(&whole),
            [("attributes/curate/x/in.jsonl.gz", attributes), ("documents/x/in.jsonl.gz", documents)]
        );
        for shard_bytes in [1, 24, 30, 60, 1000] {
            let shards = run(Some(shard_bytes));
            let of = |part: &str| -> Vec<String> {
                shards
                    .iter()
                    .filter(|(name, _)| name.starts_with(part))
                    .map(|(_, text)| text.clone())
                    .collect()
            };
            let (rows, docs) = (of("attributes"), of("documents"));
            let lines = |texts: &[String]| texts.iter().map(|t| t.lines().count()).collect::<Vec<_>>();
            assert_eq!(lines(&rows), lines(&docs), "shards of {shard_bytes} bytes");
            assert_eq!((rows.concat().as_str(), docs.concat().as_str()), (attributes, documents));
        }
    }

    #[test]
    fn tables_are_written_for_names_that_ask_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let lines = "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"y\"}\n";
        let path = dir.path().join("k.parquet");
        let single = Destination::Stream(Some(path.clone()));
        let shards = Destination::Sharded { path: dir.path().join("s.parquet"), shard_bytes: 1 };
        let per_input = directory(dir.path(), OutputFormat::Parquet, None);
        for destination in [single, shards, per_input] {
            let mut sink = DocumentSink::to(destination, &[]).unwrap();
            sink.begin_block(&"data/in.csv".into()).unwrap();
            sink.keep(lines.as_bytes()).unwrap();
            sink.finish().unwrap();
        }
        let rows = |name: &str| {
            crate::tables::tests::parquet_found(&fs::read(dir.path().join(name)).unwrap()).rows.join("\n")
                + "\n"
        };
        assert_eq!(rows("k.parquet"), lines);
        assert_eq!(rows("in.parquet"), lines);
        assert_eq!(rows("s-00000.parquet") + &rows("s-00001.parquet"), lines);
    }
}
