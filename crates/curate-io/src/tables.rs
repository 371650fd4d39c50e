//! Tables as records: the rows of Parquet, Arrow IPC, CSV and TSV become JSON lines.
//!
//! A thread of its own decodes a table in small pieces and hands them on as JSON, so that one codec serves all
//! formats. A row is one object with the columns in the order of the schema. What has no value is left out: nulls,
//! and numbers that JSON does not know (infinities, not-a-number). The forms of the other values:
//!
//! | column | JSON |
//! |---|---|
//! | text, whole number, float, boolean | as such; decimals as numbers |
//! | JSON (logical type of Parquet, `arrow.json` of Arrow) | the value itself; as a string if it is none |
//! | timestamp | `"2024-05-01T12:00:00.5"`, with `Z` if the column has a time zone: times are given in UTC |
//! | date, time, duration | `"2024-05-01"`, `"12:00:00"`, `"PT3S"` |
//! | binary | standard base64 with padding |
//! | list, struct, map | array, object, object |
//! | field of CSV and TSV | a string, also an empty one |
//!
//! A column whose name has appeared already is called `name_2`, a field without a name `column_N`. Offsets in
//! messages count the bytes of the rows as JSON, but for rows of CSV and TSV with a wrong number of fields, which
//! are named by their place in the input.

use std::any::Any;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use arrow_array::cast::AsArray;
use arrow_array::temporal_conversions::as_datetime;
use arrow_array::types::{
    ArrowTemporalType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{
    Array, ArrowPrimitiveType, BooleanArray, LargeStringArray, PrimitiveArray, RecordBatch, StringArray,
    StringViewArray,
};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_ipc::reader::StreamDecoder;
use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, TimeUnit};
use curate_core::{Block, Error, Malformed};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::LogicalType;
use sonic_rs::LazyValue;

use crate::format::Format;
use crate::input::InputOptions;
use crate::json::append_json_string;
use crate::parquet_output::{EXTRA, EXTRA_KEY};
use crate::reader::{RecordReader, read_error};

/// Pieces that the decoding thread may be ahead of the reader.
const CHUNKS_AHEAD: usize = 2;
/// Bytes of Parquet rows (uncompressed) that are decoded at once, by the average of their row group.
const BATCH_BYTES: i64 = 2 << 20;
const MAX_BATCH_ROWS: i64 = 1024;
const READ_BYTES: usize = 256 << 10;
/// Records of a piece, however short they are.
const CHUNK_RECORDS: usize = 1 << 16;
/// The first bytes of an Arrow IPC file: the magic and padding. What follows is an Arrow IPC stream.
const ARROW_FILE_HEAD: [u8; 8] = *b"ARROW1\0\0";
const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Reads the rows of one table; `fill` takes over what the decoding thread has ready.
pub(crate) struct TableReader {
    name: Arc<str>,
    state: State,
    /// Bytes of JSON handed out.
    offset: u64,
    /// Rows handed out.
    rows: u64,
}

enum State {
    /// Nothing has been asked for yet.
    Closed(Table),
    Decoding(Receiver<Result<Chunk, Error>>),
    Ended,
}

/// A table that is not being read yet.
enum Table {
    Parquet(File),
    Arrow(Box<dyn Read + Send>),
    Separated(Box<dyn Read + Send>, u8),
}

/// Rows as JSON lines.
#[derive(Default)]
struct Chunk {
    data: Vec<u8>,
    records: Vec<(usize, usize)>,
    damage: Vec<Malformed>,
}

impl TableReader {
    fn new(name: Arc<str>, table: Table) -> Self {
        Self { name, state: State::Closed(table), offset: 0, rows: 0 }
    }

    /// Reads a Parquet file row group by row group.
    pub(crate) fn parquet(name: Arc<str>, file: File) -> Self {
        Self::new(name, Table::Parquet(file))
    }

    /// Reads an Arrow IPC file or stream from its beginning on, holding one record batch in memory.
    pub(crate) fn arrow(name: Arc<str>, reader: Box<dyn Read + Send>) -> Self {
        Self::new(name, Table::Arrow(reader))
    }

    /// Reads rows of fields that `delimiter` separates, the first of which names them. Fields may be quoted.
    pub(crate) fn separated(name: Arc<str>, reader: Box<dyn Read + Send>, delimiter: u8) -> Self {
        Self::new(name, Table::Separated(reader, delimiter))
    }

    /// Starts the decoding thread.
    fn start(name: Arc<str>, table: Table, options: &InputOptions) -> Receiver<Result<Chunk, Error>> {
        let (send, chunks) = sync_channel(CHUNKS_AHEAD);
        let mut rows = Rows {
            name,
            send,
            chunk: Chunk::default(),
            done: 0,
            chunk_bytes: options.block_bytes,
            max_record_bytes: options.max_record_bytes,
        };
        thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| match table {
                Table::Parquet(file) => parquet_rows(&file, &mut rows),
                Table::Arrow(reader) => arrow_rows(reader, &mut rows),
                Table::Separated(reader, delimiter) => separated_rows(reader, delimiter, &mut rows),
            }));
            let outcome = outcome.unwrap_or_else(|panic| Err(Stop::damaged(panic_message(&*panic))));
            rows.finish(outcome);
        });
        chunks
    }
}

impl RecordReader for TableReader {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        block.offset = self.offset;
        block.first_record = self.rows;
        block.format = Format::JsonLines.tag();
        if let State::Closed(_) = self.state {
            let State::Closed(table) = std::mem::replace(&mut self.state, State::Ended) else {
                unreachable!("just seen")
            };
            self.state = State::Decoding(Self::start(Arc::clone(&self.name), table, options));
        }
        let State::Decoding(chunks) = &self.state else { return Ok(false) };
        // A closed channel is the end: after an error nothing more is sent either.
        match chunks.recv() {
            Ok(Ok(chunk)) => {
                self.offset += chunk.data.len() as u64;
                self.rows += chunk.records.len() as u64;
                (block.data, block.records, block.damage) = (chunk.data, chunk.records, chunk.damage);
                Ok(true)
            }
            Ok(Err(error)) => {
                self.state = State::Ended;
                Err(error)
            }
            Err(_) => {
                self.state = State::Ended;
                Ok(false)
            }
        }
    }
}

/// The file at `path` if its first bytes are `magic`, else the bytes of `reader` in a nameless temporary file:
/// some formats are read from their end.
pub(crate) fn seekable(path: Option<&Path>, magic: &[u8], reader: impl Read) -> io::Result<File> {
    if let Some(path) = path
        && path.is_file()
    {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        (&file).take(magic.len() as u64).read_to_end(&mut head)?;
        if head == magic {
            file.rewind()?;
            return Ok(file);
        }
    }
    spooled(reader)
}

/// All that `reader` gives, in a temporary file that has no name and goes when it is closed.
pub(crate) fn spooled(mut reader: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut reader, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Why decoding ends early.
enum Stop {
    /// Nobody takes the rows any more.
    Unwanted,
    Failed(io::Error),
}

impl Stop {
    fn damaged(message: impl Into<String>) -> Self {
        Self::Failed(io::Error::new(io::ErrorKind::InvalidData, message.into()))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ArrowError> for Stop {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => Self::Failed(error),
            other => Self::damaged(other.to_string()),
        }
    }
}

impl From<parquet::errors::ParquetError> for Stop {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::damaged(error.to_string())
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    format!("the decoder gave up: {}", message.unwrap_or("no message"))
}

/// Gathers rows into chunks and hands them on.
struct Rows {
    name: Arc<str>,
    send: SyncSender<Result<Chunk, Error>>,
    chunk: Chunk,
    /// Rows before those of the chunk.
    done: u64,
    chunk_bytes: usize,
    max_record_bytes: usize,
}

impl Rows {
    /// Adds the row that `encode` writes, without its line end.
    fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Stop> {
        let start = self.chunk.data.len();
        encode(&mut self.chunk.data);
        let length = self.chunk.data.len() - start;
        if length > self.max_record_bytes {
            self.chunk.data.truncate(start);
            let (row, limit) = (self.row(), self.max_record_bytes);
            let message = format!(
                "a row of {length} bytes is longer than {limit} and left out; --max-record-bytes raises the limit"
            );
            return self.bad_row(row, 0, message);
        }
        self.end_row(start)
    }

    /// The number of the row that comes next, from 1.
    fn row(&self) -> u64 {
        self.done + self.chunk.records.len() as u64 + 1
    }

    /// Notes a row that cannot be read. A blank record takes its place, so that the others keep their numbers.
    fn bad_row(&mut self, line: u64, offset: u64, message: String) -> Result<(), Stop> {
        self.chunk.damage.push(Malformed { file: self.name.to_string(), line, offset, message });
        self.end_row(self.chunk.data.len())
    }

    fn end_row(&mut self, start: usize) -> Result<(), Stop> {
        let chunk = &mut self.chunk;
        chunk.records.push((start, chunk.data.len()));
        chunk.data.push(b'\n');
        if chunk.data.len() >= self.chunk_bytes || chunk.records.len() >= CHUNK_RECORDS {
            return self.hand_on();
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), Stop> {
        let next = Chunk { data: Vec::with_capacity(self.chunk.data.len()), ..Chunk::default() };
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.done += chunk.records.len() as u64;
        self.send.send(Ok(chunk)).map_err(|_| Stop::Unwanted)
    }

    /// Hands on the last rows, and after them what went wrong.
    fn finish(mut self, outcome: Result<(), Stop>) {
        // A row that a panic has torn is not among the records.
        let whole = self.chunk.records.last().map_or(0, |(_, end)| end + 1);
        self.chunk.data.truncate(whole);
        if !self.chunk.records.is_empty() && self.hand_on().is_err() {
            return;
        }
        if let Err(Stop::Failed(error)) = outcome {
            // Nobody may be there to hear it.
            let _ = self.send.send(Err(read_error(&self.name, error)));
        }
    }
}

fn parquet_rows(file: &File, rows: &mut Rows) -> Result<(), Stop> {
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(|error| {
        let length = file.metadata().map_or(0, |m| m.len());
        Stop::damaged(format!(
            "expected a Parquet file, whose description is at its end; found none in its {length} bytes ({error}). It \
             may have been cut short: fetch it again"
        ))
    })?;
    let table = TableSchema::of_parquet(&metadata);
    for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
        let row_bytes = group.total_byte_size() / group.num_rows().max(1);
        let batch_rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, MAX_BATCH_ROWS);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.try_clone()?, metadata.clone())
            .with_row_groups(vec![number])
            .with_batch_size(usize::try_from(batch_rows).expect("at most a thousand"))
            .build()?;
        for batch in reader {
            table.encode(&batch?, rows)?;
        }
    }
    Ok(())
}

fn arrow_rows(mut reader: Box<dyn Read + Send>, rows: &mut Rows) -> Result<(), Stop> {
    let mut head = Vec::new();
    reader.by_ref().take(ARROW_FILE_HEAD.len() as u64).read_to_end(&mut head)?;
    let is_file = head == ARROW_FILE_HEAD;
    let mut buffer = Buffer::from_vec(if is_file { Vec::new() } else { head });
    let mut decoder = StreamDecoder::new();
    let mut table = None;
    loop {
        while !buffer.is_empty() {
            match decoder.decode(&mut buffer) {
                Ok(Some(batch)) => {
                    let table = table.get_or_insert_with(|| TableSchema::of_arrow(batch.schema_ref()));
                    table.encode(&batch, rows)?;
                }
                Ok(None) => {}
                // Bytes after the end mark: the footer of a file, which repeats what was read, or one more stream.
                Err(_) if decoder.finish().is_ok() => {
                    if is_file {
                        return Ok(());
                    }
                    (decoder, table) = (StreamDecoder::new(), None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut bytes = Vec::with_capacity(READ_BYTES);
        if reader.by_ref().take(READ_BYTES as u64).read_to_end(&mut bytes)? == 0 {
            break;
        }
        buffer = Buffer::from_vec(bytes);
    }
    decoder.finish().map_err(|_| Stop::damaged("expected the rest of a record batch, found the end of the input"))
}

/// What the columns of a table are, beyond their types.
struct TableSchema {
    fields: Vec<FieldRef>,
    /// `"name":` of each column.
    names: Vec<Vec<u8>>,
    roles: Vec<Role>,
    options: EncoderOptions,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Value,
    /// Text that is JSON.
    Json,
    /// A JSON object whose members belong to the row.
    Extra,
}

impl TableSchema {
    fn of_arrow(schema: &Schema) -> Self {
        let is_json: Vec<bool> = schema.fields().iter().map(|field| is_json(field)).collect();
        let extra = schema.metadata().get(EXTRA_KEY).is_some();
        Self::new(schema, &is_json, extra)
    }

    fn of_parquet(metadata: &ArrowReaderMetadata) -> Self {
        let schema = metadata.schema();
        let columns = metadata.parquet_schema().root_schema().get_fields();
        let is_json: Vec<bool> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let logical = columns.get(i).and_then(|column| column.get_basic_info().logical_type_ref());
                matches!(logical, Some(LogicalType::Json)) || is_json(field)
            })
            .collect();
        let pairs = metadata.metadata().file_metadata().key_value_metadata();
        let extra = pairs.is_some_and(|pairs| pairs.iter().any(|pair| pair.key == EXTRA_KEY));
        Self::new(schema, &is_json, extra)
    }

    fn new(schema: &Schema, is_json: &[bool], extra: bool) -> Self {
        let fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        let names = unique_names(fields.iter().map(|field| field.name().clone()));
        let roles = fields.iter().zip(is_json).map(|(field, is_json)| match is_json {
            true if extra && field.name() == EXTRA => Role::Extra,
            true => Role::Json,
            false => Role::Value,
        });
        Self {
            roles: roles.collect(),
            names: names.iter().map(|name| member_name(name)).collect(),
            fields,
            options: EncoderOptions::default().with_encoder_factory(Arc::new(Forms)),
        }
    }

    /// Adds the rows of `batch`.
    fn encode(&self, batch: &RecordBatch, rows: &mut Rows) -> Result<(), Stop> {
        let mut columns = (0..self.fields.len())
            .map(|i| {
                let array = batch.column(i).as_ref();
                Ok(Column {
                    name: &self.names[i],
                    nulls: array.logical_nulls(),
                    values: Values::of(&self.fields[i], array, self.roles[i], &self.options)?,
                })
            })
            .collect::<Result<Vec<_>, Stop>>()?;
        for row in 0..batch.num_rows() {
            rows.add(|out| {
                out.push(b'{');
                let start = out.len();
                for column in &mut columns {
                    column.encode(row, start, out);
                }
                out.push(b'}');
            })?;
        }
        Ok(())
    }
}

/// Whether the field is of Arrow's extension type for JSON.
fn is_json(field: &Field) -> bool {
    field.extension_type_name() == Some("arrow.json")
}

fn member_name(name: &str) -> Vec<u8> {
    let mut member = Vec::new();
    append_json_string(&mut member, name);
    member.push(b':');
    member
}

/// Names as they are, but the second `x` becomes `x_2`.
fn unique_names(names: impl Iterator<Item = String>) -> Vec<String> {
    let names: Vec<String> = names.collect();
    let given: HashSet<&String> = names.iter().collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut times: HashMap<&String, u64> = HashMap::new();
    let mut unique = Vec::with_capacity(names.len());
    for name in &names {
        let times = times.entry(name).or_insert(0);
        let mut chosen = name.clone();
        loop {
            *times += 1;
            if *times > 1 {
                chosen = format!("{name}_{times}");
            }
            if (*times == 1 || !given.contains(&chosen)) && !taken.contains(&chosen) {
                break;
            }
        }
        taken.insert(chosen.clone());
        unique.push(chosen);
    }
    unique
}

/// A column of a batch.
struct Column<'a> {
    name: &'a [u8],
    nulls: Option<NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Text(Strings<'a>),
    Json(Strings<'a>),
    Extra(Strings<'a>),
    Boolean(&'a BooleanArray),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Other(NullableEncoder<'a>),
}

/// The layouts of strings.
#[derive(Clone, Copy)]
enum Strings<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

impl<'a> Strings<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::Utf8 => Some(Self::Small(array.as_string())),
            DataType::LargeUtf8 => Some(Self::Large(array.as_string())),
            DataType::Utf8View => Some(Self::View(array.as_string_view())),
            _ => None,
        }
    }

    fn value(&self, row: usize) -> &'a str {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
        }
    }
}

impl<'a> Values<'a> {
    fn of(
        field: &'a FieldRef,
        array: &'a dyn Array,
        role: Role,
        options: &'a EncoderOptions,
    ) -> Result<Self, Stop> {
        if let Some(strings) = Strings::of(array) {
            return Ok(match role {
                Role::Value => Self::Text(strings),
                Role::Json => Self::Json(strings),
                Role::Extra => Self::Extra(strings),
            });
        }
        Ok(match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive()),
            DataType::Int64 => Self::Int64(array.as_primitive()),
            DataType::Float32 => Self::Float32(array.as_primitive()),
            DataType::Float64 => Self::Float64(array.as_primitive()),
            other => Self::Other(make_encoder(field, array, options).map_err(|error| {
                Stop::damaged(format!("column {:?} of type {other} has no JSON form: {error}", field.name()))
            })?),
        })
    }
}

impl Column<'_> {
    /// Appends the member for `row` to the object whose members start at `start`, if there is a value.
    fn encode(&mut self, row: usize, start: usize, out: &mut Vec<u8>) {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return;
        }
        let finite = match &self.values {
            Values::Float32(array) => array.value(row).is_finite(),
            Values::Float64(array) => array.value(row).is_finite(),
            _ => true,
        };
        if !finite {
            return;
        }
        if let Values::Extra(strings) = &self.values
            && let Some(members) = members_of(strings.value(row))
        {
            return if !members.is_empty() {
                separate(start, out);
                append_on_one_line(out, members);
            };
        }
        separate(start, out);
        out.extend_from_slice(self.name);
        match &mut self.values {
            Values::Text(strings) => append_json_string(out, strings.value(row)),
            Values::Json(strings) | Values::Extra(strings) => append_json(out, strings.value(row)),
            Values::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Int32(array) => write!(out, "{}", array.value(row)).expect("memory takes all bytes"),
            Values::Int64(array) => write!(out, "{}", array.value(row)).expect("memory takes all bytes"),
            // The shortest decimal that is read back alike, always with a point or an exponent.
            Values::Float32(array) => serde_json::to_writer(out, &array.value(row)).expect("it is finite"),
            Values::Float64(array) => serde_json::to_writer(out, &array.value(row)).expect("it is finite"),
            Values::Other(encoder) => encoder.encode(row, out),
        }
    }
}

fn separate(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
}

/// Appends text that should be JSON: as it is, or as a string if it is not JSON.
fn append_json(out: &mut Vec<u8>, text: &str) {
    match is_valid_json(text) {
        true => append_on_one_line(out, text.trim_ascii()),
        false => append_json_string(out, text),
    }
}

fn is_valid_json(text: &str) -> bool {
    sonic_rs::from_str::<LazyValue<'_>>(text).is_ok()
}

/// The members of a JSON object, without its braces.
fn members_of(text: &str) -> Option<&str> {
    let inner = text.trim_ascii().strip_prefix('{')?.strip_suffix('}')?;
    is_valid_json(text).then(|| inner.trim_ascii())
}

/// Valid JSON has line ends only where it may have spaces.
fn append_on_one_line(out: &mut Vec<u8>, json: &str) {
    let start = out.len();
    out.extend_from_slice(json.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// The forms of values that `arrow_json` would write otherwise: binary, timestamps, JSON within lists and structs.
#[derive(Debug)]
struct Forms;

impl EncoderFactory for Forms {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Binary => Box::new(Bytes(move |row| array.as_binary::<i32>().value(row))),
            DataType::LargeBinary => Box::new(Bytes(move |row| array.as_binary::<i64>().value(row))),
            DataType::BinaryView => Box::new(Bytes(move |row| array.as_binary_view().value(row))),
            DataType::FixedSizeBinary(_) => Box::new(Bytes(move |row| array.as_fixed_size_binary().value(row))),
            DataType::Timestamp(unit, zone) => {
                let zone = zone.is_some();
                match unit {
                    TimeUnit::Second => timestamps::<TimestampSecondType>(array, zone),
                    TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(array, zone),
                    TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(array, zone),
                    TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(array, zone),
                }
            }
            _ => match Strings::of(array) {
                Some(strings) if is_json(field) => Box::new(JsonTexts(strings)),
                _ => return Ok(None),
            },
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct JsonTexts<'a>(Strings<'a>);

impl Encoder for JsonTexts<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        append_json(out, self.0.value(row));
    }
}

/// Binary values, by their row.
struct Bytes<F>(F);

impl<'a, F: Fn(usize) -> &'a [u8]> Encoder for Bytes<F> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        append_base64(out, (self.0)(row));
        out.push(b'"');
    }
}

/// RFC 4648, section 4.
fn append_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit } else { b'=' });
        }
    }
}

struct Timestamps<'a, T: ArrowPrimitiveType> {
    array: &'a PrimitiveArray<T>,
    zone: bool,
}

fn timestamps<'a, T>(array: &'a dyn Array, zone: bool) -> Box<dyn Encoder + 'a>
where
    T: ArrowTemporalType + ArrowPrimitiveType<Native = i64>,
{
    Box::new(Timestamps { array: array.as_primitive::<T>(), zone })
}

impl<T: ArrowTemporalType + ArrowPrimitiveType<Native = i64>> Encoder for Timestamps<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match as_datetime::<T>(self.array.value(row)) {
            Some(time) => {
                let zone = if self.zone { "Z" } else { "" };
                write!(out, "\"{time:?}{zone}\"").expect("memory takes all bytes");
            }
            // Beyond the years that the calendar knows.
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// Ends a reader when a record grows beyond the limit, which an open quote does.
struct Limited<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.get().checked_sub(n) {
            Some(left) => self.left.set(left),
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a row is longer than --max-record-bytes allows; perhaps a quote is not closed",
                ));
            }
        }
        Ok(n)
    }
}

fn separated_rows(mut reader: Box<dyn Read + Send>, delimiter: u8, rows: &mut Rows) -> Result<(), Stop> {
    let mut head = Vec::new();
    reader.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut head)?;
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Stop::damaged("expected UTF-8, found UTF-16: convert it, as with iconv -f UTF-16 -t UTF-8"));
    }
    let skipped = if head == BYTE_ORDER_MARK { BYTE_ORDER_MARK.len() } else { 0 };
    let whole = io::Cursor::new(head[skipped..].to_vec()).chain(reader);
    // The reader is ahead of the record by at most its buffer.
    let allowance = rows.max_record_bytes.saturating_add(2 * READ_BYTES);
    let left = Rc::new(Cell::new(allowance));
    let limited = Limited { inner: BufReader::with_capacity(READ_BYTES, whole), left: Rc::clone(&left) };
    let mut table = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .buffer_capacity(READ_BYTES)
        .from_reader(limited);
    let header = table.byte_headers().map_err(separated_error)?.clone();
    let given = header.iter().enumerate().map(|(i, name)| match name {
        b"" => format!("column_{}", i + 1),
        name => String::from_utf8_lossy(name).into_owned(),
    });
    let names: Vec<Vec<u8>> = unique_names(given).iter().map(|name| member_name(name)).collect();
    let mut record = csv::ByteRecord::new();
    loop {
        left.set(allowance);
        if !table.read_byte_record(&mut record).map_err(separated_error)? {
            return Ok(());
        }
        match string_fields(&record, &names) {
            Ok(fields) => rows.add(|out| {
                for (i, (name, field)) in names.iter().zip(fields.iter()).enumerate() {
                    out.push(if i == 0 { b'{' } else { b',' });
                    out.extend_from_slice(name);
                    append_json_string(out, field);
                }
                out.push(b'}');
            })?,
            Err(message) => {
                let (line, byte) = record.position().map_or((rows.row(), 0), |at| (at.line(), at.byte()));
                rows.bad_row(line, byte + skipped as u64, message)?;
            }
        }
    }
}

fn separated_error(error: csv::Error) -> Stop {
    let message = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Stop::Failed(error),
        _ => Stop::damaged(message),
    }
}

/// The fields of a row as strings, or what is wrong with it.
fn string_fields<'r>(record: &'r csv::ByteRecord, names: &[Vec<u8>]) -> Result<Vec<&'r str>, String> {
    if record.len() != names.len() {
        return Err(format!(
            "expected {} fields as in the header, found {}; the row is left out",
            names.len(),
            record.len()
        ));
    }
    let text = |(field, name): (&'r [u8], &Vec<u8>)| {
        let name = String::from_utf8_lossy(&name[..name.len() - 1]);
        std::str::from_utf8(field).map_err(|_| format!("expected UTF-8 in field {name}; the row is left out"))
    };
    record.iter().zip(names).map(text).collect()
}
