//! Judging by recorded statistics: the rules of a recipe without a text.

use std::sync::Arc;

use curate_core::{Dropped, Value, Verdict};

use crate::expr::{Binary, Program, Test};
use crate::{EMPTY, Error, Measurements, Recipe, Result, Rule, statistics};

/// The statistic by which a text without a word is told.
const BLANK: &str = "whitespace_words";

/// The rules of a recipe, asked of numbers: one for each of [`statistics`], in that order.
///
/// What it says of the values that a [`Cleaner`](crate::Cleaner) measured is what that cleaner says of the text, but for
/// edits behind all other rules: whether those leave anything only a text can tell, see
/// [`Cleaner::edit_kept`](crate::Cleaner::edit_kept).
#[derive(Debug, Clone)]
pub struct Judge {
    rules: Vec<RuleOfNumbers>,
    needs: Vec<&'static str>,
    blank: usize,
    empty: Arc<str>,
}

#[derive(Debug, Clone)]
struct RuleOfNumbers {
    reason: Arc<str>,
    expression: String,
    when: Option<Test>,
    drop_if: Test,
}

impl Judge {
    /// Prepares a recipe, with its thresholds as they are now.
    ///
    /// # Errors
    /// [`Error::EditsText`] for a recipe that edits the text before its last rules; [`Error::Expression`], as
    /// [`Cleaner::new`](crate::Cleaner::new).
    pub fn new(recipe: &Recipe) -> Result<Self> {
        let asked_rules = &recipe.rules()[..recipe.rules_before_last_edits()];
        if let Some((rule, edit)) = asked_rules.iter().find_map(|rule| Some((rule, rule.edit()?))) {
            let (recipe, reason) = (recipe.name().to_owned(), rule.reason().to_owned());
            return Err(Error::EditsText { recipe, edit: edit.name(), reason });
        }
        let compile = |key, expression| {
            recipe.compile(expression).map_err(|error| Error::Expression {
                recipe: recipe.name().to_owned(),
                line: 1,
                key,
                text: expression.to_string(),
                error: Box::new(error),
            })
        };
        let mut rules = Vec::new();
        for rule in asked_rules {
            rules.push(RuleOfNumbers {
                reason: rule.reason().into(),
                expression: rule.drop_if().to_string(),
                when: rule.when().map(|when| compile("when", when)).transpose()?,
                drop_if: compile("drop_if", rule.drop_if())?,
            });
        }
        let asked =
            |name: &str| asked_rules.iter().flat_map(Rule::expressions).any(|e| e.names().any(|n| n == name));
        let needs =
            statistics().iter().map(|s| s.name).filter(|name| *name == BLANK || asked(name)).collect();
        let blank = statistics().iter().position(|s| s.name == BLANK).expect("it is one of the statistics");
        Ok(Self { rules, needs, blank, empty: EMPTY.into() })
    }

    /// The statistics that the rules ask for, in the order of [`statistics`]. The values of others are not looked at.
    pub fn needs(&self) -> &[&'static str] {
        &self.needs
    }

    /// What the recipe says of a text whose statistics have these values, with the same proof as a cleaner's.
    pub fn judge(&self, values: &[f64]) -> Verdict {
        if values[self.blank] == 0.0 {
            return Verdict::drop(Arc::clone(&self.empty));
        }
        match self.rules.iter().find(|rule| rule.fires(values)) {
            Some(rule) => Verdict::Drop(rule.dropped(values)),
            None => Verdict::Keep,
        }
    }
}

/// The value of every statistic, in the order of [`statistics`].
pub fn values(measurements: &Measurements) -> impl Iterator<Item = f64> {
    statistics().iter().map(|statistic| statistic.value(measurements))
}

impl RuleOfNumbers {
    fn fires(&self, values: &[f64]) -> bool {
        self.when.as_ref().is_none_or(|when| evaluate(when, values).0) && evaluate(&self.drop_if, values).0
    }

    fn dropped(&self, values: &[f64]) -> Dropped {
        let mut proof = vec![("rule", Value::Text(self.expression.clone()))];
        if let (_, Some((value, threshold))) = evaluate(&self.drop_if, values) {
            proof.push(("value", Value::Number(value)));
            proof.push(("threshold", Value::Number(threshold)));
        }
        Dropped { reason: Arc::clone(&self.reason), proof }
    }
}

/// Whether a condition holds, and the two sides of a comparison.
fn evaluate(test: &Test, values: &[f64]) -> (bool, Option<(f64, f64)>) {
    let number = |program: &Program| program.evaluate(|statistic| values[statistic]);
    match test {
        Test::Comparison(left, operator, right) => {
            let sides = (number(left), number(right));
            (Binary::apply(*operator, sides.0, sides.1) != 0.0, Some(sides))
        }
        Test::Condition(program) => (number(program) != 0.0, None),
    }
}

#[cfg(test)]
mod tests {
    use curate_core::{Counters, Document, Mapper, Work};
    use proptest::prelude::*;

    use super::*;
    use crate::{CleanScratch, Cleaner};

    fn by_cleaner(cleaner: &Cleaner, text: &str) -> Verdict {
        let mut doc = Document::new(b"", "id", "", text);
        match cleaner.map(&mut doc, &mut CleanScratch::default(), &mut Counters::default()) {
            Work::Decided(verdict) => verdict,
            Work::Pending(never) => match never {},
        }
    }

    proptest! {
        #[test]
        fn numbers_are_judged_as_the_text_is(
            text in "([a-z]{1,9}|the|and of|#|\\.\\.\\.|- |[0-9]{2}|\n| ){0,120}", name in 0..5_usize,
        ) {
            let mut recipe = Recipe::builtin(["curate-v1", "gopher", "nemo-en", "dolma-v1.5", "none"][name]).unwrap();
            if name < 4 {
                recipe.set("min_words=5").unwrap();
            }
            let judge = Judge::new(&recipe).unwrap();
            let cleaner = Cleaner::new(recipe).unwrap();
            let numbers: Vec<f64> = values(&cleaner.measure_all(&text)).collect();
            let expected = match by_cleaner(&cleaner, &text) {
                Verdict::Drop(dropped) if &*dropped.reason == "nothing_left" => Verdict::Keep,
                verdict => verdict,
            };
            prop_assert_eq!(judge.judge(&numbers), expected);
        }
    }

    #[test]
    fn only_what_rules_ask_for_is_needed() {
        let judge = Judge::new(&Recipe::builtin("gopher").unwrap()).unwrap();
        assert!(judge.needs().contains(&"content_words") && judge.needs().contains(&BLANK));
        assert!(!judge.needs().contains(&"digits_ratio"));
        assert_eq!(Judge::new(&Recipe::builtin("none").unwrap()).unwrap().needs(), [BLANK]);
    }
}
