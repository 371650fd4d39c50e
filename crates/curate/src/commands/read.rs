//! `curate read`: any supported input as JSON Lines of the document schema.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use curate_clean::{Engine, ExtractOptions, PageExtractor, PageText};
use curate_io::{Extraction, Extractor, InputOptions, MainText, Page, Records, TextSplit};
use serde::Serialize;

use crate::chain::{Chain, Ending};
use crate::cli::{OutputOptions, StreamOptions};
use crate::failure::{Exit, Failure, Result};

/// Read anything as documents, one JSON object a line
///
/// Inputs are told apart by content and name and may be mixed: JSON Lines, Parquet, Arrow, CSV, plain text, Markdown,
/// HTML, WARC, ARC, WET, tar archives of these; .gz, .zst, .bz2, .xz and .lz4 of all; files, directories, globs,
/// s3://, gs://, az:// and https:// addresses.
///
/// Every document gets an `id` (its own, or FILE:LINE, or the file's path) and its text under `text`; records that
/// have both leave byte for byte. Of a web page the main text is kept, with url, title, dates and charset. Records
/// that are no documents (requests, images, error pages) are set aside and counted by what they are.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate read books/*.txt > books.jsonl\n  curate read crawl/*.warc.gz --extract trafilatura -o pages/\n  curate read dump/ --text-field body -o dump.parquet\n  curate read poems.txt --split-on blank-line > poems.jsonl"
)]
pub(crate) struct ReadCommand {
    #[command(flatten)]
    stage: ReadOptions,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

/// How inputs that are not records yet become documents.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct ReadOptions {
    /// How the main text of a web page is found
    #[arg(long, value_name = "ENGINE", default_value = "text")]
    extract: EngineName,

    /// Give up a page with more tags than this
    #[arg(long, value_name = "TAGS", default_value_t = 200_000)]
    max_page_nodes: usize,

    /// Give up a page that takes longer than this, in milliseconds; 0 for no limit. The only setting that can make
    /// the output depend on the machine
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    max_page_time: u64,

    /// Where a plain text is cut into documents: blank-line, or a regular expression; whole files otherwise
    #[arg(long, value_name = "blank-line|REGEX")]
    split_on: Option<String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { extract: EngineName::Text, max_page_nodes: 200_000, max_page_time: 10_000, split_on: None }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum EngineName {
    /// The page without its furniture (navigation, link lists, banners); the fastest, and of the best recall
    Text,
    /// What a reader mode shows; lets the least boilerplate through
    Readability,
    /// Trafilatura's rules
    Trafilatura,
    /// Trafilatura's text, and what only readability found at its place
    Union,
}

impl ReadOptions {
    /// How files of items that documents are compared with are opened, by default.
    pub(crate) fn items(&self) -> Result<InputOptions> {
        Ok(InputOptions {
            format: None,
            block_bytes: 1 << 20,
            max_record_bytes: 1 << 30,
            max_expansion: 1000,
            split: self.split()?,
        })
    }

    /// How inputs are opened.
    pub(crate) fn input_options(&self, stream: &StreamOptions) -> Result<InputOptions> {
        Ok(InputOptions {
            format: stream.format.map(Into::into),
            block_bytes: stream.block_size,
            max_record_bytes: stream.max_record_bytes,
            max_expansion: stream.max_expansion,
            split: self.split()?,
        })
    }

    fn split(&self) -> Result<TextSplit> {
        let Some(split_on) = &self.split_on else { return Ok(TextSplit::Whole) };
        if split_on == "blank-line" {
            return Ok(TextSplit::BlankLine);
        }
        TextSplit::separator(split_on).map_err(|e| {
            Failure::new(e.to_string()).context(format!("--split-on {split_on} is no regular expression"))
        })
    }

    /// The codec of all records.
    pub(crate) fn codec(&self, stream: &StreamOptions, canonical: bool) -> Result<Records> {
        let engine = match self.extract {
            EngineName::Readability => Engine::Readability,
            EngineName::Trafilatura => Engine::Trafilatura,
            EngineName::Text => Engine::Text,
            EngineName::Union => Engine::Union,
        };
        let options =
            ExtractOptions { engine, max_nodes: self.max_page_nodes, max_millis: self.max_page_time };
        let codec = Records::new(&stream.text_field, &stream.id_field)?
            .with_extractor(Arc::new(Pages(PageExtractor::new(options))));
        Ok(if canonical { codec.canonical() } else { codec })
    }
}

/// Extraction as the codec asks for it.
struct Pages(PageExtractor);

impl Extractor for Pages {
    fn extract(&self, page: Page<'_>) -> Extraction {
        match self.0.extract(page.html, page.url) {
            PageText::Text(found) => Extraction::Text(MainText {
                text: found.text,
                title: found.title,
                date: found.date,
                lang: found.lang,
            }),
            PageText::SetAside(reason) => Extraction::SetAside(reason),
        }
    }
}

pub(crate) fn execute(command: &ReadCommand) -> Result<Exit> {
    let chain = Chain {
        command: "read",
        links: Vec::new(),
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: command.stage.clone(),
        canonical: true,
    };
    chain.run(|_| Ok(Vec::new()))
}
