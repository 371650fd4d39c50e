//! `curate clean --list-recipes` and `--list-statistics`.

use curate_clean::{Recipe, StatisticInfo, statistics};
use serde_json::{Value, json};

use crate::failure::{Exit, Result};
use crate::ui;

pub(crate) fn recipes(as_json: bool) -> Result<Exit> {
    let names = Recipe::builtin_names().iter();
    let recipes = names.map(|name| Ok(Recipe::builtin(name)?)).collect::<Result<Vec<Recipe>>>()?;
    let text = match as_json {
        true => lines(recipes.iter().map(|recipe| json!(recipe))),
        false => recipes.iter().map(describe).collect(),
    };
    ui::print(&text)?;
    Ok(Exit::Done)
}

fn describe(recipe: &Recipe) -> String {
    format!(
        "{}\n    {}\n    after {}; {} rules on {} words{}\n",
        recipe.name(),
        recipe.description(),
        recipe.source(),
        recipe.rules().len(),
        recipe.words(),
        if recipe.normalise() { " of normalised texts" } else { "" }
    )
}

pub(crate) fn all_statistics(as_json: bool) -> Result<Exit> {
    let text = match as_json {
        true => lines(statistics().iter().map(|statistic| json!(statistic))),
        false => statistics().iter().map(row).collect(),
    };
    ui::print(&text)?;
    Ok(Exit::Done)
}

fn row(statistic: &StatisticInfo) -> String {
    let StatisticInfo { name, unit, formula, source, .. } = statistic;
    format!("{name} ({unit}; {source})\n    {formula}\n")
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| value.to_string() + "\n").collect()
}
