//! The token stream: what `tokenize` writes into a pipe and `pack` reads out of it.
//!
//! It is an Arrow IPC *stream*, so that Python or a query engine can look inside or make one:
//!
//! ```text
//! schema      id: utf8, source: dictionary<int32, utf8>, n_bytes: uint32, key: uint64, tokens: list<uint32>
//! metadata    curate.stream_version   1
//!             tokenizer.name, .sha256, .vocab_size, .eod
//!             tokenizer.json          the tokenizer itself; its SHA-256 is the one above
//!             curate.lineage          JSON of the stages before, opaque here
//! batches     up to 1,024 documents or 1,048,576 tokens each; a longer document is alone in its batch
//! end         FF FF FF FF 00 00 00 00, and nothing after it
//! ```
//!
//! The end marker is Arrow's own. Arrow readers do without it; ours does not, because a writer that was killed
//! between two batches leaves everything but the marker, and half a corpus must not look like a whole one.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_buffer::{ArrowNativeType, Buffer, MutableBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::writer::StreamWriter;
use arrow_ipc::{Endianness, FieldNode, Message, root_as_message};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use sha2::{Digest, Sha256};

use crate::encode::EncodedDocument;
use crate::error::{Error, Result};
use crate::{LoadOptions, TokenId, Tokenizer, TokenizerInfo};

/// Version of the stream; a reader refuses any other.
pub const STREAM_VERSION: u32 = 1;

/// A batch ends with this many documents.
const BATCH_DOCUMENTS: usize = 1024;
/// A batch ends before the document that would take it past this many tokens.
const BATCH_TOKENS: usize = 1 << 20;
/// A batch ends before the document whose id and source would take it past this many bytes of them.
const BATCH_NAME_BYTES: usize = 16 << 20;

/// Begins every message of a stream.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// How much is asked of the input at a time, so that a wrong length cannot ask for all memory at once.
const READ_STEP: usize = 4 << 20;

const VERSION_KEY: &str = "curate.stream_version";
const LINEAGE_KEY: &str = "curate.lineage";
const NAME_KEY: &str = "tokenizer.name";
const SHA256_KEY: &str = "tokenizer.sha256";
const VOCAB_SIZE_KEY: &str = "tokenizer.vocab_size";
const EOD_KEY: &str = "tokenizer.eod";
const JSON_KEY: &str = "tokenizer.json";

/// What a stream says before its first document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    pub tokenizer: TokenizerInfo,
    /// The tokenizer itself, as [`Tokenizer::to_json`] gives it.
    pub tokenizer_json: String,
    /// JSON that says how the documents came about. Opaque here.
    pub lineage: String,
}

impl StreamHeader {
    pub fn new(tokenizer: &Tokenizer, lineage: impl Into<String>) -> Self {
        Self {
            tokenizer: tokenizer.info().clone(),
            tokenizer_json: tokenizer.json().to_owned(),
            lineage: lineage.into(),
        }
    }

    /// Brings back the tokenizer, with the end of documents that the stream was written with.
    ///
    /// # Errors
    /// As [`Tokenizer::from_json`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let options =
            LoadOptions { eod: Some(format!("id:{}", self.tokenizer.eod)), ..LoadOptions::default() };
        Tokenizer::from_json(&self.tokenizer.name, self.tokenizer_json.as_bytes(), &options)
    }

    fn metadata(&self) -> HashMap<String, String> {
        let TokenizerInfo { name, sha256, vocab_size, eod } = &self.tokenizer;
        [
            (VERSION_KEY, STREAM_VERSION.to_string()),
            (LINEAGE_KEY, self.lineage.clone()),
            (NAME_KEY, name.clone()),
            (SHA256_KEY, sha256.clone()),
            (VOCAB_SIZE_KEY, vocab_size.to_string()),
            (EOD_KEY, eod.to_string()),
            (JSON_KEY, self.tokenizer_json.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    fn of_schema(schema: &Schema) -> Result<Self> {
        let not_a_stream = |problem: String| Error::NotAStream { problem };
        let field = |key: &str| {
            let value = schema.metadata().get(key);
            value.cloned().ok_or_else(|| not_a_stream(format!("the Arrow schema has no metadata {key:?}")))
        };
        let number = |key: &str| {
            let value = field(key)?;
            value.parse::<u32>().map_err(|_| not_a_stream(format!("{key} is {value:?}, expected a number")))
        };
        let version = field(VERSION_KEY)?;
        if version != STREAM_VERSION.to_string() {
            return Err(Error::StreamVersion { found: version, supported: STREAM_VERSION });
        }
        let tokenizer = TokenizerInfo {
            name: field(NAME_KEY)?,
            sha256: field(SHA256_KEY)?,
            vocab_size: number(VOCAB_SIZE_KEY)?,
            eod: number(EOD_KEY)?,
        };
        let tokenizer_json = field(JSON_KEY)?;
        let digest: String =
            Sha256::digest(&tokenizer_json).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != tokenizer.sha256 {
            let expected = &tokenizer.sha256;
            return Err(not_a_stream(format!(
                "{JSON_KEY} has SHA-256 {digest}, {SHA256_KEY} says {expected}"
            )));
        }
        Ok(Self { tokenizer, tokenizer_json, lineage: field(LINEAGE_KEY)? })
    }
}

fn source_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn token_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::UInt32, false))
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("source", source_type(), false),
        Field::new("n_bytes", DataType::UInt32, false),
        Field::new("key", DataType::UInt64, false),
        Field::new("tokens", DataType::List(token_field()), false),
    ]
}

/// Writes documents as a token stream.
///
/// Holds one batch: a few megabytes, more while a document is longer than that. A stream that was not
/// [finished](Self::finish) is seen to be cut short by its reader. Each batch carries its own table of sources,
/// so that memory does not grow with their number.
pub struct TokenStreamWriter<W: Write> {
    stream: StreamWriter<W>,
    schema: SchemaRef,
    batch: BatchBuilder,
}

/// The columns of the batch being filled.
#[derive(Default)]
struct BatchBuilder {
    ids: Vec<String>,
    sources: StringDictionaryBuilder<Int32Type>,
    n_bytes: Vec<u32>,
    keys: Vec<u64>,
    token_counts: Vec<usize>,
    tokens: Vec<TokenId>,
    name_bytes: usize,
}

impl<W: Write> TokenStreamWriter<W> {
    /// Begins a stream; the header is written at once. A batch takes some twenty writes, the large ones of whole
    /// columns: `writer` needs no buffer.
    ///
    /// # Errors
    /// [`Error::WriteStream`], [`Error::EncodeStream`].
    pub fn new(writer: W, header: &StreamHeader) -> Result<Self> {
        let schema = Arc::new(Schema::new_with_metadata(fields(), header.metadata()));
        let stream = StreamWriter::try_new(writer, &schema).map_err(Error::writing)?;
        Ok(Self { stream, schema, batch: BatchBuilder::default() })
    }

    /// Adds a document, and writes the batch before it if that is full.
    ///
    /// # Errors
    /// [`Error::DocumentTooLong`] for more than `i32::MAX` tokens or bytes of its id or source,
    /// [`Error::WriteStream`], [`Error::EncodeStream`].
    pub fn push(&mut self, doc: &EncodedDocument) -> Result<()> {
        let fits = |len: usize| i32::try_from(len).is_ok();
        if !(fits(doc.tokens.len()) && fits(doc.id.len()) && fits(doc.source.len())) {
            return Err(Error::DocumentTooLong {
                bytes: u64::from(doc.n_bytes),
                tokens: doc.tokens.len() as u64,
            });
        }
        if !self.batch.has_room_for(doc) {
            self.write_batch()?;
        }
        self.batch.push(doc);
        Ok(())
    }

    /// Writes what is left and the end marker, flushes, and gives the writer back.
    ///
    /// # Errors
    /// [`Error::WriteStream`], [`Error::EncodeStream`].
    pub fn finish(mut self) -> Result<W> {
        if !self.batch.ids.is_empty() {
            self.write_batch()?;
        }
        self.stream.into_inner().map_err(Error::writing)
    }

    fn write_batch(&mut self) -> Result<()> {
        let batch = self.batch.take(&self.schema).map_err(Error::writing)?;
        self.stream.write(&batch).map_err(Error::writing)
    }
}

impl BatchBuilder {
    /// Depends on the documents alone, so that the same documents give the same bytes.
    fn has_room_for(&self, doc: &EncodedDocument) -> bool {
        let documents = self.ids.len();
        documents == 0
            || (documents < BATCH_DOCUMENTS
                && self.tokens.len() + doc.tokens.len() <= BATCH_TOKENS
                && self.name_bytes + doc.id.len() + doc.source.len() <= BATCH_NAME_BYTES)
    }

    fn push(&mut self, doc: &EncodedDocument) {
        self.ids.push(doc.id.clone());
        self.sources.append_value(&doc.source);
        self.n_bytes.push(doc.n_bytes);
        self.keys.push(doc.key);
        self.token_counts.push(doc.tokens.len());
        self.tokens.extend_from_slice(&doc.tokens);
        self.name_bytes += doc.id.len() + doc.source.len();
    }

    /// The batch as Arrow has it; what is left is empty.
    fn take(&mut self, schema: &SchemaRef) -> std::result::Result<RecordBatch, arrow_schema::ArrowError> {
        let mut filled = std::mem::take(self);
        let tokens: ArrayRef = Arc::new(UInt32Array::from(filled.tokens));
        let offsets = OffsetBuffer::from_lengths(filled.token_counts);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(filled.ids)),
            Arc::new(filled.sources.finish()),
            Arc::new(UInt32Array::from(filled.n_bytes)),
            Arc::new(UInt64Array::from(filled.keys)),
            Arc::new(ListArray::try_new(token_field(), offsets, tokens, None)?),
        ];
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

/// Reads a token stream, batch by batch. Holds one batch and the sources it names.
#[derive(Debug)]
pub struct TokenStreamReader<R: Read> {
    input: R,
    header: StreamHeader,
    /// The table of sources that batches refer to, until the next one comes.
    sources: StringArray,
    documents: u64,
    is_finished: bool,
}

impl<R: Read> TokenStreamReader<R> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`Error::EmptyStream`], [`Error::NotAStream`], [`Error::StreamVersion`], [`Error::Truncated`],
    /// [`Error::ReadStream`].
    pub fn new(mut input: R) -> Result<Self> {
        let not_a_stream = |problem: String| Error::NotAStream { problem };
        let metadata = read_schema_message(&mut input)?;
        let message = root_as_message(&metadata).map_err(|error| not_a_stream(error.to_string()))?;
        let schema = message
            .header_as_schema()
            .ok_or_else(|| not_a_stream("it does not begin with an Arrow schema".into()))?;
        if schema.endianness() != Endianness::Little {
            return Err(not_a_stream("its numbers are big-endian".into()));
        }
        let schema =
            arrow_ipc::convert::try_fb_to_schema(schema).map_err(|error| not_a_stream(error.to_string()))?;
        let header = StreamHeader::of_schema(&schema)?;
        check_fields(&schema)?;
        Ok(Self {
            input,
            header,
            sources: StringArray::from(Vec::<&str>::new()),
            documents: 0,
            is_finished: false,
        })
    }

    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Documents read so far.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// The next documents; `None` once the end marker has been read.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::TrailingData`], [`Error::Damaged`], [`Error::ReadStream`].
    pub fn next_batch(&mut self) -> Result<Option<TokenBatch>> {
        while !self.is_finished {
            let Some(length) = self.read_prefix()? else {
                self.is_finished = true;
                self.expect_nothing_more()?;
                break;
            };
            let metadata = self.read_exactly(length)?;
            let message = root_as_message(&metadata).map_err(|error| self.damaged(error.to_string()))?;
            let body = match usize::try_from(message.bodyLength()) {
                Ok(length) => self.read_exactly(length)?,
                Err(_) => return Err(self.damaged(format!("a message of {} bytes", message.bodyLength()))),
            };
            if let Some(batch) = self.decode(message, &body)? {
                self.documents += batch.len() as u64;
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Takes up a message: a batch to hand on, or a table of sources to keep.
    fn decode(&mut self, message: Message<'_>, body: &Buffer) -> Result<Option<TokenBatch>> {
        let damaged = |problem: String| Error::Damaged { documents: self.documents, problem };
        match (message.header_as_record_batch(), message.header_as_dictionary_batch()) {
            (Some(batch), _) => {
                let batch =
                    Columns::new(batch, body).and_then(|columns| TokenBatch::decode(columns, &self.sources));
                batch.map(Some).map_err(damaged)
            }
            (_, Some(table)) => {
                let data =
                    table.data().ok_or_else(|| damaged("a table of sources without data".to_owned()))?;
                let strings = Columns::new(data, body)
                    .and_then(|mut columns| columns.strings("source"))
                    .map_err(damaged)?;
                self.sources = match table.isDelta() {
                    true => self.sources.iter().chain(&strings).collect(),
                    false => strings,
                };
                Ok(None)
            }
            _ => Err(damaged(format!("an unexpected message ({:?})", message.header_type()))),
        }
    }

    /// The length of the next message's metadata; `None` at the end marker.
    fn read_prefix(&mut self) -> Result<Option<usize>> {
        let prefix = self.read_exactly(8)?;
        let (marker, length) = prefix.split_at(4);
        if marker != CONTINUATION {
            return Err(self.damaged("a message does not begin with FF FF FF FF"));
        }
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        Ok((length != 0).then_some(length as usize))
    }

    fn read_exactly(&mut self, length: usize) -> Result<Buffer> {
        let buffer = read_up_to(&mut self.input, length)?;
        if buffer.len() < length {
            return Err(Error::Truncated { documents: self.documents });
        }
        Ok(buffer)
    }

    fn expect_nothing_more(&mut self) -> Result<()> {
        match read_up_to(&mut self.input, 1)?.is_empty() {
            true => Ok(()),
            false => Err(Error::TrailingData { documents: self.documents }),
        }
    }

    fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::Damaged { documents: self.documents, problem: problem.into() }
    }
}

/// Reads the first message, and tells apart what else may come out of a pipe.
fn read_schema_message(input: &mut impl Read) -> Result<Buffer> {
    let prefix = read_up_to(input, 8)?;
    if prefix.is_empty() {
        return Err(Error::EmptyStream);
    }
    let (marker, length) = prefix.split_at(prefix.len().min(4));
    if !CONTINUATION.starts_with(marker) {
        let begin = String::from_utf8_lossy(&prefix).into_owned();
        return Err(Error::NotAStream { problem: format!("it begins with {begin:?}") });
    }
    let truncated = Error::Truncated { documents: 0 };
    let Ok(length) = <[u8; 4]>::try_from(length) else { return Err(truncated) };
    let length = u32::from_le_bytes(length) as usize;
    let metadata = read_up_to(input, length)?;
    if metadata.len() < length { Err(truncated) } else { Ok(metadata) }
}

/// Reads `length` bytes, or what there is before the end of the input. Aligned as Arrow wants its arrays.
fn read_up_to(input: &mut impl Read, length: usize) -> Result<Buffer> {
    let mut buffer = MutableBuffer::new(length.min(READ_STEP));
    let mut filled = 0;
    while filled < length {
        let end = length.min(filled + READ_STEP);
        buffer.resize(end, 0);
        match input.read(&mut buffer.as_slice_mut()[filled..end]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::ReadStream { source }),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

/// The columns must be those of the format. Whether they may hold nulls does not matter, only that they do not.
fn check_fields(schema: &Schema) -> Result<()> {
    for (expected, found) in fields().iter().zip(schema.fields()) {
        let is_same_type = match (expected.data_type(), found.data_type()) {
            (DataType::List(expected), DataType::List(found)) => expected.data_type() == found.data_type(),
            (expected, found) => expected == found,
        };
        if expected.name() != found.name() || !is_same_type {
            let name_and_type = |field: &Field| format!("{}: {}", field.name(), field.data_type());
            let (expected, found) = (name_and_type(expected), name_and_type(found));
            return Err(Error::NotAStream {
                problem: format!("it has a column {found}, expected {expected}"),
            });
        }
    }
    let (found, expected) = (schema.fields().len(), fields().len());
    match found == expected {
        true => Ok(()),
        false => Err(Error::NotAStream { problem: format!("it has {found} columns, expected {expected}") }),
    }
}

/// The columns of a message, taken one after the other in the order of the format.
///
/// arrow-ipc can decode them too, but takes lengths and places in a damaged message on trust and panics.
struct Columns<'m> {
    nodes: Box<dyn Iterator<Item = &'m FieldNode> + 'm>,
    places: Box<dyn Iterator<Item = &'m arrow_ipc::Buffer> + 'm>,
    body: &'m Buffer,
}

/// What is wrong with a message.
type Decoded<T> = std::result::Result<T, String>;

impl<'m> Columns<'m> {
    fn new(batch: arrow_ipc::RecordBatch<'m>, body: &'m Buffer) -> Decoded<Self> {
        if batch.compression().is_some() {
            return Err("its columns are compressed, which a token stream's are not".to_owned());
        }
        let nodes = batch.nodes().ok_or("a batch without columns")?;
        let places = batch.buffers().ok_or("a batch without columns")?;
        Ok(Self { nodes: Box::new(nodes.iter()), places: Box::new(places.iter()), body })
    }

    /// Begins the next column; returns its length.
    fn length(&mut self, name: &str) -> Decoded<usize> {
        let node = self.nodes.next().ok_or_else(|| format!("column {name} is missing"))?;
        if node.null_count() != 0 {
            return Err(format!("column {name} holds a null"));
        }
        self.array(name)?; // The bitmap of nulls: there are none.
        usize::try_from(node.length()).map_err(|_| format!("column {name} has length {}", node.length()))
    }

    /// The bytes of the next array.
    fn array(&mut self, name: &str) -> Decoded<Buffer> {
        let place = self.places.next().ok_or_else(|| format!("column {name} is incomplete"))?;
        let range = usize::try_from(place.offset()).ok().zip(usize::try_from(place.length()).ok());
        match range {
            Some((start, length)) if start.checked_add(length).is_some_and(|end| end <= self.body.len()) => {
                Ok(self.body.slice_with_length(start, length))
            }
            _ => Err(format!("column {name} lies outside its batch")),
        }
    }

    /// The next array as `length` numbers. There may be padding after them.
    fn numbers<T: ArrowNativeType>(&mut self, name: &str, length: usize) -> Decoded<ScalarBuffer<T>> {
        let array = self.array(name)?;
        let is_long_enough = length.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= array.len());
        if !is_long_enough {
            return Err(format!("column {name} is shorter than its {length} values"));
        }
        if array.as_ptr().align_offset(align_of::<T>()) != 0 {
            return Err(format!("column {name} is not aligned"));
        }
        Ok(ScalarBuffer::new(array, 0, length))
    }

    /// The next array as the bounds of `length` values.
    fn bounds(&mut self, name: &str, length: usize) -> Decoded<OffsetBuffer<i32>> {
        if length == 0 {
            self.array(name)?; // Arrow allows it to be empty.
            return Ok(OffsetBuffer::new_empty());
        }
        let bounds: ScalarBuffer<i32> = self.numbers(name, length.saturating_add(1))?;
        match bounds[0] >= 0 && bounds.is_sorted() {
            true => Ok(OffsetBuffer::new(bounds)),
            false => Err(format!("the bounds of column {name} are not in order")),
        }
    }

    fn strings(&mut self, name: &str) -> Decoded<StringArray> {
        let length = self.length(name)?;
        let bounds = self.bounds(name, length)?;
        let bytes = self.array(name)?;
        StringArray::try_new(bounds, bytes, None).map_err(|error| format!("column {name}: {error}"))
    }

    fn column<T: ArrowNativeType>(&mut self, name: &str) -> Decoded<ScalarBuffer<T>> {
        let length = self.length(name)?;
        self.numbers(name, length)
    }
}

/// Documents that were read together. Their tokens lie where they were read to; nothing is copied.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    ids: StringArray,
    /// Positions in `source_names`.
    sources: ScalarBuffer<i32>,
    source_names: StringArray,
    n_bytes: ScalarBuffer<u32>,
    keys: ScalarBuffer<u64>,
    bounds: OffsetBuffer<i32>,
    tokens: ScalarBuffer<TokenId>,
}

/// A document of a [`TokenBatch`]; fields as in [`EncodedDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRef<'b> {
    pub id: &'b str,
    pub source: &'b str,
    pub n_bytes: u32,
    pub key: u64,
    pub tokens: &'b [TokenId],
}

impl TokenBatch {
    fn decode(mut columns: Columns<'_>, source_names: &StringArray) -> Decoded<Self> {
        let ids = columns.strings("id")?;
        let sources = columns.column::<i32>("source")?;
        let n_bytes = columns.column("n_bytes")?;
        let keys = columns.column("key")?;
        let documents = columns.length("tokens")?;
        let bounds = columns.bounds("tokens", documents)?;
        let tokens = columns.column("tokens")?;
        if [sources.len(), n_bytes.len(), keys.len(), documents] != [ids.len(); 4] {
            return Err("its columns differ in length".to_owned());
        }
        if position(bounds[documents]) > tokens.len() {
            return Err("documents reach past the end of column tokens".to_owned());
        }
        let is_named =
            |&source: &i32| usize::try_from(source).is_ok_and(|source| source < source_names.len());
        if !sources.iter().all(is_named) {
            return Err("column source points outside its table".to_owned());
        }
        Ok(Self { ids, sources, source_names: source_names.clone(), n_bytes, keys, bounds, tokens })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `index`-th document.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn get(&self, index: usize) -> DocumentRef<'_> {
        let tokens = position(self.bounds[index])..position(self.bounds[index + 1]);
        DocumentRef {
            id: self.ids.value(index),
            source: self.source_names.value(position(self.sources[index])),
            n_bytes: self.n_bytes[index],
            key: self.keys[index],
            tokens: &self.tokens[tokens],
        }
    }

    /// The documents in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = DocumentRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// A position that `decode` has found not to be negative.
fn position(offset: i32) -> usize {
    usize::try_from(offset).expect("checked when the batch was decoded")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::SMALL;

    fn header() -> StreamHeader {
        let tokenizer = Tokenizer::load("bytes", &LoadOptions::default()).unwrap();
        StreamHeader::new(&tokenizer, r#"[{"command":"read"}]"#)
    }

    fn doc(n: u32, tokens: usize) -> EncodedDocument {
        EncodedDocument {
            id: format!("doc-{n}"),
            source: ["web", "", "books"][n as usize % 3].to_owned(),
            n_bytes: n * 10,
            key: u64::MAX - u64::from(n),
            tokens: (0..tokens as u32).map(|t| (t * 7 + n) % 256).chain([256]).collect(),
        }
    }

    fn write(header: &StreamHeader, docs: &[EncodedDocument]) -> Vec<u8> {
        let mut writer = TokenStreamWriter::new(Vec::new(), header).unwrap();
        docs.iter().for_each(|doc| writer.push(doc).unwrap());
        writer.finish().unwrap()
    }

    /// A reader that gives what it has in small pieces, as a pipe does.
    struct Drops<'b>(&'b [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(self.0.len()).min(1 + self.0.len() % 777);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(bytes: &[u8]) -> Result<(StreamHeader, Vec<EncodedDocument>, Vec<usize>)> {
        let mut reader = TokenStreamReader::new(Drops(bytes))?;
        let (mut docs, mut batches) = (Vec::new(), Vec::new());
        while let Some(batch) = reader.next_batch()? {
            batches.push(batch.len());
            docs.extend(batch.iter().map(|doc| EncodedDocument {
                id: doc.id.to_owned(),
                source: doc.source.to_owned(),
                n_bytes: doc.n_bytes,
                key: doc.key,
                tokens: doc.tokens.to_vec(),
            }));
        }
        assert_eq!(reader.documents(), docs.len() as u64);
        assert!(reader.next_batch()?.is_none(), "the end stays the end");
        Ok((reader.header().clone(), docs, batches))
    }

    #[test]
    fn what_is_written_is_read() {
        let check = |docs: &[EncodedDocument], expected_batches: &[usize]| {
            let (found, read_docs, batches) = read(&write(&header(), docs)).unwrap();
            assert_eq!(found, header());
            assert_eq!(read_docs, docs);
            assert_eq!(batches, expected_batches);
        };
        check(&[], &[]);
        check(&[doc(1, 0)], &[1]);
        check(&[doc(0, 5), doc(1, 300), doc(2, 0)], &[3]);
        let many: Vec<_> = (0..2500).map(|n| doc(n, n as usize % 5)).collect();
        check(&many, &[1024, 1024, 452]);
        // 600,001 + 600,001 tokens are more than a batch; 1,048,575 + 1 fill one; a longer document is alone.
        check(&[doc(1, 600_000), doc(2, 600_000), doc(3, 3)], &[1, 2]);
        check(&[doc(1, (1 << 20) - 2), doc(2, 0), doc(3, 0)], &[2, 1]);
        check(&[doc(1, 3), doc(2, 3 << 20), doc(3, 3)], &[1, 1, 1]);
        let long_name = EncodedDocument { id: "x".repeat(10 << 20), ..doc(1, 1) };
        check(&[long_name.clone(), long_name, doc(1, 1)], &[1, 2]);
    }

    #[test]
    fn sources_may_change_from_batch_to_batch() {
        let docs: Vec<_> =
            (0..4000).map(|n| EncodedDocument { source: format!("site-{}", n / 700), ..doc(n, 2) }).collect();
        let (_, read_docs, _) = read(&write(&header(), &docs)).unwrap();
        assert_eq!(read_docs, docs);
    }

    #[test]
    fn the_same_documents_give_the_same_bytes() {
        let docs: Vec<_> = (0..1500).map(|n| doc(n, 3)).collect();
        assert_eq!(write(&header(), &docs), write(&header(), &docs));
    }

    #[test]
    fn a_stream_carries_its_tokenizer() {
        let options = LoadOptions { eod: Some("!".to_owned()), ..LoadOptions::default() };
        let tokenizer = Tokenizer::from_json("small", &SMALL, &options).unwrap();
        let (found, _, _) = read(&write(&StreamHeader::new(&tokenizer, "{}"), &[])).unwrap();
        let back = found.tokenizer().unwrap();
        assert_eq!((back.info(), back.to_json()), (tokenizer.info(), SMALL.clone()));
        let (found, _, _) = read(&write(&header(), &[])).unwrap();
        assert_eq!(found.tokenizer().unwrap().info(), &header().tokenizer);
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        let docs: Vec<_> = (0..1030).map(|n| doc(n, 1)).collect();
        let bytes = write(&header(), &docs);
        let (mut empty, mut truncated, mut complete) = (0, 0, 0);
        // Every length near a boundary; elsewhere every 13th, to keep the test short.
        let near_the_end = bytes.len() - 300;
        for length in (0..2000).chain((2000..near_the_end).step_by(13)).chain(near_the_end..=bytes.len()) {
            match read(&bytes[..length]) {
                Err(Error::EmptyStream) => empty += 1,
                Err(Error::Truncated { documents: 0 | 1024 | 1030 }) => truncated += 1,
                Ok((_, read_docs, _)) if length == bytes.len() => complete += usize::from(read_docs == docs),
                other => panic!("cut to {length} of {} bytes: {other:?}", bytes.len()),
            }
        }
        assert_eq!((empty, complete), (1, 1));
        assert!(truncated > 3000);
        let missing_marker = read(&bytes[..bytes.len() - 8]).unwrap_err();
        assert_eq!(
            missing_marker.to_string(),
            "the token stream is cut short after 1030 documents: its end marker is missing"
        );
        let writer = TokenStreamWriter::new(Vec::new(), &header()).unwrap();
        let unfinished = writer.stream.get_ref().clone();
        assert!(matches!(read(&unfinished), Err(Error::Truncated { documents: 0 })));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = read(bytes).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
        };
        check(b"", "the input is empty, expected a token stream");
        check(b"{\"text\": \"a\"}\n", "not a token stream: it begins with \"{\\\"text\\\":\"");
        check(b"{", "not a token stream: it begins with \"{\"");
        check(b"\xFF\xFF", "the token stream is cut short after 0 documents: its end marker is missing");
        let twice = [write(&header(), &[doc(1, 1)]), write(&header(), &[])].concat();
        check(&twice, "something follows the end of the token stream, after 1 documents");
        check(&[0xFF; 64], "the token stream is cut short after 0 documents: its end marker is missing");
    }

    fn arrow_stream(schema: Schema, columns: Vec<ArrayRef>) -> Vec<u8> {
        let schema = Arc::new(schema);
        let mut stream = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        if !columns.is_empty() {
            stream.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
        }
        stream.into_inner().unwrap()
    }

    #[test]
    fn other_arrow_streams_are_refused() {
        let check = |fields: Vec<Field>, metadata: HashMap<String, String>, expected: &str| {
            let error = read(&arrow_stream(Schema::new_with_metadata(fields, metadata), vec![])).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let with = |key: &str, value: &str| {
            let mut metadata = header().metadata();
            metadata.insert(key.to_owned(), value.to_owned());
            metadata
        };
        let missing = r#"not a token stream: the Arrow schema has no metadata "curate.stream_version""#;
        check(fields(), HashMap::new(), missing);
        let newer = "token stream version 2 is not supported (this build reads version 1)";
        check(fields(), with(VERSION_KEY, "2"), newer);
        let no_number = "not a token stream: tokenizer.eod is \"x\", expected a number";
        check(fields(), with(EOD_KEY, "x"), no_number);
        let error = read(&arrow_stream(Schema::new_with_metadata(fields(), with(JSON_KEY, "{}")), vec![]))
            .unwrap_err();
        assert!(
            error.to_string().starts_with("not a token stream: tokenizer.json has SHA-256 44136fa355b3678a"),
            "{error}"
        );
        let mut text_tokens = fields();
        text_tokens[4] = Field::new("tokens", DataType::Utf8, false);
        let wrong =
            "not a token stream: it has a column tokens: Utf8, expected tokens: List(non-null UInt32)";
        check(text_tokens, header().metadata(), wrong);
        check(
            fields()[..3].to_vec(),
            header().metadata(),
            "not a token stream: it has 3 columns, expected 5",
        );
    }

    #[test]
    fn nulls_are_refused_and_nullable_columns_are_not() {
        let nullable: Vec<Field> = fields().into_iter().map(|field| field.with_nullable(true)).collect();
        let schema = Schema::new_with_metadata(nullable, header().metadata());
        let columns = |id: Option<&str>| -> Vec<ArrayRef> {
            let tokens = ListArray::new(
                token_field(),
                OffsetBuffer::from_lengths([1]),
                Arc::new(UInt32Array::from(vec![256])),
                None,
            );
            let source: arrow_array::DictionaryArray<Int32Type> = ["web"].into_iter().collect();
            vec![
                Arc::new(StringArray::from(vec![id])),
                Arc::new(source),
                Arc::new(UInt32Array::from(vec![0])),
                Arc::new(UInt64Array::from(vec![1])),
                Arc::new(tokens),
            ]
        };
        let (_, docs, _) = read(&arrow_stream(schema.clone(), columns(Some("a")))).unwrap();
        assert_eq!(
            (docs[0].id.as_str(), docs[0].source.as_str(), docs[0].tokens.as_slice()),
            ("a", "web", &[256][..])
        );
        let error = read(&arrow_stream(schema, columns(None))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token stream is damaged after 0 documents: column id holds a null"
        );
    }

    #[test]
    fn a_full_disk_is_reported_as_such() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 =
                    self.0.checked_sub(bytes.len()).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(matches!(TokenStreamWriter::new(Full(10), &header()), Err(Error::WriteStream { .. })));
        let mut writer = TokenStreamWriter::new(Full(5000), &header()).unwrap();
        writer.push(&doc(1, 9000)).unwrap();
        assert!(matches!(writer.finish(), Err(Error::WriteStream { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn damage_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)) {
            let mut bytes = write(&header(), &[doc(0, 5), doc(1, 30), doc(2, 0)]);
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            let _ = read(&bytes);
        }

        #[test]
        fn any_documents_survive(
            docs in proptest::collection::vec(
                (".{0,12}", "[a-c]?", any::<u32>(), any::<u64>(), proptest::collection::vec(any::<u32>(), 0..50)),
                0..40,
            )
        ) {
            let docs: Vec<_> = docs
                .into_iter()
                .map(|(id, source, n_bytes, key, tokens)| EncodedDocument { id, source, n_bytes, key, tokens })
                .collect();
            let (_, read_docs, _) = read(&write(&header(), &docs)).unwrap();
            prop_assert_eq!(read_docs, docs);
        }
    }
}
