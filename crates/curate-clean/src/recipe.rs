//! Recipes: which rules a document must pass, on which words, with which thresholds.
//!
//! A recipe is a TOML file. Nothing in it is optional but `[thresholds]`, rules and their `when`:
//!
//! ```toml
//! name = "example"
//! description = "What it is for, in a sentence."
//! source = "The published version that it pins."
//! words = "whitespace"
//! normalise = true
//! stop_words = ["le", "la"]            # may be left out: for the statistic recipe_stop_words_distinct
//! pii = "token"                       # may be left out: personal data stays as it is
//!
//! [thresholds]                        # numbers that can be changed from outside, by name
//! min_words = 50
//!
//! [[rule]]
//! reason = "too_few_words"            # a phrase that is true of what is dropped
//! edit = "dclm_line_feeds"            # done to the text first; this rule and later ones see what it left
//! when = "latin_letters_ratio > 0.5"  # asked first; without it, the rule always applies
//! drop_if = "words < min_words"       # names are those of the statistics and of the thresholds
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::dialects::MOST_STOP_WORDS;
use crate::expr::{Expression, Operand, Test};
use crate::nearest::nearest;
use crate::{Edit, Error, PiiMode, Result, Words, statistics};

/// The recipes that come with curate; the first is the default.
const BUILTIN: [(&str, &str); 32] = [
    ("curate-v1", include_str!("../recipes/curate-v1.toml")),
    ("c4", include_str!("../recipes/c4.toml")),
    ("dclm", include_str!("../recipes/dclm.toml")),
    ("dolma-v1.5", include_str!("../recipes/dolma-v1.5.toml")),
    ("dolma-v1.5-asrun", include_str!("../recipes/dolma-v1.5-asrun.toml")),
    ("fineweb", include_str!("../recipes/fineweb.toml")),
    ("fineweb2:arb_Arab", include_str!("../recipes/fineweb2/arb_Arab.toml")),
    ("fineweb2:ces_Latn", include_str!("../recipes/fineweb2/ces_Latn.toml")),
    ("fineweb2:cmn_Hani", include_str!("../recipes/fineweb2/cmn_Hani.toml")),
    ("fineweb2:deu_Latn", include_str!("../recipes/fineweb2/deu_Latn.toml")),
    ("fineweb2:ell_Grek", include_str!("../recipes/fineweb2/ell_Grek.toml")),
    ("fineweb2:fas_Arab", include_str!("../recipes/fineweb2/fas_Arab.toml")),
    ("fineweb2:fra_Latn", include_str!("../recipes/fineweb2/fra_Latn.toml")),
    ("fineweb2:hin_Deva", include_str!("../recipes/fineweb2/hin_Deva.toml")),
    ("fineweb2:ind_Latn", include_str!("../recipes/fineweb2/ind_Latn.toml")),
    ("fineweb2:ita_Latn", include_str!("../recipes/fineweb2/ita_Latn.toml")),
    ("fineweb2:jpn_Jpan", include_str!("../recipes/fineweb2/jpn_Jpan.toml")),
    ("fineweb2:kor_Hang", include_str!("../recipes/fineweb2/kor_Hang.toml")),
    ("fineweb2:nld_Latn", include_str!("../recipes/fineweb2/nld_Latn.toml")),
    ("fineweb2:pol_Latn", include_str!("../recipes/fineweb2/pol_Latn.toml")),
    ("fineweb2:por_Latn", include_str!("../recipes/fineweb2/por_Latn.toml")),
    ("fineweb2:rus_Cyrl", include_str!("../recipes/fineweb2/rus_Cyrl.toml")),
    ("fineweb2:spa_Latn", include_str!("../recipes/fineweb2/spa_Latn.toml")),
    ("fineweb2:swe_Latn", include_str!("../recipes/fineweb2/swe_Latn.toml")),
    ("fineweb2:tur_Latn", include_str!("../recipes/fineweb2/tur_Latn.toml")),
    ("fineweb2:ukr_Cyrl", include_str!("../recipes/fineweb2/ukr_Cyrl.toml")),
    ("fineweb2:vie_Latn", include_str!("../recipes/fineweb2/vie_Latn.toml")),
    ("gopher", include_str!("../recipes/gopher.toml")),
    ("gopher-quality", include_str!("../recipes/gopher-quality.toml")),
    ("nemo-en", include_str!("../recipes/nemo-en.toml")),
    ("none", include_str!("../recipes/none.toml")),
    ("refinedweb", include_str!("../recipes/refinedweb.toml")),
];

const BUILTIN_NAMES: [&str; BUILTIN.len()] = {
    let mut names = [""; BUILTIN.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = BUILTIN[i].0;
        i += 1;
    }
    names
};

const KEYS: &[&str] =
    &["name", "description", "source", "words", "normalise", "pii", "stop_words", "thresholds", "rule"];
const RULE_KEYS: &[&str] = &["reason", "edit", "when", "drop_if"];

/// A named list of rules, checked: every expression parses and every name in it is known.
#[derive(Debug, Clone, Serialize)]
pub struct Recipe {
    name: String,
    description: String,
    source: String,
    words: Words,
    normalise: bool,
    /// What becomes of personal data and keys where nobody says otherwise.
    pii: PiiMode,
    /// What `recipe_stop_words_distinct` counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_words: Vec<String>,
    thresholds: BTreeMap<String, f64>,
    rules: Vec<Rule>,
}

/// Edits the text if there is an `edit`, then drops the document for `reason` if `drop_if` holds and `when`, if there is
/// one, does too.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    pub(crate) reason: String,
    pub(crate) edit: Option<Edit>,
    pub(crate) when: Option<Expression>,
    pub(crate) drop_if: Expression,
}

impl Rule {
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub fn edit(&self) -> Option<Edit> {
        self.edit
    }

    pub fn when(&self) -> Option<&Expression> {
        self.when.as_ref()
    }

    pub fn drop_if(&self) -> &Expression {
        &self.drop_if
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.when.iter().chain([&self.drop_if])
    }
}

impl Recipe {
    /// The name of the recipe to use when none is named.
    pub const DEFAULT: &'static str = BUILTIN_NAMES[0];

    /// The names of the recipes that come with curate.
    pub fn builtin_names() -> &'static [&'static str] {
        &BUILTIN_NAMES
    }

    /// A recipe that comes with curate.
    ///
    /// # Errors
    /// [`Error::UnknownRecipe`], with the nearest name.
    pub fn builtin(name: &str) -> Result<Self> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::from_toml(text, name),
            None => Err(Error::UnknownRecipe {
                name: name.to_owned(),
                nearest: nearest(name, BUILTIN_NAMES),
                known: Self::builtin_names(),
            }),
        }
    }

    /// Reads a recipe. `name` is what messages call it: its path, say.
    ///
    /// # Errors
    /// The first fault of the file: bad TOML, an unknown, missing or unsuitable key, an expression that does not
    /// parse or uses an unknown name, a threshold that no rule uses.
    pub fn from_toml(text: &str, name: &str) -> Result<Self> {
        let place = Place { recipe: name, text };
        let root = DeTable::parse(text).map_err(|error| place.syntax(&error))?;
        let root = Section { place, line: 1, table: root.get_ref() };
        root.check_keys(KEYS)?;
        let mut recipe = Self {
            name: root.string("name")?.1.to_owned(),
            description: root.string("description")?.1.to_owned(),
            source: root.string("source")?.1.to_owned(),
            words: root.words()?,
            normalise: root.boolean("normalise")?,
            pii: root.pii()?,
            stop_words: root.stop_words()?,
            thresholds: BTreeMap::new(),
            rules: Vec::new(),
        };
        let thresholds = root.thresholds()?;
        recipe.thresholds = thresholds.iter().map(|(name, (value, _))| (name.clone(), *value)).collect();
        for section in root.rules()? {
            let rule = section.rule()?;
            recipe.check_names(&section, &rule)?;
            recipe.rules.push(rule);
        }
        let is_used = |name: &str| {
            recipe.rules.iter().flat_map(Rule::expressions).any(|e| e.names().any(|n| n == name))
        };
        match thresholds.iter().find(|(name, _)| !is_used(name)) {
            Some((unused, (_, line))) => {
                Err(Error::UnusedThreshold { recipe: name.to_owned(), line: *line, name: unused.clone() })
            }
            None => Ok(recipe),
        }
    }

    fn check_names(&self, section: &Section<'_, '_>, rule: &Rule) -> Result<()> {
        let parts = [("when", rule.when.as_ref()), ("drop_if", Some(&rule.drop_if))];
        for (key, expression) in parts.into_iter().filter_map(|(key, part)| Some((key, part?))) {
            self.compile(expression).map_err(|error| Error::Expression {
                recipe: section.place.recipe.to_owned(),
                line: section.line_of(key),
                key,
                text: expression.to_string(),
                error: Box::new(error),
            })?;
        }
        Ok(())
    }

    /// Resolves the names of an expression: statistics become variables by their number, thresholds constants.
    pub(crate) fn compile(
        &self,
        expression: &Expression,
    ) -> std::result::Result<Test, crate::ExpressionError> {
        let statistic = |name: &str| statistics().iter().position(|s| s.name == name);
        let resolve = |name: &str| match self.thresholds.get(name) {
            Some(threshold) => Some(Operand::Constant(*threshold)),
            None => statistic(name).map(Operand::Variable),
        };
        let names = || self.thresholds.keys().map(String::as_str).chain(statistics().iter().map(|s| s.name));
        expression.compile(resolve, |name| nearest(name, names()).map(str::to_owned))
    }

    /// Changes a threshold: `NAME=NUMBER`.
    ///
    /// # Errors
    /// [`Error::Setting`] for anything else, [`Error::UnknownThreshold`] for a name that the recipe does not have.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        let number = |value: &str| value.trim().parse().ok().filter(|number: &f64| number.is_finite());
        let (name, value) = setting
            .split_once('=')
            .and_then(|(name, value)| Some((name.trim(), number(value)?)))
            .ok_or_else(|| Error::Setting { setting: setting.to_owned() })?;
        match self.thresholds.get_mut(name) {
            Some(threshold) => {
                *threshold = value;
                Ok(())
            }
            None => Err(Error::UnknownThreshold {
                recipe: self.name.clone(),
                name: name.to_owned(),
                nearest: nearest(name, self.thresholds.keys().map(String::as_str)).map(str::to_owned),
                known: self.thresholds.keys().cloned().collect(),
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn description(&self) -> &str {
        &self.description
    }

    /// The published version that the recipe pins.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn words(&self) -> Words {
        self.words
    }

    /// Has the rules count other words.
    pub fn set_words(&mut self, words: Words) {
        self.words = words;
    }

    /// True if texts are normalised before anything is measured.
    pub fn normalise(&self) -> bool {
        self.normalise
    }

    /// The words that `recipe_stop_words_distinct` counts.
    pub fn stop_words(&self) -> &[String] {
        &self.stop_words
    }

    /// What becomes of personal data and keys where nobody says otherwise; [`PiiMode::Off`] unless the recipe names a mode.
    pub fn pii(&self) -> PiiMode {
        self.pii
    }

    /// The thresholds by name, as they are now.
    pub fn thresholds(&self) -> &BTreeMap<String, f64> {
        &self.thresholds
    }

    /// How many rules stand before the last edits: those that edit and then ask whether anything is left, so that no
    /// statistic depends on them.
    pub(crate) fn rules_before_last_edits(&self) -> usize {
        let only_edits = |rule: &Rule| {
            rule.edit.is_some() && rule.expressions().flat_map(Expression::names).all(|n| n == "bytes")
        };
        self.rules.iter().rposition(|rule| !only_edits(rule)).map_or(0, |last| last + 1)
    }

    /// What the rules do to the text, each with the reason of its rule, in order.
    pub fn edits(&self) -> impl Iterator<Item = (Edit, &str)> {
        self.rules.iter().filter_map(|rule| Some((rule.edit?, rule.reason())))
    }

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// The file that a part of a recipe comes from.
#[derive(Clone, Copy)]
struct Place<'r> {
    recipe: &'r str,
    text: &'r str,
}

impl Place<'_> {
    fn line(self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
    }

    fn syntax(self, error: &toml::de::Error) -> Error {
        let line = error.span().map_or(1, |span| self.line(span.start));
        Error::Syntax { recipe: self.recipe.to_owned(), line, message: error.message().to_owned() }
    }

    fn unsuitable(self, line: usize, key: &str, expected: &str, found: &str) -> Error {
        Error::Unsuitable {
            recipe: self.recipe.to_owned(),
            line,
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    fn wrong_type(self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) -> Error {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
        self.unsuitable(self.line(value.span().start), key, expected, &format!("{article} {found}"))
    }
}

/// A table of the file.
struct Section<'r, 'd> {
    place: Place<'r>,
    line: usize,
    table: &'d DeTable<'d>,
}

impl<'r, 'd> Section<'r, 'd> {
    fn check_keys(&self, known: &'static [&'static str]) -> Result<()> {
        let keys = self.table.keys().map(|key| (key.span().start, key.get_ref()));
        match keys.filter(|(_, key)| !known.contains(&key.as_ref())).min() {
            None => Ok(()),
            Some((offset, key)) => Err(Error::UnknownKey {
                recipe: self.place.recipe.to_owned(),
                line: self.place.line(offset),
                key: key.to_string(),
                nearest: nearest(key, known.iter().copied()),
                known,
            }),
        }
    }

    fn get(&self, key: &'static str) -> Result<&'d Spanned<DeValue<'d>>> {
        self.table.get(key).ok_or_else(|| Error::MissingKey {
            recipe: self.place.recipe.to_owned(),
            line: self.line,
            key,
        })
    }

    fn line_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.line, |value| self.place.line(value.span().start))
    }

    /// The line and the value of a string.
    fn string(&self, key: &'static str) -> Result<(usize, &'d str)> {
        let value = self.get(key)?;
        let text = value.get_ref().as_str().ok_or_else(|| self.place.wrong_type(key, "a string", value))?;
        Ok((self.place.line(value.span().start), text))
    }

    fn words(&self) -> Result<Words> {
        let (line, words) = self.string("words")?;
        words.parse().map_err(|()| {
            let known = Words::ALL.map(Words::name).join(" or ");
            self.place.unsuitable(line, "words", &known, &format!("`{words}`"))
        })
    }

    fn boolean(&self, key: &'static str) -> Result<bool> {
        let value = self.get(key)?;
        value.get_ref().as_bool().ok_or_else(|| self.place.wrong_type(key, "true or false", value))
    }

    fn stop_words(&self) -> Result<Vec<String>> {
        let Some(value) = self.table.get("stop_words") else { return Ok(Vec::new()) };
        let expected = format!("a list of at most {MOST_STOP_WORDS} words");
        let wrong = || self.place.wrong_type("stop_words", &expected, value);
        let list =
            value.get_ref().as_array().filter(|list| list.len() <= MOST_STOP_WORDS).ok_or_else(wrong)?;
        list.iter().map(|word| word.get_ref().as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    }

    fn pii(&self) -> Result<PiiMode> {
        if !self.table.contains_key("pii") {
            return Ok(PiiMode::Off);
        }
        let (line, mode) = self.string("pii")?;
        match mode {
            "off" => Ok(PiiMode::Off),
            "token" => Ok(PiiMode::Token),
            "mask" => Ok(PiiMode::Mask),
            "drop" => Ok(PiiMode::Drop),
            _ => Err(self.place.unsuitable(line, "pii", "off, token, mask or drop", &format!("`{mode}`"))),
        }
    }

    /// The thresholds by name, each with its line.
    fn thresholds(&self) -> Result<BTreeMap<String, (f64, usize)>> {
        let Some(value) = self.table.get("thresholds") else { return Ok(BTreeMap::new()) };
        let table = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.place.wrong_type("thresholds", "a table", value))?;
        table.iter().map(|(name, value)| self.threshold(name, value)).collect()
    }

    fn threshold(
        &self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(String, (f64, usize))> {
        let line = self.place.line(name.span().start);
        let name = name.get_ref().as_ref();
        if !is_snake_case(name) || statistics().iter().any(|s| s.name == name) {
            let expected = "a snake_case name that no statistic has";
            return Err(self.place.unsuitable(line, "thresholds", expected, &format!("`{name}`")));
        }
        let number = match value.get_ref() {
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
            }
            DeValue::Float(float) => float.as_str().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        let number = number.ok_or_else(|| self.place.wrong_type(name, "a finite number", value))?;
        Ok((name.to_owned(), (number, line)))
    }

    fn rules(&self) -> Result<Vec<Section<'r, 'd>>> {
        let Some(value) = self.table.get("rule") else { return Ok(Vec::new()) };
        let wrong_type = |value| self.place.wrong_type("rule", "an array of tables, [[rule]]", value);
        let array = value.get_ref().as_array().ok_or_else(|| wrong_type(value))?;
        let section = |value: &'d Spanned<DeValue<'d>>| {
            let table = value.get_ref().as_table().ok_or_else(|| wrong_type(value))?;
            Ok(Section { place: self.place, line: self.place.line(value.span().start), table })
        };
        array.iter().map(section).collect()
    }

    fn rule(&self) -> Result<Rule> {
        self.check_keys(RULE_KEYS)?;
        let (line, reason) = self.string("reason")?;
        if !is_snake_case(reason) {
            return Err(self.place.unsuitable(line, "reason", "a snake_case phrase", &format!("`{reason}`")));
        }
        let when = self.table.contains_key("when").then(|| self.expression("when")).transpose()?;
        let edit = self.table.contains_key("edit").then(|| self.edit()).transpose()?;
        Ok(Rule { reason: reason.to_owned(), edit, when, drop_if: self.expression("drop_if")? })
    }

    fn edit(&self) -> Result<Edit> {
        let (line, name) = self.string("edit")?;
        Edit::ALL.into_iter().find(|edit| edit.name() == name).ok_or_else(|| {
            let known = Edit::ALL.map(Edit::name).join(" or ");
            self.place.unsuitable(line, "edit", &known, &format!("`{name}`"))
        })
    }

    fn expression(&self, key: &'static str) -> Result<Expression> {
        let (line, text) = self.string(key)?;
        Expression::parse(text).map_err(|error| Error::Expression {
            recipe: self.place.recipe.to_owned(),
            line,
            key,
            text: text.to_owned(),
            error: Box::new(error),
        })
    }
}

fn is_snake_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "name = 'x'\ndescription = 'd'\nsource = 's'\nwords = 'whitespace'\nnormalise = true\n";

    /// `expected` is the message and, behind ` | `, the hint.
    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = Recipe::from_toml(text, "x.toml").unwrap_err();
        let hint = error.hint().map_or(String::new(), |hint| format!(" | {hint}"));
        assert_eq!(format!("{error}{hint}"), expected, "{text}");
    }

    #[track_caller]
    fn check_rule_error(rest: &str, expected: &str) {
        check_error(&format!("{HEAD}{rest}"), expected);
    }

    #[test]
    fn builtin_recipes_are_sound() {
        for name in Recipe::builtin_names() {
            let recipe = Recipe::builtin(name).unwrap();
            assert_eq!(recipe.name(), *name);
            assert!(recipe.description().ends_with('.') && !recipe.source().is_empty());
        }
        assert_eq!(Recipe::DEFAULT, "curate-v1");
        let gopher = Recipe::builtin("gopher-quality").unwrap();
        assert_eq!(
            (gopher.rules().len(), gopher.normalise(), gopher.words()),
            (10, false, Words::Whitespace)
        );
        assert_eq!(gopher.thresholds()["max_words"], 100_000.0);
        assert!(Recipe::builtin("none").unwrap().rules().is_empty());
    }

    #[test]
    fn unknown_recipes_get_a_hint() {
        let error = Recipe::builtin("gofer").unwrap_err();
        assert_eq!(error.to_string(), "there is no recipe called `gofer`");
        assert_eq!(Recipe::builtin("gophers").unwrap_err().hint().unwrap(), "did you mean `gopher`?");
        let known = Recipe::builtin("something").unwrap_err().hint().unwrap();
        assert!(
            known.starts_with("there are curate-v1, c4, dclm, dolma-v1.5, dolma-v1.5-asrun, fineweb, "),
            "{known}"
        );
        assert_eq!(
            Recipe::builtin("fineweb2:fra_Lat").unwrap_err().hint().unwrap(),
            "did you mean `fineweb2:fra_Latn`?"
        );
    }

    #[test]
    fn faults_of_a_file() {
        check_error(
            "name = ",
            "recipe x.toml, line 1: string values must be quoted, expected literal string",
        );
        check_error("name = 'x'", "recipe x.toml, line 1: `description` is missing");
        check_rule_error("\nruel = 3", "recipe x.toml, line 7: unknown key `ruel` | did you mean `rule`?");
        check_rule_error(
            "colour = 3",
            "recipe x.toml, line 6: unknown key `colour` | known keys are name, description, source, words, normalise, \
             pii, stop_words, thresholds, rule",
        );
        check_error(
            &HEAD.replace("'whitespace'", "'icu'"),
            "recipe x.toml, line 4: `words` must be whitespace or uax29 or spacy-en, not `icu`",
        );
        check_error(
            &HEAD.replace("true", "'yes'"),
            "recipe x.toml, line 5: `normalise` must be true or false, not a string",
        );
        check_error(
            &HEAD.replace("'d'", "3"),
            "recipe x.toml, line 2: `description` must be a string, not an integer",
        );
    }

    #[test]
    fn faults_of_rules() {
        check_rule_error(
            "rule = 3",
            "recipe x.toml, line 6: `rule` must be an array of tables, [[rule]], not an integer",
        );
        check_rule_error("[[rule]]\nreason = 'r'", "recipe x.toml, line 6: `drop_if` is missing");
        check_rule_error(
            "[[rule]]\nreason = 'r'\ndropif = 'words < 1'",
            "recipe x.toml, line 8: unknown key `dropif` | did you mean `drop_if`?",
        );
        check_rule_error(
            "[[rule]]\nreason = 'Too few'\ndrop_if = 'words < 1'",
            "recipe x.toml, line 7: `reason` must be a snake_case phrase, not `Too few`",
        );
        check_rule_error(
            "[[rule]]\nreason = 'r'\nedit = 'lines'\ndrop_if = 'bytes == 0'",
            "recipe x.toml, line 8: `edit` must be dclm_urls or dclm_line_feeds or refinedweb_lines or c4_lines or \
             c4_ended_lines or web_lines, not `lines`",
        );
        check_rule_error(
            "[[rule]]\nreason = 'r'\ndrop_if = 'words <'",
            "recipe x.toml, line 8: `drop_if = \"words <\"`: column 8: expected a number, a name, `-`, `not` or `(`, found \
             the end",
        );
        check_rule_error(
            "[[rule]]\nreason = 'r'\ndrop_if = 'words < 1'\nwhen = 'latin_letter_ratio > 0.5'",
            "recipe x.toml, line 9: `when = \"latin_letter_ratio > 0.5\"`: column 1: nothing is called \
             `latin_letter_ratio` | did you mean `latin_letters_ratio`?",
        );
        check_rule_error(
            "[thresholds]\nmin_wrods = 3\n[[rule]]\nreason = 'r'\ndrop_if = 'words < min_words'",
            "recipe x.toml, line 10: `drop_if = \"words < min_words\"`: column 9: nothing is called `min_words` | did you \
             mean `min_wrods`?",
        );
        check_rule_error(
            "[[rule]]\nreason = 'r'\ndrop_if = 'temperature > 451'",
            "recipe x.toml, line 8: `drop_if = \"temperature > 451\"`: column 1: nothing is called `temperature` | names are \
             those of the statistics and of the recipe's thresholds",
        );
    }

    #[test]
    fn faults_of_thresholds() {
        check_rule_error(
            "[thresholds]\nmin_words = 3",
            "recipe x.toml, line 7: no rule uses the threshold `min_words` | use it in a rule or take it out",
        );
        check_rule_error(
            "[thresholds]\nwords = 3",
            "recipe x.toml, line 7: `thresholds` must be a snake_case name that no statistic has, not `words`",
        );
        check_rule_error(
            "thresholds = 3",
            "recipe x.toml, line 6: `thresholds` must be a table, not an integer",
        );
        for (value, found) in [("'3'", "a string"), ("inf", "a float"), ("nan", "a float")] {
            check_rule_error(
                &format!("[thresholds]\nmin_words = {value}"),
                &format!("recipe x.toml, line 7: `min_words` must be a finite number, not {found}"),
            );
        }
        let numbers = "[thresholds]\na = 1_000\nb = 0x10\nc = -1.5e1\nd = 1_0.5\n\
                       [[rule]]\nreason = 'r'\ndrop_if = 'a + b + c + d < words'";
        let recipe = Recipe::from_toml(&format!("{HEAD}{numbers}"), "x").unwrap();
        assert_eq!(recipe.thresholds().values().copied().collect::<Vec<_>>(), [1000.0, 16.0, -15.0, 10.5]);
    }

    #[test]
    fn sets_thresholds() {
        let mut recipe = Recipe::builtin("gopher-quality").unwrap();
        recipe.set("min_words=20").unwrap();
        recipe.set(" max_hash_ratio = 0.25 ").unwrap();
        assert_eq!((recipe.thresholds()["min_words"], recipe.thresholds()["max_hash_ratio"]), (20.0, 0.25));
        for setting in ["min_words", "min_words=", "min_words=many", "min_words=inf", "min_words=NaN", ""] {
            let error = recipe.set(setting).unwrap_err();
            assert_eq!(error.to_string(), format!("`{setting}` is not NAME=NUMBER"));
            assert_eq!(error.hint().unwrap(), "for example min_words=20");
        }
        let error = recipe.set("min_wrods=20").unwrap_err();
        assert_eq!(error.to_string(), "recipe gopher-quality has no threshold called `min_wrods`");
        assert_eq!(error.hint().unwrap(), "did you mean `min_words`?");
        assert!(
            recipe.set("temperature=1").unwrap_err().hint().unwrap().starts_with("it has max_bullet_lines, ")
        );
        let error = Recipe::builtin("none").unwrap().set("min_words=20").unwrap_err();
        assert_eq!(error.hint().unwrap(), "it has no thresholds at all");
    }

    proptest! {
        #[test]
        fn any_text_is_a_recipe_or_an_error(text in any::<String>(), setting in any::<String>()) {
            let _ = Recipe::from_toml(&text, "x");
            let _ = Recipe::from_toml(&format!("{HEAD}{text}"), "x");
            let _ = Recipe::from_toml(&format!("{HEAD}[[rule]]\nreason = 'r'\ndrop_if = '''{text}'''"), "x");
            let _ = Recipe::builtin("gopher-quality").unwrap().set(&setting);
        }
    }
}
