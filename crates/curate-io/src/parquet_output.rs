//! Records as a Parquet file, from which the same records can be read again.
//!
//! The columns are decided by the records of the first row group: the keys in the order in which they appear first,
//! each with the narrowest type that holds all its values (text, 64-bit integer, boolean, 64-bit float, else JSON).
//! What fits no column is kept as members of a JSON object in the column [`EXTRA`]: keys that appear later, values
//! of another type, explicit nulls. A null of any other column means that the record has no such key.
//!
//! JSON columns are strings of the logical type JSON, which Arrow reads as its extension type `arrow.json`. The file
//! carries the name of the extra column in its metadata under [`EXTRA_KEY`], so that a column of that name in a
//! file from elsewhere is read as what it is.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use curate_core::Error;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{SchemaDescriptor, Type};
use sonic_rs::to_object_iter;

use crate::json::append_json_string;
use crate::layout::OutputError;
use crate::output::AtomicFile;

/// The column of members that fit no other.
pub(crate) const EXTRA: &str = "_extra";
/// The key of the file's metadata whose value names the extra column.
pub(crate) const EXTRA_KEY: &str = "curate.extra";

/// Bytes of JSON in a row group; as many are held in memory while the columns are decided.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Bytes of JSON that are turned into arrays at once.
const BATCH_BYTES: usize = 4 << 20;
/// Columns beside the extra one. Keys beyond are kept as extra members: they are most likely data, not names.
const MAX_COLUMNS: usize = 1000;
/// The longest record: a batch of strings must stay below the 2 GiB that its 32-bit offsets reach.
const MAX_RECORD_BYTES: usize = 1 << 30;
/// Rows that the column writer takes before it looks at the size of its page: few, as texts are long.
const ROWS_PER_PAGE_CHECK: usize = 64;
/// Bytes kept of the smallest and largest value of a page or a column.
const STATISTICS_BYTES: usize = 64;
const ZSTD_LEVEL: i32 = 3;

/// Writes JSON lines as rows. The bytes depend on the lines alone, not on how they are handed over.
pub(crate) struct ParquetOutput {
    name: String,
    state: State,
    /// Lines that are not yet in the table.
    pending: Vec<u8>,
    row_group_bytes: usize,
}

enum State {
    /// The first row group is being gathered.
    Deciding(AtomicFile),
    Writing(Box<Table>),
    /// A write has failed, or the file is being closed.
    Closed,
}

impl ParquetOutput {
    pub(crate) fn new(file: AtomicFile) -> Self {
        let name = file.path().display().to_string();
        Self { name, state: State::Deciding(file), pending: Vec::new(), row_group_bytes: ROW_GROUP_BYTES }
    }

    #[cfg(test)]
    fn with_row_group_bytes(mut self, bytes: usize) -> Self {
        self.row_group_bytes = bytes;
        self
    }

    pub(crate) fn write(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if line.len() > MAX_RECORD_BYTES {
                let message = format!("it has {} bytes, {MAX_RECORD_BYTES} are possible", line.len());
                return Err(self.refused("a record", message));
            }
            self.pending.extend_from_slice(line);
            let enough = match self.state {
                State::Deciding(_) => self.row_group_bytes,
                _ => BATCH_BYTES.min(self.row_group_bytes),
            };
            if self.pending.len() >= enough {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Writes the last rows and the footer, and gives the file its name.
    pub(crate) fn finish(mut self) -> curate_core::Result<()> {
        self.drain()?;
        let State::Writing(mut table) = std::mem::replace(&mut self.state, State::Closed) else {
            return Ok(()); // A write has failed before, and was reported.
        };
        table.writer.finish().map_err(|e| failed(&self.name, e))?;
        let Table { writer, file, .. } = *table;
        drop(writer);
        let file = Arc::into_inner(file).expect("the writer held the only other reference");
        Ok(file.into_inner().unwrap_or_else(PoisonError::into_inner).commit()?)
    }

    fn refused(&self, what: &str, message: String) -> Error {
        let error = OutputError::Record {
            name: self.name.clone(),
            what: what.to_owned(),
            format: "Parquet",
            message,
        };
        crate::IoError::from(error).into()
    }

    /// Moves the pending lines into the table, which is made of them if there is none yet.
    fn drain(&mut self) -> curate_core::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let mut table = match std::mem::replace(&mut self.state, State::Closed) {
            State::Deciding(file) => {
                let columns = decide(&pending).map_err(|fault| self.refused("a malformed record", fault))?;
                Table::create(file, columns).map_err(|e| failed(&self.name, e))?
            }
            State::Writing(table) => table,
            State::Closed => return Ok(()),
        };
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_end(rest));
            let rows = table.rows(batch).map_err(|fault| self.refused("a malformed record", fault))?;
            table.write(&rows, batch.len(), self.row_group_bytes).map_err(|e| failed(&self.name, e))?;
            rest = after;
        }
        self.state = State::Writing(table);
        if pending.capacity() <= 2 * BATCH_BYTES {
            self.pending = pending;
            self.pending.clear();
        }
        Ok(())
    }
}

/// Where the first batch of `lines` ends: with the line that makes it large enough.
fn batch_end(lines: &[u8]) -> usize {
    let from = lines.len().min(BATCH_BYTES - 1);
    memchr::memchr(b'\n', &lines[from..]).map_or(lines.len(), |i| from + i + 1)
}

/// An error of writing; what the file itself said stays its cause.
pub(crate) fn failed(name: &str, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    };
    Error::io(format!("cannot write {name}"), source)
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    Float,
    Json,
}

impl Kind {
    /// The narrowest kind of a JSON value; `None` for null.
    fn of(raw: &str) -> Option<Self> {
        Some(match raw.as_bytes().first()? {
            b'n' => return None,
            b't' | b'f' => Self::Boolean,
            b'"' if text(raw).is_some() => Self::Text,
            b'-' | b'0'..=b'9' if integer(raw).is_some() => Self::Integer,
            b'-' | b'0'..=b'9' if float(raw).is_some() => Self::Float,
            _ => Self::Json,
        })
    }

    fn with(self, other: Self) -> Self {
        if self == other { self } else { Self::Json }
    }

    fn arrow(self) -> DataType {
        match self {
            Self::Text | Self::Json => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Float => DataType::Float64,
        }
    }

    fn parquet(self) -> (Physical, Option<LogicalType>) {
        match self {
            Self::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Self::Integer => (Physical::INT64, None),
            Self::Boolean => (Physical::BOOLEAN, None),
            Self::Float => (Physical::DOUBLE, None),
        }
    }
}

/// The string that a JSON string stands for; `None` if it is not a string, or has half a surrogate pair in it.
fn text(raw: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    match memchr::memchr(b'\\', inner.as_bytes()) {
        None => Some(inner.into()),
        Some(_) => sonic_rs::from_str::<String>(raw).ok().map(Into::into),
    }
}

/// A number that is written just so when it is read back.
fn integer(raw: &str) -> Option<i64> {
    let number: i64 = raw.parse().ok()?;
    let first_digit = raw.trim_start_matches('-').as_bytes().first()?;
    let canonical = if number == 0 { raw == "0" } else { *first_digit != b'0' };
    canonical.then_some(number)
}

/// A number with a point or an exponent. Whole numbers are none: they would come back with a point.
fn float(raw: &str) -> Option<f64> {
    if !raw.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return None;
    }
    raw.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A column of the table, with the values of the rows that are being gathered.
struct Column {
    name: String,
    kind: Kind,
    values: Values,
}

enum Values {
    Strings(StringBuilder),
    Integers(Int64Builder),
    Booleans(BooleanBuilder),
    Floats(Float64Builder),
}

impl Column {
    fn new(name: String, kind: Kind) -> Self {
        let values = match kind {
            Kind::Text | Kind::Json => Values::Strings(StringBuilder::new()),
            Kind::Integer => Values::Integers(Int64Builder::new()),
            Kind::Boolean => Values::Booleans(BooleanBuilder::new()),
            Kind::Float => Values::Floats(Float64Builder::new()),
        };
        Self { name, kind, values }
    }

    /// Appends a value, or null where there is none or it does not fit; tells whether it fitted.
    fn push(&mut self, raw: Option<&str>) -> bool {
        let raw = raw.filter(|raw| *raw != "null");
        match (&mut self.values, self.kind) {
            (Values::Strings(values), Kind::Json) => {
                values.append_option(raw);
                raw.is_some()
            }
            (Values::Strings(values), _) => {
                let value = raw.and_then(text);
                values.append_option(value.as_deref());
                value.is_some()
            }
            (Values::Integers(values), _) => {
                let value = raw.and_then(integer);
                values.append_option(value);
                value.is_some()
            }
            (Values::Floats(values), _) => {
                let value = raw.and_then(float);
                values.append_option(value);
                value.is_some()
            }
            (Values::Booleans(values), _) => {
                let value = raw.and_then(|raw| raw.parse().ok());
                values.append_option(value);
                value.is_some()
            }
        }
    }

    /// The values gathered, leaving the column empty.
    fn take(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Strings(values) => Arc::new(values.finish()),
            Values::Integers(values) => Arc::new(values.finish()),
            Values::Booleans(values) => Arc::new(values.finish()),
            Values::Floats(values) => Arc::new(values.finish()),
        }
    }
}

/// Calls `visit` with each member of the record `line`; says what is wrong with one that is no JSON object.
fn members<'a>(line: &'a str, mut visit: impl FnMut(&str, &'a str)) -> Result<(), String> {
    let mut end = 0;
    for member in to_object_iter(line) {
        let (name, value) = member.map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or("not a JSON object").to_owned()
        })?;
        let range = range_in(line, value.as_raw_str());
        end = range.end;
        visit(&name, &line[range]);
    }
    let rest: String = line[end..].split_ascii_whitespace().collect();
    if rest == if end == 0 { "{}" } else { "}" } {
        return Ok(());
    }
    Err("expected the record to end after its object".to_owned())
}

fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The records of `lines`; blank lines are none.
fn records(lines: &[u8]) -> impl Iterator<Item = Result<&str, String>> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| std::str::from_utf8(line).map_err(|_| "expected UTF-8".to_owned()))
}

/// The columns that hold the values of `lines`, in the order in which the keys appear first.
fn decide(lines: &[u8]) -> Result<Vec<Column>, String> {
    let mut found: Vec<(String, Kind)> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for line in records(lines) {
        members(line?, |name, raw| {
            let Some(kind) = Kind::of(raw) else { return };
            if let Some(&i) = by_name.get(name) {
                found[i].1 = found[i].1.with(kind);
            } else if name != EXTRA && found.len() < MAX_COLUMNS {
                by_name.insert(name.to_owned(), found.len());
                found.push((name.to_owned(), kind));
            }
        })?;
    }
    Ok(found.into_iter().map(|(name, kind)| Column::new(name, kind)).collect())
}

/// The file, for the table's writer. It is not handed over, as the writer gives it back only together with a text of
/// what has failed, without the cause.
pub(crate) struct SharedFile(pub(crate) Arc<Mutex<AtomicFile>>);

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// An open table.
struct Table {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    schema: SchemaRef,
    writer: ArrowWriter<SharedFile>,
    file: Arc<Mutex<AtomicFile>>,
    /// Bytes of JSON in the open row group.
    group_bytes: usize,
}

impl Table {
    fn create(file: AtomicFile, columns: Vec<Column>) -> Result<Box<Self>, ParquetError> {
        let kinds = || {
            let named = columns.iter().map(|column| (column.name.as_str(), column.kind));
            named.chain([(EXTRA, Kind::Json)])
        };
        let fields: Vec<Field> = kinds().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        // The Parquet schema says all there is to say, so that of Arrow is left out.
        let options = ArrowWriterOptions::new()
            .with_properties(properties()?)
            .with_parquet_schema(parquet_schema(kinds())?)
            .with_skip_arrow_metadata(true);
        let file = Arc::new(Mutex::new(file));
        let writer =
            ArrowWriter::try_new_with_options(SharedFile(Arc::clone(&file)), Arc::clone(&schema), options)?;
        let by_name = columns.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect();
        Ok(Box::new(Self { columns, by_name, schema, writer, file, group_bytes: 0 }))
    }

    /// The records of `lines` as rows.
    fn rows(&mut self, lines: &[u8]) -> Result<RecordBatch, String> {
        let mut extra = StringBuilder::new();
        let mut row: Vec<Option<&str>> = vec![None; self.columns.len()];
        let mut left_over = Vec::new();
        for line in records(lines) {
            left_over.clear();
            members(line?, |name, raw| match self.by_name.get(name) {
                // Of a repeated name the last counts.
                Some(&i) => row[i] = Some(raw),
                None => add_member(&mut left_over, name, raw),
            })?;
            for (column, value) in self.columns.iter_mut().zip(&mut row) {
                let value = value.take();
                if let (false, Some(raw)) = (column.push(value), value) {
                    add_member(&mut left_over, &column.name, raw);
                }
            }
            if left_over.is_empty() {
                extra.append_null();
            } else {
                left_over.push(b'}');
                extra.append_value(std::str::from_utf8(&left_over).expect("made of strings"));
            }
        }
        let extra: ArrayRef = Arc::new(extra.finish());
        let arrays = self.columns.iter_mut().map(Column::take).chain([extra]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays).expect("one value a row and column"))
    }

    /// Writes rows that come from `bytes` of JSON, and ends the row group once it is large enough.
    fn write(
        &mut self,
        rows: &RecordBatch,
        bytes: usize,
        row_group_bytes: usize,
    ) -> Result<(), ParquetError> {
        self.writer.write(rows)?;
        self.group_bytes += bytes;
        if self.group_bytes >= row_group_bytes {
            self.group_bytes = 0;
            self.writer.flush()?;
        }
        Ok(())
    }
}

/// Appends a member to the beginning of a JSON object, or begins one with it.
fn add_member(object: &mut Vec<u8>, name: &str, raw: &str) {
    object.push(if object.is_empty() { b'{' } else { b',' });
    append_json_string(object, name);
    object.push(b':');
    object.extend_from_slice(raw.as_bytes());
}

fn properties() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES))
        .set_write_batch_size(ROWS_PER_PAGE_CHECK)
        .set_key_value_metadata(Some(vec![KeyValue::new(EXTRA_KEY.to_owned(), EXTRA.to_owned())]))
        .build())
}

fn parquet_schema<'a>(
    columns: impl Iterator<Item = (&'a str, Kind)>,
) -> Result<SchemaDescriptor, ParquetError> {
    let fields = columns
        .map(|(name, kind)| {
            let (physical, logical) = kind.parquet();
            let column = Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical);
            Ok(Arc::new(column.build()?))
        })
        .collect::<Result<Vec<_>, ParquetError>>()?;
    let root = Type::group_type_builder("schema").with_fields(fields).build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stdout)]

    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::tables::tests::parquet_found;

    fn written(lines: &str, row_group_bytes: usize, piece: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let file = AtomicFile::create(&path).unwrap();
        let mut output = ParquetOutput::new(file).with_row_group_bytes(row_group_bytes);
        let lines: Vec<&str> = lines.split_inclusive('\n').collect();
        for lines in lines.chunks(piece) {
            output.write(lines.concat().as_bytes()).unwrap();
        }
        output.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    fn restored(bytes: &[u8]) -> Vec<String> {
        let found = parquet_found(bytes);
        assert_eq!((found.error, found.damage), (None, vec![]));
        found.rows
    }

    fn check(lines: &[&str], expected: &[&str]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(restored(&written(&text, 60, 1)), expected);
    }

    #[test]
    fn plain_records_come_back_byte_for_byte() {
        let lines = [
            r#"{"id":"a","text":"x\n\"é","n":-1,"ok":true,"score":0.25,"meta":{"b": [1, null], "a":"é"},"l":[]}"#,
            r#"{"id":"b","text":"","n":0,"ok":false,"score":1e-7,"meta":{},"l":[1.50]}"#,
        ];
        check(&lines, &lines);
    }

    #[test]
    fn what_fits_no_column_is_kept() {
        check(
            &[
                r#"{"id":"a","n":1,"mixed":1,"none":null,"text":"long enough to end the first row group"}"#,
                r#"{"id":7,"n":1.5,"mixed":"s","late":{"x":[1]},"text":null}"#,
                r#"{"n":-0,"id":"\ud800","_extra":{"id":"mine"},"text":"t","n":01}"#.replace(",\"n\":01", "").as_str(),
                r#"  { }  "#,
                r#"{"id":"first","id":"last","n":"x","n":2}"#,
            ],
            &[
                r#"{"id":"a","n":1,"mixed":1,"text":"long enough to end the first row group","none":null}"#,
                r#"{"late":{"x":[1]},"id":7,"n":1.5,"mixed":"s","text":null}"#,
                r#"{"text":"t","_extra":{"id":"mine"},"id":"\ud800","n":-0}"#,
                "{}",
                r#"{"id":"last","n":2}"#,
            ],
        );
    }

    #[test]
    fn columns_have_the_narrowest_type() {
        let kind = |raw: &str, expected| assert_eq!(Kind::of(raw), expected, "{raw}");
        kind("null", None);
        kind("\"\"", Some(Kind::Text));
        kind(r#""\ud83d\ude00""#, Some(Kind::Text));
        kind(r#""\ud83d""#, Some(Kind::Json));
        kind("9223372036854775807", Some(Kind::Integer));
        kind("9223372036854775808", Some(Kind::Json));
        kind("-0", Some(Kind::Json));
        kind("-7", Some(Kind::Integer));
        kind("1.50", Some(Kind::Float));
        kind("1E400", Some(Kind::Json));
        kind("false", Some(Kind::Boolean));
        kind("[1]", Some(Kind::Json));
    }

    #[test]
    fn bytes_do_not_depend_on_the_pieces() {
        let lines: String =
            (0..500).map(|i| format!("{{\"id\":{i},\"text\":\"{}\"}}\n", "x".repeat(i % 50))).collect();
        let reference = written(&lines, 3000, 1);
        assert!(reference.len() > 1000);
        for piece in [2, 7, 1000] {
            assert!(written(&lines, 3000, piece) == reference, "{piece} lines at once");
        }
        assert_eq!(restored(&reference).concat(), lines.replace('\n', ""));
        assert_eq!(restored(&written("", 3000, 1)), Vec::<String>::new());
    }

    #[test]
    fn malformed_records_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["not json\n", "{\"a\":1} x\n", "[1]\n", "{\"a\":\n", "\u{0}\n"] {
            let path = dir.path().join("t.parquet");
            let mut output = ParquetOutput::new(AtomicFile::create(&path).unwrap());
            output.write(b"{\"a\":1}\n").unwrap();
            output.write(bad.as_bytes()).unwrap();
            let error = output.finish().unwrap_err().to_string();
            assert!(error.contains("t.parquet: a malformed record cannot be stored in Parquet"), "{error}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn too_many_keys_become_extra_members() {
        let line: String = (0..MAX_COLUMNS + 5).map(|i| format!(",\"k{i}\":{i}")).collect();
        let line = format!("{{{}}}", &line[1..]);
        check(&[&line], &[&line]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((".{0,3}", inner), 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn records_come_back_with_the_same_keys_and_values(
            records in prop::collection::vec(
                prop::collection::vec(("a|b|c|_extra|.{0,2}", value()), 0..5), 0..12
            ),
            row_group_bytes in 1usize..400,
        ) {
            let records: Vec<Value> = records
                .into_iter()
                .map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
                .collect();
            let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
            let back: Vec<Value> = restored(&written(&lines, row_group_bytes, 3))
                .iter()
                .map(|row| serde_json::from_str(row).unwrap())
                .collect();
            prop_assert_eq!(back, records);
        }
    }

    /// The shared test data, where there are some.
    fn shared_data() -> PathBuf {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        std::env::var_os("CURATE_SHARED_DATA").map_or_else(beside, PathBuf::from)
    }

    #[test]
    fn real_records_come_back() {
        let path = shared_data().join("mix/mix.jsonl.zst");
        let Ok(compressed) = std::fs::File::open(&path) else {
            println!("skipped: {} is not there", path.display());
            return;
        };
        let mut lines = String::new();
        let mut reader = crate::decompress::decompressed(Box::new(compressed)).unwrap();
        std::io::Read::read_to_string(&mut reader, &mut lines).unwrap();
        let rows = restored(&written(&lines, 8 << 20, 100));
        assert_eq!(rows.len(), lines.lines().count());
        let mut same_bytes = 0;
        for (row, line) in rows.iter().zip(lines.lines()) {
            same_bytes += usize::from(row == line);
            if row != line {
                let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
                assert_eq!(parse(row), parse(line));
            }
        }
        println!("{same_bytes} of {} records byte for byte", rows.len());
    }
}
