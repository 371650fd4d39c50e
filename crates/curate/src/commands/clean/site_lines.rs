//! `curate clean site-lines`: which lines do the pages of a site share?

use std::path::PathBuf;

use clap::Args;
use curate_clean::{SiteLinesLearner, SiteLinesOptions, host};
use curate_core::{Counters, Document, Gate, Mapper, Stage, Verdict, Work};
use curate_io::write_atomically;
use serde_json::{Value, json};

use crate::chain::{Chain, Ending, Kind, Link, OfDocument, View};
use crate::cli::{StreamOptions, byte_size};
use crate::commands::dedup::url_of;
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, bytes, thousands};

/// Learn the lines that many pages of a site share: headers, footers, menus
///
/// Reads documents with a `url` or `metadata.url` and writes the lines to a file, by which `curate clean --site-lines` then cuts
/// them. The answer does not depend on the order of the pages.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate clean site-lines crawl/*.jsonl.zst -o site.lines\n  curate clean crawl/*.jsonl.zst --site-lines site.lines -o clean/"
)]
pub(crate) struct SiteLinesCommand {
    #[command(flatten)]
    stream: StreamOptions,

    /// Write the lines to this file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Look at so many lines at the start and the end of a page; 0: at all
    #[arg(long, value_name = "N", default_value_t = 5)]
    edge_lines: u32,

    /// Pages of a site that must have a line
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    min_pages: u32,

    /// The share of a site's pages that they must be
    #[arg(long, value_name = "RATIO", default_value_t = 0.3)]
    min_share: f64,

    /// Memory for counts; when it is full, a random half of hosts or lines is no longer counted, and that is said
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = byte_size)]
    memory: usize,
}

pub(crate) fn execute(command: &SiteLinesCommand) -> Result<Exit> {
    let options = SiteLinesOptions {
        edge_lines: (command.edge_lines > 0).then_some(command.edge_lines),
        min_pages: command.min_pages,
        min_share: command.min_share,
    };
    let parameters = json!({
        "edge_lines": options.edge_lines, "min_pages": options.min_pages, "min_share": options.min_share,
    });
    let view = LearnView {
        mapper: HostOf(url_of()?),
        gate: LearnGate { learner: SiteLinesLearner::new(options, command.memory), pages: 0 },
        output: command.output.clone(),
    };
    let link = Link { kind: Kind::View(Box::new(view)), logs: Vec::new(), covers: 1, parameters };
    let chain = Chain {
        command: "clean site-lines",
        links: vec![link],
        ending: Ending::Gate,
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| match links.last_mut() {
        Some(Link { kind: Kind::View(view), .. }) => view.finish(),
        _ => Ok(Vec::new()),
    })
}

struct LearnView {
    mapper: HostOf,
    gate: LearnGate,
    output: PathBuf,
}

impl View for LearnView {
    fn name(&self) -> &'static str {
        "site_lines"
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage::gated("site_lines", &self.mapper, &mut self.gate)
    }

    fn reasons(&self) -> Vec<&str> {
        Vec::new()
    }

    fn finish(&mut self) -> Result<Vec<Extra>> {
        let lines = self.gate.learner.finish();
        let file = lines.to_bytes();
        write_atomically(&self.output, &file)?;
        let (hosts, counted) = self.gate.learner.kept_share();
        let mut said = vec![format!(
            "site lines: {} shared lines of {} pages with an address, {}",
            thousands(lines.len() as u64),
            thousands(self.gate.pages),
            bytes(file.len() as u64)
        )];
        if hosts < 1.0 || counted < 1.0 {
            said.push(format!(
                "site lines: memory was full: {:.0} % of hosts and {:.0} % of lines were counted",
                100.0 * hosts,
                100.0 * counted
            ));
        }
        let value: Value = json!({
            "lines": lines.len(), "pages": self.gate.pages, "hosts_counted": hosts, "lines_counted": counted,
        });
        Ok(vec![Extra { name: "site_lines", value, lines: said }])
    }
}

struct HostOf(OfDocument<Option<String>>);

impl Mapper for HostOf {
    type Work = Option<String>;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), counters: &mut Counters) -> Work<Self::Work> {
        let host = (self.0)(doc).and_then(|url| host(&url).map(|host| host.into_owned()));
        counters.add("without_url", u64::from(host.is_none()));
        Work::Pending(host)
    }
}

struct LearnGate {
    learner: SiteLinesLearner,
    pages: u64,
}

impl Gate for LearnGate {
    type Work = Option<String>;

    fn admit(&mut self, doc: &mut Document<'_>, host: Option<String>) -> curate_core::Result<Verdict> {
        if let Some(host) = host {
            self.pages += 1;
            self.learner.add(&host, doc.text());
        }
        Ok(Verdict::Keep)
    }
}
