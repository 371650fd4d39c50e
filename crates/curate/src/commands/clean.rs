//! `curate clean`: is this text worth keeping?

use std::path::PathBuf;

use clap::Args;
use curate_clean::{Cleaner, Recipe};
use curate_io::DropLogStyle;
use serde::Serialize;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};

/// Normalise texts and drop those that a recipe's rules call poor, each with its reason
///
/// A recipe is a list of rules over named statistics of a document; the first rule that fires drops it. Texts are
/// normalised first: encoding repaired, NFC, control characters out, line ends unified.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate clean raw.jsonl.zst -o clean.jsonl.zst --rejects rejects.jsonl\n  curate clean --recipe gopher --set min_words=20 < raw.jsonl > clean.jsonl"
)]
pub(crate) struct CleanCommand {
    #[command(flatten)]
    stage: CleanOptions,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct CleanOptions {
    /// A built-in recipe (curate-v1, gopher, none) or a recipe file
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "curate-v1")]
    recipe: String,

    /// Change one of the recipe's thresholds; can be given more than once
    #[arg(long = "set", value_name = "NAME=VALUE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set: Vec<String>,

    /// Write dropped documents here, each with the rule, value and threshold that dropped it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    rejects: Option<PathBuf>,
}

impl CleanOptions {
    pub(crate) fn prepare(&self) -> Result<Link> {
        let mut recipe = self.load_recipe()?;
        for setting in &self.set {
            recipe.set(setting)?;
        }
        Ok(Link {
            kind: Kind::Clean(Box::new(Cleaner::new(recipe)?)),
            covers: 1,
            logs: self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents)).collect(),
            parameters: parameters(self),
        })
    }

    /// All that the stage's verdicts depend on: the options, and what stands in a recipe file.
    pub(crate) fn fingerprint(&self) -> Result<serde_json::Value> {
        let recipe = if self.is_file() { self.read_recipe()? } else { String::new() };
        Ok(serde_json::json!({ "options": self, "recipe": recipe, "rejects": self.rejects.is_some() }))
    }

    /// A name with a dot or a slash is a file's.
    fn is_file(&self) -> bool {
        self.recipe.contains(['.', '/'])
    }

    fn read_recipe(&self) -> Result<String> {
        std::fs::read_to_string(&self.recipe).map_err(|e| {
            Failure::new(e.to_string()).context(format!("cannot read the recipe {}", self.recipe))
        })
    }

    fn load_recipe(&self) -> Result<Recipe> {
        if !self.is_file() {
            return Ok(Recipe::builtin(&self.recipe)?);
        }
        Ok(Recipe::from_toml(&self.read_recipe()?, &self.recipe)?)
    }
}

pub(crate) fn execute(command: &CleanCommand) -> Result<Exit> {
    let chain = Chain {
        command: "clean",
        links: vec![command.stage.prepare()?],
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|_| Ok(Vec::new()))
}
