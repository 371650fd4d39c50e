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
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
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
/// The first word of an Arrow IPC file: the magic and padding. What follows is an Arrow IPC stream.
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
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
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
    let mut word = || {
        let mut word = Vec::new();
        reader.by_ref().take(ARROW_FILE_HEAD.len() as u64).read_to_end(&mut word).map(|_| word)
    };
    let mut head = word()?;
    let is_file = head == ARROW_FILE_HEAD;
    if is_file {
        head = word()?;
        // Some writers align the stream to more than a word.
        while head == [0; ARROW_FILE_HEAD.len()] {
            head = word()?;
        }
    }
    let mut buffer = Buffer::from_vec(head);
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
    decoder
        .finish()
        .map_err(|_| Stop::damaged("expected the rest of a record batch, found the end of the input"))
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
            Values::Boolean(array) => {
                out.extend_from_slice(if array.value(row) { b"true" } else { b"false" })
            }
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
            DataType::FixedSizeBinary(_) => {
                Box::new(Bytes(move |row| array.as_fixed_size_binary().value(row)))
            }
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
        return Err(Stop::damaged(
            "expected UTF-8, found UTF-16: convert it, as with iconv -f UTF-16 -t UTF-8",
        ));
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{BinaryBuilder, ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::types::Int32Type;
    use arrow_array::{
        ArrayRef, Date32Array, DictionaryArray, Float64Array, Int64Array, NullArray, StructArray,
        TimestampMillisecondArray, UInt8Array,
    };
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use parquet::arrow::ArrowWriter;
    use proptest::prelude::*;

    use super::*;

    /// What a reader gives: its records, its damage and the error that it ends with.
    #[derive(Debug, PartialEq, Default)]
    pub(crate) struct Found {
        pub(crate) rows: Vec<String>,
        pub(crate) damage: Vec<Malformed>,
        pub(crate) error: Option<String>,
    }

    pub(crate) fn read_all(mut reader: TableReader, options: &InputOptions) -> Found {
        let mut found = Found::default();
        let mut block = Block::default();
        let mut offset = 0;
        loop {
            block.clear();
            match reader.fill(&mut block, options) {
                Ok(true) => {}
                Ok(false) => return found,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    found.error = Some(format!("{error}: {}", cause.unwrap_or_default()));
                    assert!(!reader.fill(&mut block, options).unwrap(), "an error is the end");
                    return found;
                }
            }
            assert_eq!(block.first_record, found.rows.len() as u64);
            assert_eq!(block.offset, offset);
            offset += block.data.len() as u64;
            for i in 0..block.records.len() {
                let end = block.records[i].1;
                assert_eq!(block.data[end], b'\n', "untouched rows leave in one piece");
                found.rows.push(String::from_utf8(block.record(i).bytes.to_vec()).unwrap());
            }
            found.damage.append(&mut block.damage);
        }
    }

    fn small_blocks(block_bytes: usize) -> InputOptions {
        InputOptions { block_bytes, max_record_bytes: 1 << 20, ..InputOptions::default() }
    }

    fn file_of(bytes: &[u8]) -> File {
        spooled(bytes).unwrap()
    }

    pub(crate) fn parquet_found(bytes: &[u8]) -> Found {
        read_all(TableReader::parquet("t.parquet".into(), file_of(bytes)), &small_blocks(100))
    }

    fn arrow_found(bytes: &[u8]) -> Found {
        let reader = Box::new(io::Cursor::new(bytes.to_vec()));
        read_all(TableReader::arrow("t.arrow".into(), reader), &small_blocks(100))
    }

    fn separated(bytes: &[u8], delimiter: u8, block_bytes: usize) -> Found {
        let reader = Box::new(io::Cursor::new(bytes.to_vec()));
        let options = InputOptions { max_record_bytes: 1000, ..small_blocks(block_bytes) };
        read_all(TableReader::separated("t.csv".into(), reader, delimiter), &options)
    }

    #[test]
    fn rows_of_fields_become_objects() {
        let check = |bytes: &[u8], expected: &[&str]| {
            for block_bytes in [1, 30, 1 << 20] {
                let found = separated(bytes, b',', block_bytes);
                assert_eq!((found.error, found.damage), (None, vec![]));
                assert_eq!(found.rows, expected, "{:?}", String::from_utf8_lossy(bytes));
            }
        };
        check(b"", &[]);
        check(b"text,id\n", &[]);
        check(b"text\na", &[r#"{"text":"a"}"#]);
        check(b"id,text\r\n1,a\r\n\r\n2,\r\n", &[r#"{"id":"1","text":"a"}"#, r#"{"id":"2","text":""}"#]);
        check(b"\xef\xbb\xbfid,text\n1,\"a,\n\"\"b\"\"\"\n", &[r#"{"id":"1","text":"a,\n\"b\""}"#]);
        check(
            "\u{442},a\u{0}\n\u{4e2d},\u{1}".as_bytes(),
            &["{\"\u{442}\":\"\u{4e2d}\",\"a\\u0000\":\"\\u0001\"}"],
        );
        check(b"a,a,,a_2,a\n1,2,3,4,5\n", &[r#"{"a":"1","a_3":"2","column_3":"3","a_2":"4","a_4":"5"}"#]);
        let found = separated(b"id\ttext\n1\t\"a\tb\"\n2\tc,d\n", b'\t', 10);
        assert_eq!(found.rows, [r#"{"id":"1","text":"a\tb"}"#, r#"{"id":"2","text":"c,d"}"#]);
    }

    #[test]
    fn rows_with_a_wrong_number_of_fields_are_named_and_the_rest_is_read() {
        let found = separated(b"id,text\n1,a\n2\n3,\"b\nc\"\n4,d,e\n5,\xff\n6,g\n", b',', 30);
        let six = r#"{"id":"6","text":"g"}"#;
        assert_eq!(found.error, None);
        assert_eq!(found.rows, [r#"{"id":"1","text":"a"}"#, "", r#"{"id":"3","text":"b\nc"}"#, "", "", six]);
        let places: Vec<_> = found.damage.iter().map(|m| (m.line, m.offset)).collect();
        assert_eq!(places, [(3, 12), (6, 22), (7, 28)]);
        assert_eq!(
            found.damage[0].to_string(),
            "t.csv:3 (byte 12): expected 2 fields as in the header, found 1; the row is left out"
        );
        assert!(found.damage[2].message.contains("expected UTF-8 in field \"text\""), "{}", found.damage[2]);
    }

    #[test]
    fn an_open_quote_does_not_fill_the_memory() {
        let mut bytes = b"id,text\n1,a\n2,\"".to_vec();
        bytes.resize(4 << 20, b'x');
        let found = separated(&bytes, b',', 30);
        assert_eq!(found.rows, [r#"{"id":"1","text":"a"}"#]);
        assert!(found.error.unwrap().contains("perhaps a quote is not closed"));
        let mut long = b"id,text\n1,".to_vec();
        long.resize(3000, b'x');
        long.extend_from_slice(b"\n2,b\n");
        let found = separated(&long, b',', 30);
        assert_eq!(found.rows, ["", r#"{"id":"2","text":"b"}"#]);
        assert!(found.damage[0].message.contains("longer than 1000"), "{}", found.damage[0]);
        let utf16: Vec<u8> = "\u{feff}a,b\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(separated(&utf16, b',', 30).error.unwrap().contains("UTF-16"));
    }

    /// A batch with a column of every kind, and its rows.
    fn every_kind() -> (RecordBatch, Vec<&'static str>) {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("x"), None]);
        lists.append_null();
        lists.append_value::<[Option<&str>; 0], _>([]);
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        maps.keys().append_value("k");
        maps.values().append_value("v\n");
        for valid in [true, false, true] {
            maps.append(valid).unwrap();
        }
        let mut binary = BinaryBuilder::new();
        for bytes in [b"\x00\xff".as_slice(), b"", b"abc"] {
            binary.append_value(bytes);
        }
        let json = Field::new("j", DataType::Utf8, true)
            .with_metadata([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]);
        let inner: ArrayRef = Arc::new(StringArray::from(vec!["{}", "[", "1"]));
        let structs = StructArray::from(vec![(Arc::new(json.clone().with_name("in")), inner)]);
        let strings = vec![Some("a\"\u{e9}"), None, Some("")];
        let times = TimestampMillisecondArray::from(vec![Some(500), None, Some(i64::MAX)]);
        let columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("s", DataType::Utf8, true), Arc::new(StringArray::from(strings.clone()))),
            (Field::new("l", DataType::LargeUtf8, true), Arc::new(LargeStringArray::from(strings.clone()))),
            (Field::new("v", DataType::Utf8View, true), Arc::new(StringViewArray::from(strings))),
            (
                Field::new("i", DataType::Int64, true),
                Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0)])),
            ),
            (Field::new("u", DataType::UInt8, true), Arc::new(UInt8Array::from(vec![255, 0, 1]))),
            (
                Field::new("f", DataType::Float64, true),
                Arc::new(Float64Array::from(vec![1.0, f64::NAN, 1e-7])),
            ),
            (Field::new("b", DataType::Boolean, true), Arc::new(BooleanArray::from(vec![true, false, true]))),
            (Field::new("n", DataType::Null, true), Arc::new(NullArray::new(3))),
            (
                Field::new("d", DataType::Date32, true),
                Arc::new(Date32Array::from(vec![Some(0), None, Some(19_000)])),
            ),
            (Field::new("t", times.data_type().clone(), true), Arc::new(times.clone())),
            (
                Field::new(
                    "z",
                    DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Paris".into())),
                    true,
                ),
                Arc::new(times.with_timezone("Europe/Paris")),
            ),
            (
                Field::new(
                    "c",
                    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
                    true,
                ),
                Arc::new(
                    vec![Some("p"), None, Some("p")].into_iter().collect::<DictionaryArray<Int32Type>>(),
                ),
            ),
            (json, Arc::new(StringArray::from(vec![" {\"a\":\n1} ", "not json", "null"]))),
            (Field::new("st", structs.data_type().clone(), true), Arc::new(structs)),
        ];
        let (fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let mut fields = fields;
        for (name, array) in [
            ("li", Arc::new(lists.finish()) as ArrayRef),
            ("m", Arc::new(maps.finish())),
            ("x", Arc::new(binary.finish())),
        ] {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let rows = vec![
            concat!(
                r#"{"s":"a\"é","l":"a\"é","v":"a\"é","i":-9223372036854775808,"u":255,"f":1.0,"b":true,"#,
                r#""d":"1970-01-01","t":"1970-01-01T00:00:00.500","z":"1970-01-01T00:00:00.500Z","c":"p","#,
                r#""j":{"a": 1},"st":{"in":{}},"li":["x",null],"m":{"k":"v\n"},"x":"AP8="}"#
            ),
            r#"{"u":0,"b":false,"j":"not json","st":{"in":"["},"x":""}"#,
            concat!(
                r#"{"s":"","l":"","v":"","i":0,"u":1,"f":1e-7,"b":true,"d":"2022-01-08","t":null,"z":null,"#,
                r#""c":"p","j":null,"st":{"in":1},"li":[],"m":{},"x":"YWJj"}"#
            ),
        ];
        (batch, rows)
    }

    fn arrow_stream(batch: &RecordBatch, times: usize, compression: Option<CompressionType>) -> Vec<u8> {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        (0..times).for_each(|_| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn arrow_file(batch: &RecordBatch, times: usize) -> Vec<u8> {
        let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        (0..times).for_each(|_| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn parquet_file(batch: &RecordBatch, times: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        for _ in 0..times {
            writer.write(batch).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn arrow_files_and_streams_are_read_alike() {
        let (batch, rows) = every_kind();
        let twice = [rows.clone(), rows].concat();
        let check = |bytes: &[u8]| {
            let found = arrow_found(bytes);
            assert_eq!((found.error, found.damage), (None, vec![]));
            assert_eq!(found.rows, twice);
        };
        check(&arrow_file(&batch, 2));
        check(&arrow_stream(&batch, 2, None));
        check(&arrow_stream(&batch, 2, Some(CompressionType::LZ4_FRAME)));
        check(&arrow_stream(&batch, 2, Some(CompressionType::ZSTD)));
        check(&[arrow_stream(&batch, 1, None), arrow_stream(&batch, 1, None)].concat());
        assert_eq!(arrow_found(b""), Found::default());
    }

    #[test]
    fn a_cut_arrow_stream_gives_what_came_before() {
        let (batch, rows) = every_kind();
        for whole in [arrow_file(&batch, 2), arrow_stream(&batch, 2, None)] {
            let one = arrow_stream(&batch, 1, None).len();
            let found = arrow_found(&whole[..one + 200]);
            assert_eq!(found.rows, rows);
            assert!(found.error.unwrap().contains("the rest of a record batch"));
        }
    }

    #[test]
    fn parquet_rows_are_those_of_arrow() {
        let (batch, rows) = every_kind();
        let found = parquet_found(&parquet_file(&batch, 3));
        assert_eq!((found.error, found.damage), (None, vec![]));
        assert_eq!(found.rows, [rows.clone(), rows.clone(), rows].concat());
    }

    #[test]
    fn a_damaged_parquet_file_gives_what_can_be_read() {
        let (batch, rows) = every_kind();
        let whole = parquet_file(&batch, 2);
        let found = parquet_found(&whole[..whole.len() / 2]);
        assert!(found.rows.is_empty());
        let error = found.error.unwrap();
        assert!(error.starts_with("cannot read t.parquet: expected a Parquet file"), "{error}");
        assert!(error.contains("fetch it again"), "{error}");
        // A fault in the second row group leaves the first.
        let second = ArrowReaderMetadata::load(&file_of(&whole), ArrowReaderOptions::new()).unwrap();
        let start = second.metadata().row_group(1).column(0).byte_range().0 as usize;
        let mut damaged = whole;
        damaged[start..start + 40].fill(0xff);
        let found = parquet_found(&damaged);
        assert_eq!(found.rows, rows);
        assert!(found.error.is_some());
    }

    #[test]
    fn a_spooled_input_is_read_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let mut file = crate::AtomicFile::create(&path).unwrap();
        file.write_all(b"PAR1 is here").unwrap();
        file.commit().unwrap();
        let read = |path: Option<&Path>, magic: &[u8]| {
            let mut text = String::new();
            seekable(path, magic, b"spooled".as_slice()).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read(Some(&path), b"PAR1"), "PAR1 is here");
        assert_eq!(read(Some(&path), b"ARROW"), "spooled");
        assert_eq!(read(None, b"PAR1"), "spooled");
    }

    #[test]
    fn inputs_read_tables_compressed_or_not() {
        use curate_core::Source;

        let (batch, rows) = every_kind();
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let mut output = crate::Output::create(Some(&dir.path().join(name))).unwrap();
            output.write_all(bytes).unwrap();
            output.finish().unwrap();
        };
        put("a.parquet", &parquet_file(&batch, 1));
        put("b.parquet.gz", &parquet_file(&batch, 1));
        put("c.arrow", &arrow_file(&batch, 1));
        put("d.arrows.zst", &arrow_stream(&batch, 1, None));
        put("e.csv", b"id,text\n1,a\n2\n");
        put("f.tsv.gz", b"id\ttext\n1\ta\n");
        put("g.parquet", b"PAR1 cut");
        let found = crate::resolve(&[dir.path().to_owned()], None).unwrap();
        let mut inputs = crate::Inputs::new(found.files, crate::InputOptions::default());
        let mut found: Vec<(String, String)> = Vec::new();
        let mut damage = Vec::new();
        let mut block = Block::default();
        while inputs.fill(&mut block).unwrap() {
            let name = block.origin.rsplit('/').next().unwrap_or_default().to_owned();
            for i in 0..block.records.len() {
                found.push((name.clone(), String::from_utf8(block.record(i).bytes.to_vec()).unwrap()));
            }
            damage.append(&mut block.damage);
            block.clear();
        }
        let of = |name: &str| -> Vec<&str> {
            found.iter().filter(|(from, _)| from == name).map(|(_, row)| row.as_str()).collect()
        };
        for name in ["a.parquet", "b.parquet.gz", "c.arrow", "d.arrows.zst"] {
            assert_eq!(of(name), rows, "{name}");
        }
        assert_eq!(of("e.csv"), [r#"{"id":"1","text":"a"}"#, ""]);
        assert_eq!(of("f.tsv.gz"), [r#"{"id":"1","text":"a"}"#]);
        assert_eq!((found.len(), damage.len()), (15, 2));
        assert!(damage[1].file.ends_with("g.parquet") && damage[1].message.contains("fetch it again"));
    }

    #[test]
    fn a_reader_that_is_dropped_stops_its_thread() {
        let endless = b"text\n".chain(io::repeat(b'x').take(u64::MAX)).chain(io::empty());
        let mut reader = TableReader::separated("e".into(), Box::new(endless), b',');
        let options = InputOptions { max_record_bytes: 1 << 10, ..InputOptions::default() };
        assert!(reader.fill(&mut Block::default(), &options).is_err());
        drop(reader);
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            append_base64(&mut out, bytes.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn random_bytes_end_in_an_error_or_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>(), cut: bool
        ) {
            for magic in [b"PAR1".as_slice(), b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0\0\0", b""] {
                let bytes = [magic, &bytes, if magic == b"PAR1" { magic } else { b"" }].concat();
                parquet_found(&bytes);
                arrow_found(&bytes);
                separated(&bytes, b',', 50);
            }
            // Real files with one byte changed, or cut.
            let (batch, _) = every_kind();
            for mut whole in [parquet_file(&batch, 1), arrow_stream(&batch, 1, None), arrow_file(&batch, 1)] {
                let at = at.index(whole.len());
                if cut { whole.truncate(at) } else { whole[at] ^= bytes.first().copied().unwrap_or(1) | 1 };
                if whole.starts_with(b"PAR1") { parquet_found(&whole) } else { arrow_found(&whole) };
            }
        }
    }
}
