//! `curate pack`: a token stream into memory-mapped shards, and views of shards that are there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use curate_io::write_atomically;
use curate_shards::{
    LeakOptions, LongDocuments, Manifest, MixSpec, PackPolicy, RowOrder, ShardSet, ShardSetWriter, Splits,
    TokenDocument, TokenizerInfo, ViewManifest, ViewOptions, ViewRequest, WriterOptions, add_views,
    check_leak,
};
use curate_tokenize::{StreamHeader, TokenStreamReader, Tokenizer, UNICODE_VERSION};
use serde::Serialize;
use serde_json::{Value, json};

use crate::chain::parameters;
use crate::cli::{VoiceOptions, byte_size};
use crate::failure::{Exit, Failure, Result};
use crate::signals::{self, WatchedRead};
use crate::summary::{Extra, bytes, thousands};
use crate::terminal::printable;
use crate::ui;
use crate::usage::usage;

/// Write token shards that a trainer maps into memory
///
/// Reads the token stream of `curate tokenize`. Shards are in Megatron's .bin/.idx layout, with the source bytes of
/// each document beside them; a packing view for each --seq-len says which runs of which documents make a row.
/// Held-out splits are drawn by document from a keyed hash of the normalised text, or of the near-duplicate cluster where
/// `curate tokenize --cluster-field` names it: copies stay on one side, whatever the order, the number of threads or the
/// other files.
///
/// Rows hold T + 1 tokens: position i of the first T is an input, position i + 1 its target. Each row records where
/// documents start. Tokens in and out are balanced for every view; a view that loses one is an error (exit 1).
///
/// Given a shard directory instead of streams, it makes views of that, without touching a token.
///
/// A run that was interrupted is repeated with the same input: finished shards are only checked, not written again, and
/// the set comes out byte for byte the same.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate tokenize --tokenizer bytes corpus/ | curate pack --seq-len 256 --split val=0.05 -o shards/\n  curate pack tokens.arrows --seq-len 1024,2048 --policy best-fit -o shards/\n  curate pack shards/ --seq-len 4096 --mix web=0.6,code=0.3,books=0.1:4 --mix-tokens 10000000000\n  curate pack shards/ --check-leak"
)]
pub(crate) struct PackCommand {
    /// Token streams, or one shard directory; `-` or nothing is stdin
    #[arg(value_name = "STREAM")]
    inputs: Vec<PathBuf>,

    #[command(flatten)]
    stage: PackOptions,

    /// Write the closing report as JSON to this file
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    report: Option<PathBuf>,

    #[command(flatten)]
    voice: VoiceOptions,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct PackOptions {
    /// Directory of the shards
    #[arg(short, long, value_name = "DIR")]
    #[serde(skip)]
    output: Option<PathBuf>,

    /// Tokens that a row predicts; a view is written for each length given [default: 1024]
    #[arg(long, value_name = "T", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    seq_len: Vec<u32>,

    /// How documents fill rows
    #[arg(long, value_name = "POLICY", default_value = "concat")]
    policy: PolicyName,

    /// What becomes of documents longer than a row
    #[arg(long, value_name = "HOW", default_value = "split")]
    long: LongName,

    /// Train on these sources only, in these shares of tokens: they take turns, so that every beginning of the run is within
    /// a row of the shares. `:N` after a share lets rows of the source come up to N times in a cycle. Rows hold tokens of
    /// one source
    #[arg(long, value_name = "NAME=SHARE[:EPOCHS],…", help_heading = "Mix")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mix: Option<String>,

    /// Tokens of a cycle of the mix, after which it begins anew [default: as many as the epochs allow, which are 1]
    #[arg(long, value_name = "N", requires = "mix", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Mix")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mix_tokens: Option<u64>,

    /// Copy the training rows out, for storage that is slow at random access: `row` by number, or in the order in which
    /// `curate train --seed SEED` visits them first [default: 1, the trainer's seed]
    #[arg(long, value_name = "row|SEED", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = row_order)]
    #[serde(skip_serializing_if = "Option::is_none")]
    materialise: Option<RowOrder>,

    /// Held-out splits and their shares of the documents, such as val=0.01,test=0.01
    #[arg(long, value_name = "NAME=SHARE,…")]
    split: Option<String>,

    /// Key of the split
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Count the 13-grams of token ids that each held-out split shares with the training split
    #[arg(long, help_heading = "Leaks")]
    check_leak: bool,

    /// Memory for them: 12 bytes a held-out token; with less, both splits are read several times
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = byte_size, help_heading = "Leaks")]
    #[serde(skip)]
    leak_memory: usize,

    /// Tokens after which a new shard is begun
    #[arg(long, value_name = "N", default_value_t = curate_shards::DEFAULT_SHARD_TOKENS)]
    shard_tokens: u64,

    /// Replace a shard set, or a view, that is there already
    #[arg(long)]
    #[serde(skip)]
    force: bool,

    /// Write the shards anew that an interrupted run finished, instead of checking them
    #[arg(long)]
    #[serde(skip)]
    pub(crate) restart: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum PolicyName {
    /// Documents end to end, cut wherever a row ends; only the last row is padded
    Concat,
    /// Pieces placed where they fit best: few documents are cut, rows may end in padding
    BestFit,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum LongName {
    /// They go on in other rows, and no token is lost
    Split,
    /// Their first T + 1 tokens are packed; the others are counted and left out of the view
    Truncate,
}

fn row_order(text: &str) -> std::result::Result<RowOrder, String> {
    match text {
        "row" => Ok(RowOrder::Number),
        _ => {
            text.parse().map(|seed| RowOrder::Training { seed }).map_err(|_| "neither row nor a seed".into())
        }
    }
}

/// A shard set that is to be written.
#[derive(Debug, Default)]
pub(crate) struct NewSet {
    pub(crate) splits: Option<Splits>,
    pub(crate) seed: u64,
    pub(crate) shard_tokens: Option<u64>,
    /// Parameters of the stages that make it.
    pub(crate) lineage: Value,
    pub(crate) force: bool,
    pub(crate) restart: bool,
}

impl NewSet {
    /// A writer for documents of `tokenizer`; says so if it goes on with what an interrupted run left.
    pub(crate) fn writer(self, dir: &Path, tokenizer: &Tokenizer) -> Result<ShardSetWriter> {
        let info = tokenizer.info();
        let options = WriterOptions {
            tokenizer_json: tokenizer.to_json(),
            vocabulary: tokenizer.vocabulary(),
            splits: self.splits.unwrap_or_else(Splits::none),
            seed: self.seed,
            shard_tokens: self.shard_tokens.unwrap_or(curate_shards::DEFAULT_SHARD_TOKENS),
            lineage: self.lineage,
            force: self.force,
            restart: self.restart,
            ..WriterOptions::new(TokenizerInfo {
                name: info.name.clone(),
                sha256: info.sha256.clone(),
                vocab_size: info.vocab_size,
                eod: info.eod,
            })
        };
        let writer = ShardSetWriter::create(dir, options)?;
        let resume = writer.resume();
        if resume.shards > 0 {
            ui::warn(&format!(
                "{}: an interrupted run finished {} shards of {} tokens; they are checked against the input, not written",
                dir.display(),
                thousands(resume.shards),
                thousands(resume.tokens)
            ));
        }
        Ok(writer)
    }
}

impl PackOptions {
    /// A writer for documents of `tokenizer`; with `replace`, of a set that may be there already.
    pub(crate) fn writer(&self, tokenizer: &Tokenizer, replace: bool) -> Result<ShardSetWriter> {
        self.views()?; // Faults in the mix come before the work.
        let set = NewSet {
            splits: self.split.as_deref().map(Splits::parse).transpose()?,
            seed: self.seed,
            shard_tokens: Some(self.shard_tokens),
            lineage: json!({ "pack": self, "tokenize": { "unicode": UNICODE_VERSION } }),
            force: self.force || replace,
            restart: self.restart,
        };
        set.writer(self.output()?, tokenizer)
    }

    fn output(&self) -> Result<&Path> {
        self.output.as_deref().ok_or_else(|| {
            Failure::new("no directory to write to")
                .with_hint("give one with -o DIR, or a shard set to make views of")
        })
    }

    /// The views that are asked for.
    fn views(&self) -> Result<Vec<ViewRequest>> {
        let policy = match self.policy {
            PolicyName::Concat => PackPolicy::Concat,
            PolicyName::BestFit => PackPolicy::BestFit,
        };
        let long = match self.long {
            LongName::Split => LongDocuments::Split,
            LongName::Truncate => LongDocuments::Truncate,
        };
        let mix = self.mix.as_deref().map(|mix| MixSpec::parse(mix, self.mix_tokens)).transpose()?;
        let lengths = if self.seq_len.is_empty() { &[1024][..] } else { &self.seq_len[..] };
        let view = |&seq_len: &u32| ViewRequest {
            options: ViewOptions { seq_len, policy },
            long,
            mix: mix.clone(),
            materialise: self.materialise,
        };
        Ok(lengths.iter().map(view).collect())
    }

    /// Closes the shards, writes the views and the manifest.
    pub(crate) fn finish(&self, writer: ShardSetWriter) -> Result<Extra> {
        let manifest = writer.finish_with(&self.views()?)?;
        self.with_leaks(said_of_set(self.output()?, &manifest)?, self.output()?)
    }

    /// Makes views of a set that is there.
    fn extend(&self, dir: &Path) -> Result<Extra> {
        let other =
            self.output.as_deref().filter(|output| output.canonicalize().ok() != dir.canonicalize().ok());
        if other.is_some() || self.split.is_some() {
            return Err(Failure::new("a shard set keeps its tokens and its splits where they are").with_hint(
                "leave out -o and --split; `curate shards convert` copies, a new set is packed from a token stream",
            ));
        }
        let asks_for_views = !self.seq_len.is_empty() || self.mix.is_some() || self.materialise.is_some();
        if asks_for_views || !self.check_leak {
            add_views(dir, &self.views()?, self.force)?;
        }
        let manifest = ShardSet::open(dir)?.manifest().clone();
        self.with_leaks(said_of_set(dir, &manifest)?, dir)
    }

    /// Adds what held-out splits share with the training split, if that was asked for.
    fn with_leaks(&self, mut said: Extra, dir: &Path) -> Result<Extra> {
        if !self.check_leak {
            return Ok(said);
        }
        let options = LeakOptions { memory: self.leak_memory as u64, ..LeakOptions::default() };
        let report = check_leak(&ShardSet::open(dir)?, &options)?;
        let n = report.ngram;
        for leak in &report.splits {
            said.lines.push(format!(
                "  {:<8}{} of {} {n}-grams ({:.3} %) are in train too: {} of {} documents, {} of train",
                leak.split,
                thousands(leak.shared),
                thousands(leak.ngrams),
                percent(leak.shared, leak.ngrams),
                thousands(leak.documents_sharing),
                thousands(leak.documents),
                thousands(leak.train_documents_sharing)
            ));
        }
        if report.splits.is_empty() {
            said.lines.push("  no held-out split that could share anything with train".to_owned());
        }
        said.value["leaks"] = serde_json::to_value(&report).expect("counts are plain data");
        Ok(said)
    }
}

/// What there is to say of a set that was written: the counts of its splits and views, with their balance.
///
/// # Errors
/// If the tokens of a view do not balance.
pub(crate) fn said_of_set(dir: &Path, manifest: &Manifest) -> Result<Extra> {
    let mut lines = vec![format!("shards in {}", dir.display())];
    let mut views = Vec::new();
    for split in &manifest.splits {
        lines.push(format!(
            "  {:<8}{:>12} documents {:>14} tokens {:>12} of text",
            split.name,
            thousands(split.documents),
            thousands(split.tokens),
            bytes(split.bytes)
        ));
        for view in manifest.views.iter().filter(|v| v.split == split.name) {
            let balance = view.balance(split.tokens)?;
            lines.extend(lines_of_view(view, split.documents).into_iter().map(|line| format!("    {line}")));
            let mut value = parameters(view);
            value["balance"] = parameters(&balance);
            value["padding_share"] = json!(percent(view.padding, view.padding + view.tokens) / 100.0);
            views.push(value);
        }
    }
    let value = json!({ "directory": dir, "splits": manifest.splits, "views": views });
    Ok(Extra { name: "shards", value, lines })
}

/// What a view holds, and how its sources take turns.
pub(crate) fn lines_of_view(view: &ViewManifest, documents: u64) -> Vec<String> {
    let mut first = format!(
        "T={:<6}{:>12} rows, {} padding tokens ({:.3} %), {} documents cut ({:.1} %)",
        view.seq_len,
        thousands(view.rows),
        thousands(view.padding),
        percent(view.padding, view.padding + view.tokens),
        thousands(view.documents_cut),
        percent(view.documents_cut, documents)
    );
    if view.truncated > 0 {
        first += &format!(", {} tokens of them left out", thousands(view.truncated));
    }
    let mut lines = vec![first];
    if let Some(mix) = &view.mix {
        lines.push(format!(
            "mix of {} sources, {} rows a cycle; {} tokens of other sources left out",
            mix.sources.len(),
            thousands(mix.samples),
            thousands(mix.left_out)
        ));
        let drawn: f64 = mix.sources.iter().map(|source| source.drawn_targets()).sum();
        for source in &mix.sources {
            lines.push(format!(
                "  {:<12}{:>6.2} % of tokens: {} of {} rows, {:.2} epochs",
                printable(&source.name),
                100.0 * source.drawn_targets() / drawn,
                thousands(source.draws),
                thousands(source.rows),
                source.epochs()
            ));
        }
    }
    if let Some(rows) = &view.materialised {
        let order = match rows.order {
            RowOrder::Number => "by number".to_owned(),
            RowOrder::Training { seed } => format!("as seed {seed} visits them"),
        };
        lines.push(format!("rows copied out {order}, {}", bytes(rows.bytes)));
    }
    lines
}

/// 0 for a share of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

pub(crate) fn execute(command: &PackCommand) -> Result<Exit> {
    let start = Instant::now();
    if let [dir] = &command.inputs[..]
        && Manifest::path(dir).is_file()
    {
        let extra = command.stage.extend(dir)?;
        publish(command, &extra, start)?;
        return Ok(Exit::Done);
    }
    command.stage.output()?;
    let mut packing: Option<(StreamHeader, ShardSetWriter)> = None;
    let stdin = [PathBuf::from("-")];
    let inputs = if command.inputs.is_empty() { &stdin[..] } else { &command.inputs[..] };
    for path in inputs {
        pack_stream(path, &command.stage, &mut packing)
            .map_err(|failure| failure.context(format!("cannot pack {}", path.display())))?;
    }
    let (_, writer) = packing.expect("each of the streams, of which there is one at least, sets it");
    let extra = command.stage.finish(writer)?;
    publish(command, &extra, start)?;
    Ok(Exit::Done)
}

fn pack_stream(
    path: &Path,
    options: &PackOptions,
    packing: &mut Option<(StreamHeader, ShardSetWriter)>,
) -> Result<()> {
    let mut reader = TokenStreamReader::new(open(path)?)?;
    if packing.is_none() {
        let header = reader.header().clone();
        let writer = options.writer(&header.tokenizer()?, false)?;
        *packing = Some((header, writer));
    }
    let (first, writer) = packing.as_mut().expect("set just above");
    let (ours, theirs) = (&first.tokenizer, &reader.header().tokenizer);
    if ours.sha256 != theirs.sha256 || ours.eod != theirs.eod {
        return Err(Failure::new(format!(
            "its tokenizer is {} ({}), the first stream's is {} ({})",
            theirs.name, theirs.sha256, ours.name, ours.sha256
        ))
        .with_hint("one shard set holds the tokens of one tokenizer: pack the streams apart"));
    }
    while let Some(batch) = reader.next_batch()? {
        signals::check()?;
        for doc in batch.iter() {
            writer.push(&TokenDocument {
                tokens: doc.tokens,
                n_bytes: doc.n_bytes,
                domain: doc.source,
                key: doc.key,
            })?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(WatchedRead::new(io::stdin())));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(io::BufReader::with_capacity(1 << 20, file))),
        Err(error) => {
            Err(Failure::new(error.to_string()).with_hint("check the path; `-` reads standard input"))
        }
    }
}

fn publish(command: &PackCommand, extra: &Extra, start: Instant) -> Result<()> {
    let used = usage();
    let seconds = start.elapsed().as_secs_f64();
    let report = json!({
        "command": "pack",
        "version": env!("CARGO_PKG_VERSION"),
        "parameters": parameters(&command.stage),
        "shards": extra.value,
        "seconds": seconds,
        "cpu_seconds": used.cpu_seconds,
        "peak_rss_bytes": used.peak_rss_bytes,
    });
    if let Some(path) = &command.report {
        write_atomically(path, format!("{report:#}\n").as_bytes())?;
    }
    if !command.voice.quiet {
        let memory = bytes(used.peak_rss_bytes);
        let closing = format!("  {seconds:.1} s, {:.1} CPU-s, {memory} peak memory", used.cpu_seconds);
        ui::summary(&format!("pack: {}\n{closing}", extra.lines.join("\n  ")), &report);
    }
    Ok(())
}
