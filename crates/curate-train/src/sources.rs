//! How much of each source a run has seen. A source is a domain of the documents, such as `web` or `code`.
//!
//! Targets are counted on the thread that reads batches, where they are next to their documents. Of a view with a mix the number
//! of a row says its source; of others each run of a row is looked up.

use curate_shards::{Row, ShardSet, Split, View};

use crate::Result;
use crate::model::IGNORE;

/// Sources at most: where domains are the names of web sites, every line of the log would be a long list.
const MOST_SOURCES: usize = 64;

/// The sources that the rows of a view come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    names: Vec<String>,
    finder: Finder,
}

#[derive(Clone, Debug)]
enum Finder {
    /// The first row of each source, ascending from 0.
    Rows(Vec<u64>),
    /// The source of each domain of the set, if it has one.
    Domains(Vec<Option<usize>>),
}

impl Default for Finder {
    fn default() -> Finder {
        Finder::Rows(Vec::new())
    }
}

impl Sources {
    /// Those of a view of the split: the mix's, else the domains that have documents there. None if that is one alone, or
    /// more than 64.
    pub fn of(shards: &ShardSet, view: &View, split: &str) -> Sources {
        let manifest = shards.manifest();
        let sources = match &view.manifest().mix {
            Some(mix) => Sources {
                names: mix.sources.iter().map(|source| source.name.clone()).collect(),
                finder: Finder::Rows(mix.sources.iter().map(|source| source.first_row).collect()),
            },
            None => {
                let split = manifest.splits.iter().find(|other| other.name == split);
                let names: Vec<String> =
                    split.iter().flat_map(|split| &split.domains).map(|count| count.domain.clone()).collect();
                let place = |domain: &String| names.iter().position(|name| name == domain);
                let places = match names.len() <= MOST_SOURCES {
                    true => manifest.domains.iter().map(place).collect(),
                    false => Vec::new(),
                };
                Sources { names, finder: Finder::Domains(places) }
            }
        };
        if (2..=MOST_SOURCES).contains(&sources.names.len()) { sources } else { Sources::default() }
    }

    /// Their names; `""` stands for documents without a domain. Empty if nothing is counted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds the targets of a row that count to those of their sources. `targets` are the row's, one for each token but the
    /// first; a target belongs to the document that it is a token of.
    pub fn count(
        &self,
        (view, split): (&View, &Split),
        number: u64,
        row: &Row,
        targets: &[i64],
        counts: &mut [u64],
    ) -> Result<()> {
        let scored = |targets: &[i64]| targets.iter().filter(|target| **target != IGNORE).count() as u64;
        match &self.finder {
            _ if self.names.is_empty() => {}
            Finder::Rows(first_rows) => {
                let source = first_rows.partition_point(|first| *first <= number) - 1;
                counts[source] += scored(targets);
            }
            Finder::Domains(places) => {
                let starts = row.document_starts.iter().map(|&start| (start as usize).saturating_sub(1));
                let ends = starts.clone().skip(1).chain([targets.len()]);
                for (run, (start, end)) in view.runs(number)?.zip(starts.zip(ends)) {
                    let domain = usize::from(split.domain(run.document)?);
                    // Every domain of the split has a place.
                    if let Some(source) = places.get(domain).copied().flatten() {
                        counts[source] += scored(&targets[start..end]);
                    }
                }
            }
        }
        Ok(())
    }
}
