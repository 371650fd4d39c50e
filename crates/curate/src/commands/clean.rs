//! `curate clean`: is this text worth keeping?

pub(crate) mod guards;
mod site_lines;
pub(crate) mod stats;
mod rejudge;
mod annotate;
mod explain;
mod diff;
mod list;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use curate_clean::{Cleaner, Recipe, Words};
use curate_io::DropLogStyle;
use serde::Serialize;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::clean::guards::{Guard, GuardOptions};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};

/// Normalise texts and drop those that a recipe's rules call poor, each with its reason
///
/// A recipe is a list of rules over named statistics of a document; the first rule that fires drops it. Texts are
/// normalised first: encoding repaired, NFC, control characters out, line ends unified.
///
/// Statistics can be kept (--stats) and judged again by other thresholds without reading a text (--from-stats), handed
/// to other tools (--annotate), and shown for one document rule by rule (--explain).
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  curate clean raw.jsonl.zst -o clean.jsonl.zst --rejects rejects.jsonl\n  curate clean --recipe gopher --set min_words=20 < raw.jsonl > clean.jsonl\n  curate clean raw/ -o clean/ --stats stats.parquet\n  curate clean --from-stats stats.parquet --set min_words=20 -o verdicts.jsonl\n  curate clean raw.jsonl --explain-id doc-17\n  curate clean diff --recipes gopher,curate-v1 raw/"
)]
pub(crate) struct CleanCommand {
    #[command(subcommand)]
    view: Option<CleanView>,

    #[command(flatten)]
    stage: CleanOptions,

    #[command(flatten)]
    statistics: StatisticsOptions,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Subcommand)]
enum CleanView {
    Diff(diff::DiffCommand),
    SiteLines(site_lines::SiteLinesCommand),
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct CleanOptions {
    /// A built-in recipe (--list-recipes shows them) or a recipe file
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "curate-v1")]
    recipe: String,

    /// Change one of the recipe's thresholds; can be given more than once
    #[arg(long = "set", value_name = "NAME=VALUE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set: Vec<String>,

    /// Have the rules count these words instead of the recipe's: `spacy-en` are those that datatrove counts as shipped
    #[arg(long, value_name = "SPLITTER", value_parser = Words::ALL.map(Words::name))]
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<String>,

    /// Write dropped documents here, each with the rule, value and threshold that dropped it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    rejects: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    guards: GuardOptions,
}

/// What is done with statistics beside, or in place of, cleaning.
#[derive(Args)]
#[command(next_help_heading = "Statistics")]
struct StatisticsOptions {
    /// Also write every statistic of every document, with verdict and reason: a table in Parquet (NAME.parquet) or
    /// JSON Lines (.gz, .zst)
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,

    /// Judge the statistics that --stats has written, without measuring. With INPUT (or `-`) the documents are kept or
    /// dropped by them, and must come in the same order; without it the output is a verdict a line
    #[arg(long, value_name = "FILE", conflicts_with = "stats")]
    from_stats: Option<PathBuf>,

    /// Drop nothing: write statistics and the rules that fire as dolma attributes, to a file or below DIR/ as
    /// attributes/RECIPE/NAME.jsonl.gz for each input
    #[arg(long, value_name = "FILE|DIR/", conflicts_with_all = ["stats", "from_stats", "rejects"])]
    annotate: Option<PathBuf>,

    /// Show what each rule says of each document, and where: value, threshold, places in the text
    #[arg(long, conflicts_with_all = ["stats", "from_stats", "annotate", "rejects", "output"])]
    explain: bool,

    /// Explain only the document of this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["stats", "from_stats", "annotate", "rejects", "output"])]
    explain_id: Option<String>,

    /// List the built-in recipes
    #[arg(long)]
    list_recipes: bool,

    /// List the statistics that rules can ask for, with unit, source and formula
    #[arg(long)]
    list_statistics: bool,

    /// Print explanations and lists as JSON, an object a line
    #[arg(long)]
    json: bool,
}

impl CleanOptions {
    pub(crate) fn prepare(&self) -> Result<Vec<Link>> {
        self.links(Kind::Clean(Box::new(Cleaner::new(self.recipe()?)?)))
    }

    /// A stage with what stands around it, and these options' logs.
    fn links(&self, kind: Kind) -> Result<Vec<Link>> {
        let (before, after) = self.guards.prepare(self.recipe()?.pii())?;
        let guard = |guard: Guard| Kind::Guard(Box::new(guard));
        let kinds: Vec<Kind> =
            before.into_iter().map(guard).chain([kind]).chain(after.into_iter().map(guard)).collect();
        let mut logs: Vec<_> =
            self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents)).collect();
        let count = kinds.len();
        let links = kinds.into_iter().enumerate().map(|(i, kind)| Link {
            covers: count - i,
            logs: std::mem::take(&mut logs),
            parameters: if kind.is_guard() { serde_json::Value::Null } else { parameters(self) },
            kind,
        });
        Ok(links.collect())
    }

    /// The recipe with its thresholds set.
    fn recipe(&self) -> Result<Recipe> {
        let mut recipe = load_recipe(&self.recipe)?;
        set_thresholds(&mut recipe, &self.set)?;
        if let Some(words) = self.words.as_deref().and_then(|name| name.parse().ok()) {
            recipe.set_words(words);
        }
        Ok(recipe)
    }

    /// All that the stage's verdicts depend on: the options, and what stands in a recipe file.
    pub(crate) fn fingerprint(&self) -> Result<serde_json::Value> {
        let recipe = if is_file(&self.recipe) { read_recipe(&self.recipe)? } else { String::new() };
        Ok(
            serde_json::json!({ "options": self, "recipe": recipe, "rejects": self.rejects.is_some(), "files": self.guards.files()? }),
        )
    }
}

/// Whether a recipe is a file. Names have dots too (`dolma-v1.5`), but no slash and no `.toml`.
fn is_file(recipe: &str) -> bool {
    recipe.contains(['/', '\\']) || recipe.ends_with(".toml")
}

fn read_recipe(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Failure::new(e.to_string()).context(format!("cannot read the recipe {path}")))
}

/// The recipe of a name, or in a file.
fn load_recipe(recipe: &str) -> Result<Recipe> {
    match is_file(recipe) {
        true => Ok(Recipe::from_toml(&read_recipe(recipe)?, recipe)?),
        false => Ok(Recipe::builtin(recipe)?),
    }
}

fn set_thresholds(recipe: &mut Recipe, settings: &[String]) -> Result<()> {
    Ok(settings.iter().try_for_each(|setting| recipe.set(setting))?)
}

pub(crate) fn execute(command: &CleanCommand) -> Result<Exit> {
    let CleanCommand { view, stage, statistics, stream, output } = command;
    match view {
        Some(CleanView::Diff(command)) => return diff::execute(command),
        Some(CleanView::SiteLines(command)) => return site_lines::execute(command),
        None => {}
    }
    if statistics.list_recipes {
        return list::recipes(statistics.json);
    }
    if statistics.list_statistics {
        return list::all_statistics(statistics.json);
    }
    if stage.guards.is_used()
        && (statistics.explain
            || statistics.explain_id.is_some()
            || statistics.annotate.is_some()
            || statistics.from_stats.is_some())
    {
        return Err(Failure::new("statistics are judged and shown for rules only")
            .with_hint("leave out the options on addresses, languages, words and personal data"));
    }
    if statistics.explain || statistics.explain_id.is_some() {
        let request = explain::Request { id: statistics.explain_id.as_deref(), json: statistics.json };
        return explain::run(Cleaner::new(stage.recipe()?)?, &request, stream);
    }
    if let Some(path) = &statistics.annotate {
        return annotate::run(Cleaner::new(stage.recipe()?)?, path, parameters(stage), stream, output);
    }
    if let Some(path) = &statistics.from_stats {
        let recipe = stage.recipe()?;
        let rows = rejudge::Rows::open(path, &recipe)?;
        if stream.inputs.is_empty() {
            return rejudge::judge_rows(rows, recipe, parameters(stage), stream, output);
        }
        let view = rejudge::RejudgeView::new(rows, recipe)?;
        return clean(stage.links(Kind::View(Box::new(view)))?, stream, output);
    }
    if let Some(path) = &statistics.stats {
        let view = stats::StatsView::create(Cleaner::new(stage.recipe()?)?, path)?;
        return clean(stage.links(Kind::View(Box::new(view)))?, stream, output);
    }
    clean(stage.prepare()?, stream, output)
}

fn clean(links: Vec<Link>, stream: &StreamOptions, output: &OutputOptions) -> Result<Exit> {
    let chain = Chain {
        command: "clean",
        links,
        ending: Ending::Documents(output.clone()),
        stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| {
        let mut views = links.iter_mut().filter_map(|link| match &mut link.kind {
            Kind::View(view) => Some(view),
            _ => None,
        });
        views.next().map_or(Ok(Vec::new()), |view| view.finish())
    })
}
