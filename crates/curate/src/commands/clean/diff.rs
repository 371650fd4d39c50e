//! `curate clean diff`: where recipes disagree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use curate_clean::{CleanScratch, Cleaner, Judge, Recipe, values};
use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};
use serde::Serialize;
use serde_json::json;

use super::{load_recipe, set_thresholds};
use crate::cli::StreamOptions;
use crate::failure::{Exit, Failure, Result};
use crate::scan::Scan;
use crate::summary::{Extra, Summary, thousands};
use crate::terminal::{printable, shortened};
use crate::ui;
use crate::usage::usage;

/// Characters kept of a sample's text.
const SAMPLE_CHARS: usize = 200;
/// Recipes that can be compared at once: a cell is a set of them.
const MAX_RECIPES: usize = 16;

/// Show where recipes disagree, with samples of the documents that they disagree about
///
/// One pass over the documents. Recipes that count the same words of the same texts are judged on one measuring. The
/// answer is the data of this command: it goes to stdout.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate clean diff --recipes gopher,curate-v1 corpus/\n  curate clean diff --recipes curate-v1,mine.toml --samples 10 --json corpus/ > diff.json"
)]
pub(crate) struct DiffCommand {
    #[command(flatten)]
    stream: StreamOptions,

    /// The recipes to compare, by name or file
    #[arg(long, value_name = "NAME|FILE.toml,…", value_delimiter = ',', required = true)]
    recipes: Vec<String>,

    /// Change a threshold of those recipes that have one of this name; can be given more than once
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Documents to show of each kind of disagreement
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(..=1000))]
    samples: u16,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(command: &DiffCommand) -> Result<Exit> {
    let start = Instant::now();
    let stream = &command.stream;
    let judges = Judges::new(&command.recipes, &command.set)?;
    let mut tally = Tally::new(judges.names.clone(), usize::from(command.samples));
    let report = Scan::of("clean diff", stream)?.run(&judges, &mut tally)?;
    let facts = tally.facts();
    let value = serde_json::to_value(&facts).expect("facts are plain data");
    ui::print(&if command.json { format!("{value:#}\n") } else { facts.tables() })?;
    let summary = Summary {
        command: "clean diff",
        parameters: json!({ "input": stream, "recipes": command.recipes, "set": command.set }),
        report,
        extras: vec![Extra { name: "diff", value, lines: Vec::new() }],
        seconds: start.elapsed().as_secs_f64(),
        usage: usage(),
    };
    summary.publish(stream, &[])
}

/// The recipes, ready to judge.
struct Judges {
    names: Vec<String>,
    /// One for each way of measuring, with the recipes that are judged by it.
    groups: Vec<Group>,
}

struct Group {
    cleaner: Cleaner,
    by: By,
}

enum By {
    /// By the numbers of one measuring; each with its place among the recipes.
    Numbers(Vec<(usize, Judge)>),
    /// By the cleaner itself, as the recipe of this place edits the text between its rules.
    Text(usize),
}

impl Judges {
    fn new(names: &[String], settings: &[String]) -> Result<Self> {
        if !(2..=MAX_RECIPES).contains(&names.len()) {
            let message = format!("--recipes takes 2 to {MAX_RECIPES} recipes, found {}", names.len());
            return Err(Failure::new(message).with_hint("for example --recipes gopher,curate-v1"));
        }
        let mut recipes = names.iter().map(|name| load_recipe(name)).collect::<Result<Vec<Recipe>>>()?;
        for setting in settings {
            set_where_known(&mut recipes, setting)?;
        }
        let mut groups: Vec<Group> = Vec::new();
        for (place, recipe) in recipes.into_iter().enumerate() {
            let measures_alike = |group: &&mut Group| {
                let other = group.cleaner.recipe();
                let alike = (other.words(), other.normalise()) == (recipe.words(), recipe.normalise());
                alike && matches!(group.by, By::Numbers(_))
            };
            if recipe.edits().next().is_some() {
                groups.push(Group { cleaner: Cleaner::new(recipe)?, by: By::Text(place) });
                continue;
            }
            let judge = (place, Judge::new(&recipe)?);
            match groups.iter_mut().find(measures_alike) {
                Some(Group { by: By::Numbers(judges), .. }) => judges.push(judge),
                _ => groups.push(Group { cleaner: Cleaner::new(recipe)?, by: By::Numbers(vec![judge]) }),
            }
        }
        Ok(Self { names: names.to_vec(), groups })
    }
}

/// Changes a threshold in every recipe that has it; if none has, says what is wrong as one recipe would.
fn set_where_known(recipes: &mut [Recipe], setting: &str) -> Result<()> {
    let name = setting.split('=').next().unwrap_or("").trim();
    let mut known: Vec<&mut Recipe> =
        recipes.iter_mut().filter(|r| r.thresholds().contains_key(name)).collect();
    if known.is_empty() {
        let first = recipes.iter_mut().next().expect("two recipes at least");
        return set_thresholds(first, &[setting.to_owned()]);
    }
    known.iter_mut().try_for_each(|recipe| set_thresholds(recipe, &[setting.to_owned()]))
}

/// Why each recipe drops a document; `None` where it keeps it.
type Reasons = Vec<Option<Arc<str>>>;

impl Mapper for Judges {
    type Work = Reasons;
    type Scratch = CleanScratch;

    fn map(&self, doc: &mut Document<'_>, scratch: &mut CleanScratch, _: &mut Counters) -> Work<Reasons> {
        let mut reasons = vec![None; self.names.len()];
        let reason = |verdict| match verdict {
            Verdict::Keep => None,
            Verdict::Drop(dropped) => Some(dropped.reason),
        };
        for Group { cleaner, by } in &self.groups {
            match by {
                By::Text(place) => {
                    let work = cleaner.map(&mut doc.clone(), scratch, &mut Counters::default());
                    reasons[*place] = match work {
                        Work::Decided(verdict) => reason(verdict),
                        Work::Pending(never) => match never {},
                    };
                }
                By::Numbers(judges) => {
                    let numbers: Vec<f64> = values(&cleaner.measure_all(doc.text())).collect();
                    judges.iter().for_each(|(place, judge)| reasons[*place] = reason(judge.judge(&numbers)));
                }
            }
        }
        Work::Pending(reasons)
    }
}

/// Counts verdicts in input order. Memory: a counter for each combination of reasons that occurs, and the samples.
struct Tally {
    names: Vec<String>,
    samples: usize,
    documents: u64,
    kept: Vec<u64>,
    /// By the set of recipes that keep a document: one bit each.
    cells: BTreeMap<u32, Cell>,
}

#[derive(Default)]
struct Cell {
    documents: u64,
    /// How often each combination of reasons occurred.
    reasons: BTreeMap<Reasons, u64>,
    samples: Vec<Sample>,
}

#[derive(Serialize, Clone)]
struct Sample {
    id: String,
    text: String,
    reasons: Vec<Option<String>>,
}

impl Tally {
    fn new(names: Vec<String>, samples: usize) -> Self {
        let kept = vec![0; names.len()];
        Self { names, samples, documents: 0, kept, cells: BTreeMap::new() }
    }

    /// The cells, by how many documents they hold: those on which all agree last.
    fn facts(&self) -> Facts {
        let all = (1_u32 << self.names.len()) - 1;
        let mut cells: Vec<(u32, &Cell)> =
            self.cells.iter().map(|(keepers, cell)| (*keepers, cell)).collect();
        cells.sort_by_key(|(keepers, cell)| {
            (*keepers == 0 || *keepers == all, std::cmp::Reverse(cell.documents))
        });
        let disagreed: u64 =
            cells.iter().filter(|(k, _)| *k != 0 && *k != all).map(|(_, cell)| cell.documents).sum();
        Facts {
            documents: self.documents,
            recipes: self
                .names
                .iter()
                .zip(&self.kept)
                .map(|(name, kept)| RecipeFacts { name: name.clone(), kept: *kept })
                .collect(),
            agreed: self.documents - disagreed,
            disagreed,
            cells: cells.into_iter().map(|(keepers, cell)| self.cell_facts(keepers, cell)).collect(),
        }
    }

    fn cell_facts(&self, keepers: u32, cell: &Cell) -> CellFacts {
        let kept_by: Vec<String> = self
            .names
            .iter()
            .enumerate()
            .filter(|(i, _)| keepers >> i & 1 == 1)
            .map(|(_, n)| n.clone())
            .collect();
        let mut reasons: Vec<ReasonFacts> = cell
            .reasons
            .iter()
            .map(|(reasons, n)| ReasonFacts { reasons: owned(reasons), documents: *n })
            .collect();
        reasons.sort_by_key(|row| std::cmp::Reverse(row.documents));
        CellFacts { kept_by, documents: cell.documents, reasons, samples: cell.samples.clone() }
    }
}

fn owned(reasons: &Reasons) -> Vec<Option<String>> {
    reasons.iter().map(|reason| reason.as_ref().map(|reason| reason.to_string())).collect()
}

impl Gate for Tally {
    type Work = Reasons;

    fn admit(&mut self, doc: &mut Document<'_>, reasons: Reasons) -> curate_core::Result<Verdict> {
        self.documents += 1;
        let mut keepers = 0;
        for (i, _) in reasons.iter().enumerate().filter(|(_, reason)| reason.is_none()) {
            self.kept[i] += 1;
            keepers |= 1 << i;
        }
        let all = (1_u32 << self.names.len()) - 1;
        let cell = self.cells.entry(keepers).or_default();
        cell.documents += 1;
        if cell.samples.len() < self.samples && keepers != all {
            let text = doc.text().trim_start().chars().take(SAMPLE_CHARS).collect();
            cell.samples.push(Sample { id: doc.id().to_owned(), text, reasons: owned(&reasons) });
        }
        *cell.reasons.entry(reasons).or_default() += 1;
        Ok(Verdict::Keep)
    }
}

#[derive(Serialize)]
struct Facts {
    documents: u64,
    recipes: Vec<RecipeFacts>,
    /// Documents that all recipes keep, or that all drop.
    agreed: u64,
    disagreed: u64,
    cells: Vec<CellFacts>,
}

#[derive(Serialize)]
struct RecipeFacts {
    name: String,
    kept: u64,
}

/// The documents that just these recipes keep.
#[derive(Serialize)]
struct CellFacts {
    kept_by: Vec<String>,
    documents: u64,
    /// Reasons in the order of the recipes, null for one that keeps.
    reasons: Vec<ReasonFacts>,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct ReasonFacts {
    reasons: Vec<Option<String>>,
    documents: u64,
}

impl Facts {
    fn tables(&self) -> String {
        let mut out = String::new();
        let mut line =
            |text: &str| writeln!(out, "{}", text.trim_end()).expect("writing to a String cannot fail");
        let share = |n: u64| 100.0 * n as f64 / self.documents.max(1) as f64;
        let count = |name: &str, n: u64| format!("  {name:<44}{:>12}{:>8.2} %", thousands(n), share(n));
        line(&format!("{} documents, {} recipes", thousands(self.documents), self.recipes.len()));
        self.recipes.iter().for_each(|recipe| line(&count(&format!("kept by {}", recipe.name), recipe.kept)));
        line("");
        line(&count("verdicts that differ", self.disagreed));
        self.cells.iter().for_each(|cell| line(&count(&self.cell_name(cell), cell.documents)));
        for cell in &self.cells {
            let agreed = cell.kept_by.len() == self.recipes.len();
            if agreed {
                continue;
            }
            line("");
            line(&format!("{}: {} documents", self.cell_name(cell), thousands(cell.documents)));
            for row in &cell.reasons {
                line(&format!("  {:>12}  {}", thousands(row.documents), self.reasons(&row.reasons)));
            }
            for sample in &cell.samples {
                line(&format!("    {}  [{}]", shortened(&sample.id, 40), self.reasons(&sample.reasons)));
                let text = sample.text.split_whitespace().collect::<Vec<_>>().join(" ");
                line(&format!("      {}", shortened(&printable(&text), 90)));
            }
        }
        out
    }

    fn cell_name(&self, cell: &CellFacts) -> String {
        match cell.kept_by.len() {
            0 => "kept by none".to_owned(),
            n if n == self.recipes.len() => "kept by all".to_owned(),
            _ => format!("kept by {} only", cell.kept_by.join(" and ")),
        }
    }

    /// `gopher: too_few_words, curate-v1: keeps`
    fn reasons(&self, reasons: &[Option<String>]) -> String {
        let one = |(recipe, reason): (&RecipeFacts, &Option<String>)| {
            format!("{}: {}", recipe.name, reason.as_deref().unwrap_or("keeps"))
        };
        self.recipes.iter().zip(reasons).map(one).collect::<Vec<_>>().join(", ")
    }
}
