//! `curate tokenize`: which ids is this text?

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use curate_core::{Document, Error, Gate, Verdict};
use curate_io::{FieldPath, Output, field_of};
use curate_shards::{ShardSetWriter, TokenDocument};
use curate_tokenize::{
    EncodeMapper, EncodedDocument, KeyOf, LoadOptions, StreamHeader, TokenStreamWriter, Tokenizer,
};
use serde::Serialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::StreamOptions;
use crate::commands::pack::{NewSet, said_of_set};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};
use crate::summary::{Extra, bytes, thousands};
use crate::ui;

/// Turn texts into token ids, a stream for `curate pack`
///
/// Ids are those of the tokenizer's own library, without added special tokens; each document ends in the
/// tokenizer's end-of-document token. A special token written out in a text is plain text unless --parse-special
/// is given. The output is an Arrow IPC stream that carries the tokenizer with it, or, with a directory for -o, a shard
/// set that is all training split and has no views yet: `curate pack DIR --seq-len T` makes them.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate tokenize --tokenizer gpt2.json < unique.jsonl | curate pack --seq-len 1024 -o shards/\n  curate tokenize --tokenizer bytes corpus/ -o corpus.arrows\n  curate tokenize --tokenizer bytes corpus/ -o shards/"
)]
pub(crate) struct TokenizeCommand {
    #[command(flatten)]
    stage: TokenizeOptions,

    #[command(flatten)]
    stream: StreamOptions,

    /// Write the token stream to this file instead of stdout, or token shards into this directory, which exists or ends in
    /// a slash
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,

    /// Replace a shard set that is there already
    #[arg(long, requires = "output")]
    force: bool,

    /// Write the shards anew that an interrupted run finished, instead of checking them
    #[arg(long, requires = "output")]
    restart: bool,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct TokenizeOptions {
    /// A Hugging Face tokenizer.json, or a built-in: bytes, or char:FILE (the characters of FILE)
    #[arg(long, value_name = "SPEC")]
    tokenizer: String,

    /// The token that ends each document [default: the tokenizer's own, such as <|endoftext|>]
    #[arg(long, value_name = "TOKEN")]
    eod: Option<String>,

    /// Let special tokens that are written out in a text become those tokens
    #[arg(long)]
    parse_special: bool,

    /// Field with the near-duplicate cluster of a document, as `curate dedup --mark` writes it: what is of one cluster falls
    /// on one side of a split [default: what has the same text does]
    #[arg(long, value_name = "FIELD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_field: Option<String>,

    /// Memory for words seen before, for each thread; changes the speed and no id
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    #[serde(skip)]
    cache_mb: u16,
}

impl TokenizeOptions {
    pub(crate) fn load(&self) -> Result<Tokenizer> {
        let options = LoadOptions {
            eod: self.eod.clone(),
            parse_special: self.parse_special,
            cache_bytes: usize::from(self.cache_mb) << 20,
            ..LoadOptions::default()
        };
        let tokenizer = Tokenizer::load(&self.tokenizer, &options)?;
        if !tokenizer.is_fast() {
            ui::warn(&format!(
                "{}: not byte-level BPE with a known pattern, so the `tokenizers` crate encodes, some 60 times slower",
                self.tokenizer
            ));
        }
        Ok(tokenizer)
    }

    /// The stage that encodes with `tokenizer` and hands the ids to `end`.
    pub(crate) fn prepare(&self, tokenizer: Tokenizer, end: TokenEnd) -> Result<Link> {
        let keys = self.cluster_field.as_deref().map(cluster_key).transpose()?;
        Ok(Link {
            kind: Kind::Tokenize(Box::new(Encoder { tokenizer, keys }), Box::new(end)),
            covers: 1,
            logs: Vec::new(),
            parameters: parameters(self),
        })
    }
}

/// The key of a document by its cluster: the xxh3-64 of the cluster's name. A stage before may have set the field.
fn cluster_key(field: &str) -> Result<Box<KeyOf>> {
    let (path, field) = (FieldPath::parse(field)?, field.to_owned());
    Ok(Box::new(move |doc: &Document<'_>| {
        let set = doc.set_fields().iter().find(|(name, _)| *name == field);
        let cluster = match set {
            Some((_, json)) => serde_json::from_str(json).ok(),
            None => field_of(doc, &path),
        };
        cluster.map(|cluster: String| xxh3_64(cluster.as_bytes()))
    }))
}

/// What turns documents into ids.
pub(crate) struct Encoder {
    tokenizer: Tokenizer,
    keys: Option<Box<KeyOf>>,
}

impl Encoder {
    pub(crate) fn mapper(&self) -> EncodeMapper<'_> {
        EncodeMapper::new(&self.tokenizer).with_keys(self.keys.as_deref())
    }
}

pub(crate) fn execute(command: &TokenizeCommand) -> Result<Exit> {
    let tokenizer = command.stage.load()?;
    let end = command.end(&tokenizer)?;
    let chain = Chain {
        command: "tokenize",
        links: vec![command.stage.prepare(tokenizer, end)?],
        ending: Ending::Gate,
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| {
        let Some(Link { kind: Kind::Tokenize(_, end), .. }) = links.last_mut() else { return Ok(Vec::new()) };
        let mut extras = vec![end.extra()];
        match end.take_shards() {
            Some(writer) => {
                let dir = command.output.as_deref().expect("shards go where -o says");
                extras.push(said_of_set(dir, &writer.finish(&[])?)?);
            }
            None => end.finish_stream()?,
        }
        Ok(extras)
    })
}

impl TokenizeCommand {
    fn end(&self, tokenizer: &Tokenizer) -> Result<TokenEnd> {
        let is_directory =
            |path: &&PathBuf| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        match self.output.as_ref().filter(is_directory) {
            Some(dir) => {
                let set = NewSet { force: self.force, restart: self.restart, ..NewSet::default() };
                Ok(TokenEnd::shards(set.writer(dir, tokenizer)?))
            }
            None => TokenEnd::stream(self.output.clone(), tokenizer),
        }
    }
}

/// Where encoded documents go: a token stream, or straight into shards.
pub(crate) struct TokenEnd {
    writer: Option<Writer>,
    documents: u64,
    tokens: u64,
    text_bytes: u64,
}

enum Writer {
    Stream(Box<TokenStreamWriter<Output>>),
    Shards(Box<ShardSetWriter>),
}

impl TokenEnd {
    fn new(writer: Writer) -> Self {
        Self { writer: Some(writer), documents: 0, tokens: 0, text_bytes: 0 }
    }

    /// A token stream into a file, or onto stdout if that is not a terminal.
    pub(crate) fn stream(path: Option<PathBuf>, tokenizer: &Tokenizer) -> Result<Self> {
        if path.is_none() && std::io::stdout().is_terminal() {
            return Err(Failure::new("a token stream is binary and stdout is a terminal")
                .with_hint("pipe it into `curate pack`, or write it to a file with -o"));
        }
        let output = Output::create(path.as_deref())?;
        let header = StreamHeader::new(tokenizer, "{}");
        Ok(Self::new(Writer::Stream(Box::new(TokenStreamWriter::new(output, &header)?))))
    }

    pub(crate) fn shards(writer: ShardSetWriter) -> Self {
        Self::new(Writer::Shards(Box::new(writer)))
    }

    pub(crate) fn finish_stream(&mut self) -> Result<()> {
        if let Some(Writer::Stream(writer)) = self.writer.take() {
            writer.finish()?.finish()?;
        }
        Ok(())
    }

    /// The shard writer, to be finished by its owner.
    pub(crate) fn take_shards(&mut self) -> Option<ShardSetWriter> {
        match self.writer.take() {
            Some(Writer::Shards(writer)) => Some(*writer),
            other => {
                self.writer = other;
                None
            }
        }
    }

    pub(crate) fn extra(&self) -> Extra {
        let Self { documents, tokens, text_bytes, .. } = *self;
        let line = format!(
            "{} tokens of {} documents, {} of text, {:.2} bytes a token",
            thousands(tokens),
            thousands(documents),
            bytes(text_bytes),
            text_bytes as f64 / (tokens.max(1) as f64)
        );
        let value = json!({ "documents": documents, "tokens": tokens, "text_bytes": text_bytes });
        Extra { name: "tokens", value, lines: vec![line] }
    }
}

impl Gate for TokenEnd {
    type Work = EncodedDocument;

    fn admit(&mut self, _doc: &mut Document<'_>, doc: EncodedDocument) -> curate_core::Result<Verdict> {
        self.documents += 1;
        self.tokens += doc.tokens.len() as u64;
        self.text_bytes += u64::from(doc.n_bytes);
        match &mut self.writer {
            Some(Writer::Stream(writer)) => writer.push(&doc).map_err(write_error)?,
            Some(Writer::Shards(writer)) => {
                let doc = TokenDocument {
                    tokens: &doc.tokens,
                    n_bytes: doc.n_bytes,
                    domain: &doc.source,
                    key: doc.key,
                };
                writer.push(&doc).map_err(Error::other)?;
            }
            None => unreachable!("finished only after the run"),
        }
        Ok(Verdict::Keep)
    }
}

/// A token stream's error; a closed pipe among its causes is what ends the run.
fn write_error(error: curate_tokenize::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(e) = cause {
        if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            return Error::ClosedPipe;
        }
        cause = e.source();
    }
    Error::other(error)
}
