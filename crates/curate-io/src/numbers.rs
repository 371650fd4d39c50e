//! Tables of numbers: one row a document, with a few texts and many 64-bit floats.
//!
//! A name that ends in `.parquet` makes a Parquet file: text columns that may be null, then columns of doubles, with
//! the facts of the table in the file's metadata. Any other name makes JSON Lines, compressed as the name says: the
//! first line is `{"number_table":{"texts":[…],"numbers":[…],"facts":{…}}}`, each line after it an object with the
//! columns as members. JSON knows no infinities: what is no finite number is null there, and read as not-a-number.
//!
//! Rows are written and read as a stream; a row group of Parquet is held in memory at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::{Float64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use curate_core::Error;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use sonic_rs::to_object_iter;

use crate::decompress::decompressed_within;
use crate::error::IoError;
use crate::json::append_json_string;
use crate::output::{AtomicFile, Output};
use crate::parquet_output::{SharedFile, failed};

/// The key of a Parquet file's metadata, and of the first line of a JSON file.
const KEY: &str = "number_table";
/// Rows of a row group. With sixty columns one takes 16 MB in memory.
const GROUP_ROWS: usize = 32_768;
/// Rows that are turned into arrays at once.
const BATCH_ROWS: usize = 2048;
const ZSTD_LEVEL: i32 = 3;

/// The columns of a table, and what is to be known of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberLayout {
    pub texts: Vec<String>,
    pub numbers: Vec<String>,
    /// Whatever a reader must know: how the numbers came about, say.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// Writes a table; it appears under its name when it is finished.
pub struct NumberWriter {
    layout: NumberLayout,
    kind: WriterKind,
}

enum WriterKind {
    Lines { output: Box<Output>, line: Vec<u8> },
    Parquet(Box<ParquetWriter>),
}

struct ParquetWriter {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<SharedFile>,
    file: Arc<Mutex<AtomicFile>>,
    texts: Vec<StringBuilder>,
    numbers: Vec<Float64Builder>,
    /// Rows in the builders, and in the open row group.
    pending: usize,
    group: usize,
}

impl NumberWriter {
    /// # Errors
    /// A file that cannot be created.
    pub fn create(path: &Path, layout: NumberLayout) -> curate_core::Result<Self> {
        let is_parquet = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
        let kind = match is_parquet {
            true => WriterKind::Parquet(Box::new(ParquetWriter::create(path, &layout)?)),
            false => {
                let mut output = Output::create(Some(path))?;
                let head = format!("{{\"{KEY}\":{}}}\n", to_json(&layout));
                write_line(&mut output, head.as_bytes())?;
                WriterKind::Lines { output: Box::new(output), line: Vec::new() }
            }
        };
        Ok(Self { layout, kind })
    }

    /// Appends a row, with as many texts and numbers as the layout has columns.
    pub fn write(&mut self, texts: &[Option<&str>], numbers: &[f64]) -> curate_core::Result<()> {
        assert_eq!(
            (texts.len(), numbers.len()),
            (self.layout.texts.len(), self.layout.numbers.len()),
            "a row has a value for each column"
        );
        match &mut self.kind {
            WriterKind::Parquet(table) => table.write(texts, numbers),
            WriterKind::Lines { output, line } => {
                append_row(line, &self.layout, texts, numbers);
                write_line(output, line)
            }
        }
    }

    /// Completes the file.
    pub fn finish(self) -> curate_core::Result<()> {
        match self.kind {
            WriterKind::Parquet(table) => table.finish(),
            WriterKind::Lines { output, .. } => output.finish(),
        }
    }
}

fn write_line(output: &mut Output, line: &[u8]) -> curate_core::Result<()> {
    output.write_all(line).map_err(|e| Error::io(format!("cannot write {}", output.name()), e))
}

fn to_json(layout: &NumberLayout) -> String {
    serde_json::to_string(layout).expect("a layout is plain data")
}

/// Replaces `line` by a row as a JSON line.
fn append_row(line: &mut Vec<u8>, layout: &NumberLayout, texts: &[Option<&str>], numbers: &[f64]) {
    line.clear();
    for (name, text) in layout.texts.iter().zip(texts) {
        append_name(line, name);
        match text {
            Some(text) => append_json_string(line, text),
            None => line.extend_from_slice(b"null"),
        }
    }
    for (name, number) in layout.numbers.iter().zip(numbers) {
        append_name(line, name);
        match number.is_finite() {
            // The shortest digits that stand for this very number.
            true => write!(line, "{number}").expect("writing to a Vec cannot fail"),
            false => line.extend_from_slice(b"null"),
        }
    }
    line.extend_from_slice(b"}\n");
}

fn append_name(line: &mut Vec<u8>, name: &str) {
    line.push(if line.is_empty() { b'{' } else { b',' });
    append_json_string(line, name);
    line.push(b':');
}

impl ParquetWriter {
    fn create(path: &Path, layout: &NumberLayout) -> curate_core::Result<Self> {
        let texts = layout.texts.iter().map(|name| Field::new(name, DataType::Utf8, true));
        let numbers = layout.numbers.iter().map(|name| Field::new(name, DataType::Float64, false));
        let schema = Arc::new(Schema::new(texts.chain(numbers).collect::<Vec<_>>()));
        let file = Arc::new(Mutex::new(AtomicFile::create(path)?));
        let open = || {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
                .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), to_json(layout))]))
                .build();
            let options =
                ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
            ArrowWriter::try_new_with_options(SharedFile(Arc::clone(&file)), Arc::clone(&schema), options)
        };
        let writer = open().map_err(|e| failed(&path.display().to_string(), e))?;
        Ok(Self {
            path: path.to_owned(),
            texts: layout.texts.iter().map(|_| StringBuilder::new()).collect(),
            numbers: layout.numbers.iter().map(|_| Float64Builder::new()).collect(),
            schema,
            writer,
            file,
            pending: 0,
            group: 0,
        })
    }

    fn write(&mut self, texts: &[Option<&str>], numbers: &[f64]) -> curate_core::Result<()> {
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_option(*text));
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.append_value(*number));
        self.pending += 1;
        if self.pending == BATCH_ROWS {
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> curate_core::Result<()> {
        let texts = self.texts.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let numbers = self.numbers.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let columns = texts.chain(numbers).collect();
        let rows =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("one value a row and column");
        self.group += std::mem::take(&mut self.pending);
        let ends_group = self.group >= GROUP_ROWS;
        let mut write = || {
            self.writer.write(&rows)?;
            if ends_group { self.writer.flush() } else { Ok(()) }
        };
        write().map_err(|e| failed(&self.path.display().to_string(), e))?;
        if ends_group {
            self.group = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> curate_core::Result<()> {
        if self.pending > 0 {
            self.drain()?;
        }
        self.writer.finish().map_err(|e| failed(&self.path.display().to_string(), e))?;
        drop(self.writer);
        let file = Arc::into_inner(self.file).expect("the writer held the only other reference");
        Ok(file.into_inner().unwrap_or_else(PoisonError::into_inner).commit()?)
    }
}

/// Reads a table row by row, and of it only the columns that are asked for.
pub struct NumberReader {
    path: PathBuf,
    layout: NumberLayout,
    kind: ReaderKind,
    /// The row that was read last.
    texts: Vec<Option<String>>,
    numbers: Vec<f64>,
    rows: u64,
}

enum ReaderKind {
    Lines { reader: Box<dyn BufRead + Send>, line: String },
    Parquet(Box<ParquetRows>),
}

struct ParquetRows {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    next: usize,
}

impl NumberReader {
    /// Opens a table. `choose` is given its columns and takes out those that are not to be read; columns are then
    /// numbered in the order that is left, which must be that of the file.
    ///
    /// # Errors
    /// What is no such table, and what `choose` says is wrong with it.
    pub fn open(path: &Path, choose: impl FnOnce(&mut NumberLayout)) -> curate_core::Result<Self> {
        let mut file = File::open(path).map_err(|e| IoError::file("open", path, e))?;
        let mut magic = [0; 4];
        let is_parquet = file.read_exact(&mut magic).is_ok() && magic == *b"PAR1";
        io::Seek::rewind(&mut file).map_err(|e| IoError::file("read", path, e))?;
        let (layout, kind) = match is_parquet {
            true => open_parquet(path, file, choose)?,
            false => open_lines(path, file, choose)?,
        };
        let (texts, numbers) = (vec![None; layout.texts.len()], vec![f64::NAN; layout.numbers.len()]);
        Ok(Self { path: path.to_owned(), layout, kind, texts, numbers, rows: 0 })
    }

    /// The columns that are read, and the facts of the table.
    pub fn layout(&self) -> &NumberLayout {
        &self.layout
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the next row; `false` if there is none.
    pub fn advance(&mut self) -> curate_core::Result<bool> {
        let found = match &mut self.kind {
            ReaderKind::Parquet(rows) => rows
                .advance(&mut self.texts, &mut self.numbers)
                .map_err(|message| damaged(&self.path, &message))?,
            ReaderKind::Lines { reader, line } => {
                line.clear();
                let read = reader.read_line(line).map_err(|e| IoError::file("read", &self.path, e))?;
                if read > 0 {
                    let parsed = parse_row(line, &self.layout, &mut self.texts, &mut self.numbers);
                    let place = |fault| format!("row {}: {fault}", self.rows + 1);
                    parsed.map_err(|fault| damaged(&self.path, &place(fault)))?;
                }
                read > 0
            }
        };
        self.rows += u64::from(found);
        Ok(found)
    }

    /// A text of the row that was read last, by the number of its column.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.texts[column].as_deref()
    }

    /// The numbers of the row that was read last.
    pub fn numbers(&self) -> &[f64] {
        &self.numbers
    }
}

fn damaged(path: &Path, message: &str) -> Error {
    Error::io(format!("cannot read {}", path.display()), io::Error::other(message.to_owned()))
}

fn no_table(path: &Path) -> Error {
    damaged(path, "it is no table of numbers: its columns are not described in it")
}

fn open_parquet(
    path: &Path,
    file: File,
    choose: impl FnOnce(&mut NumberLayout),
) -> curate_core::Result<(NumberLayout, ReaderKind)> {
    let failed = |e: ParquetError| damaged(path, &e.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let described = pairs.into_iter().flatten().find(|pair| pair.key == KEY);
    let description = described.and_then(|pair| pair.value.as_deref()).ok_or_else(|| no_table(path))?;
    let mut layout: NumberLayout = serde_json::from_str(description).map_err(|_| no_table(path))?;
    choose(&mut layout);
    let names = layout.texts.iter().chain(&layout.numbers).map(String::as_str);
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
    Ok((layout, ReaderKind::Parquet(Box::new(ParquetRows { batches, batch: None, next: 0 }))))
}

impl ParquetRows {
    fn advance(
        &mut self,
        texts: &mut [Option<String>],
        numbers: &mut [f64],
    ) -> std::result::Result<bool, String> {
        while self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows()) {
            let Some(batch) = self.batches.next() else { return Ok(false) };
            let batch = batch.map_err(|e| e.to_string())?;
            if batch.num_columns() != texts.len() + numbers.len() {
                return Err("its columns are not those that it describes".to_owned());
            }
            self.next = 0;
            self.batch = Some(batch);
        }
        let Some(batch) = &self.batch else { return Ok(false) };
        let (row, odd) = (self.next, || "a column has another type than it describes".to_owned());
        let (text_columns, number_columns) = batch.columns().split_at(texts.len());
        for (value, column) in texts.iter_mut().zip(text_columns) {
            let column: &StringArray = column.as_string_opt().ok_or_else(odd)?;
            *value = column.is_valid(row).then(|| column.value(row).to_owned());
        }
        for (value, column) in numbers.iter_mut().zip(number_columns) {
            let column: &Float64Array = column.as_primitive_opt::<Float64Type>().ok_or_else(odd)?;
            *value = column.value(row);
        }
        self.next += 1;
        Ok(true)
    }
}

fn open_lines(
    path: &Path,
    file: File,
    choose: impl FnOnce(&mut NumberLayout),
) -> curate_core::Result<(NumberLayout, ReaderKind)> {
    #[derive(Deserialize)]
    struct Head {
        number_table: NumberLayout,
    }
    let failed = |e| IoError::file("read", path, e);
    let mut reader =
        BufReader::with_capacity(256 << 10, decompressed_within(Box::new(file), 0).map_err(failed)?);
    // What is no table may be one long line.
    let mut head = Vec::new();
    reader.by_ref().take(16 << 20).read_until(b'\n', &mut head).map_err(failed)?;
    let head: Head = serde_json::from_slice(&head).map_err(|_| no_table(path))?;
    let mut layout = head.number_table;
    choose(&mut layout);
    Ok((layout, ReaderKind::Lines { reader: Box::new(reader), line: String::new() }))
}

/// Reads the columns of a JSON line; says what is wrong with it.
fn parse_row(
    line: &str,
    layout: &NumberLayout,
    texts: &mut [Option<String>],
    numbers: &mut [f64],
) -> std::result::Result<(), String> {
    // Members stand in the order of the columns, so that the next is nearly always the one that is met.
    let (mut text, mut number) = (0, 0);
    for member in to_object_iter(line) {
        let (name, value) =
            member.map_err(|e| e.to_string().lines().next().unwrap_or("no JSON object").to_owned())?;
        let raw = value.as_raw_str();
        let wrong = || format!("`{name}` cannot be {raw}");
        if layout.texts.get(text).is_some_and(|column| *column == name) {
            texts[text] = sonic_rs::from_str(raw).map_err(|_| wrong())?;
            text += 1;
        } else if layout.numbers.get(number).is_some_and(|column| *column == name) {
            let parsed = if raw == "null" { Some(f64::NAN) } else { raw.parse().ok() };
            numbers[number] = parsed.ok_or_else(wrong)?;
            number += 1;
        }
    }
    match (layout.texts.get(text), layout.numbers.get(number)) {
        (None, None) => Ok(()),
        (Some(name), _) | (_, Some(name)) => Err(format!("`{name}` is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> NumberLayout {
        let facts = serde_json::json!({ "recipe": "x", "made": [1, 2] });
        NumberLayout {
            texts: vec!["id".to_owned(), "reason".to_owned()],
            numbers: vec!["words".to_owned(), "ratio".to_owned(), "third".to_owned()],
            facts: facts.as_object().unwrap().clone(),
        }
    }

    /// A row that is easily told from others.
    fn numbers(i: usize) -> [f64; 3] {
        [i as f64, 1.0 / (i + 1) as f64, if i.is_multiple_of(7) { -0.1 } else { 1e300 }]
    }

    fn write(path: &Path, rows: usize) {
        let mut writer = NumberWriter::create(path, layout()).unwrap();
        for i in 0..rows {
            let id = format!("doc \"{i}\" é");
            writer.write(&[Some(&id), (i % 3 == 0).then_some("too_few_words")], &numbers(i)).unwrap();
        }
        assert!(!path.exists(), "it appears when it is complete");
        writer.finish().unwrap();
    }

    #[test]
    fn rows_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.parquet", "a.jsonl", "a.jsonl.zst", "a.jsonl.gz"] {
            for rows in [0, 1, BATCH_ROWS, GROUP_ROWS + 5] {
                let path = dir.path().join(name);
                write(&path, rows);
                let mut reader = NumberReader::open(&path, |_| ()).unwrap();
                assert_eq!(reader.layout(), &layout());
                for i in 0..rows {
                    assert!(reader.advance().unwrap());
                    assert_eq!(reader.text(0), Some(&*format!("doc \"{i}\" é")));
                    assert_eq!(reader.text(1), (i % 3 == 0).then_some("too_few_words"));
                    assert_eq!(reader.numbers(), numbers(i), "{name} {i}");
                }
                assert!(!reader.advance().unwrap());
                assert_eq!(reader.rows(), rows as u64);
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn only_chosen_columns_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.parquet", "a.jsonl"] {
            let path = dir.path().join(name);
            write(&path, 3);
            let mut reader = NumberReader::open(&path, |layout| {
                layout.texts.truncate(1);
                layout.numbers.retain(|name| name != "ratio");
            })
            .unwrap();
            assert!(reader.advance().unwrap() && reader.advance().unwrap());
            assert_eq!((reader.text(0), reader.numbers()), (Some("doc \"1\" é"), [1.0, 1e300].as_slice()));
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = dir.path().join(name);
            crate::write_atomically(&path, bytes).unwrap();
            let open = NumberReader::open(&path, |_| ()).and_then(|mut reader| reader.advance());
            let error = open.unwrap_err();
            let cause = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            assert!(format!("{error}: {cause}").contains(expected), "{error}: {cause}");
        };
        check("a.jsonl", b"{\"id\":\"a\"}\n", "no table of numbers");
        check("b.parquet", b"PAR1 cut", "cannot read");
        check("c.jsonl", b"", "no table of numbers");
        let mut head = format!("{{\"{KEY}\":{}}}\n", to_json(&layout()));
        head += "{\"id\":\"a\",\"reason\":null,\"words\":1}\n";
        check("d.jsonl", head.as_bytes(), "row 1: `ratio` is missing");
        check("e.jsonl", head.replace(":1}", ":\"x\"}").as_bytes(), "`words` cannot be \"x\"");
    }

    #[test]
    fn what_is_not_finite_survives_in_parquet() {
        let dir = tempfile::tempdir().unwrap();
        let odd = [f64::INFINITY, f64::NAN, -0.0];
        for (name, expected) in [("a.parquet", odd), ("a.jsonl", [f64::NAN, f64::NAN, -0.0])] {
            let path = dir.path().join(name);
            let mut writer = NumberWriter::create(&path, layout()).unwrap();
            writer.write(&[None, None], &odd).unwrap();
            writer.finish().unwrap();
            let mut reader = NumberReader::open(&path, |_| ()).unwrap();
            assert!(reader.advance().unwrap());
            let same = |(a, b): (&f64, f64)| a.total_cmp(&b).is_eq() || a.is_nan() && b.is_nan();
            assert!(reader.numbers().iter().zip(expected).all(same), "{:?}", reader.numbers());
        }
    }
}
