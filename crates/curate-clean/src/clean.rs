//! The stage: normalise, ask the rules in order, drop for the first one that fires.
//!
//! A rule may edit the text before it is asked; it and those after it see what the edit left. What a rule asks for is
//! measured when its turn comes, so a document that an early rule drops costs little.

use std::borrow::Cow;
use std::sync::Arc;

use curate_core::{Counters, Document, Dropped, Mapper, Never, Value, Verdict, Work};
use serde::Serialize;

use crate::chars::is_python_space;
use crate::dialects::{self, Editor, EditorScratch, Groups};
use crate::expr::{Binary, Program, Test};
use crate::{Edit, Error, Expression, Measurements, Measurer, Normaliser, Recipe, Result, Rule, statistics};

/// The reason for which a document without a word is dropped, by any recipe.
pub const EMPTY: &str = "empty";

/// Cleans documents by a recipe. One is shared by all threads; its tables take some hundred KiB.
#[derive(Debug)]
pub struct Cleaner {
    recipe: Recipe,
    normaliser: Option<Normaliser>,
    measurer: Measurer,
    editor: Editor,
    rules: Vec<CompiledRule>,
    empty: Arc<str>,
}

/// What a worker keeps between documents.
#[derive(Debug, Default)]
pub struct CleanScratch {
    measurements: Measurements,
    /// The text as edits left it, if one changed it.
    text: String,
    is_edited: bool,
    /// Edits that changed it, each once.
    edits: Vec<Edit>,
    spare: String,
    editor: EditorScratch,
}

/// What a rule says about a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleOutcome {
    pub reason: String,
    /// The condition under which the rule drops.
    pub expression: String,
    /// The condition under which the rule is asked at all; `None` if always.
    pub when: Option<String>,
    /// The left side of the expression, if it is a comparison.
    pub value: Option<f64>,
    /// The right side of the expression, if it is a comparison.
    pub threshold: Option<f64>,
    /// True if the rule was asked.
    pub applies: bool,
    /// True if the rule was asked and its condition holds. A document is dropped for the first that fired.
    pub fired: bool,
}

impl Cleaner {
    /// Prepares a recipe, with its thresholds as they are now.
    ///
    /// # Errors
    /// [`Error::Expression`] for a rule that does not compile; recipes check theirs when they are read, so this does
    /// not happen to a recipe that [`Recipe::from_toml`] returned.
    pub fn new(recipe: Recipe) -> Result<Self> {
        let rules =
            recipe.rules().iter().map(|rule| CompiledRule::new(&recipe, rule)).collect::<Result<_>>()?;
        let normaliser = recipe.normalise().then(Normaliser::new);
        let measurer = Measurer::with_stop_words(recipe.words(), recipe.stop_words());
        Ok(Self { recipe, normaliser, measurer, editor: Editor::new(), rules, empty: EMPTY.into() })
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Every reason for which a document may be dropped, each once, in the order in which they are asked.
    pub fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = vec![&self.empty];
        for rule in &self.rules {
            if !reasons.contains(&&*rule.reason) {
                reasons.push(&rule.reason);
            }
        }
        reasons
    }

    /// What each rule says about `text`, normalised if the recipe says so, in order.
    ///
    /// A text without a word is dropped as [`EMPTY`] before any rule is asked; the outcomes are those of the rules
    /// all the same.
    pub fn explain(&self, text: &str) -> Vec<RuleOutcome> {
        let text = self.normalised(text);
        let mut scratch = CleanScratch::default();
        self.start(&text, &mut scratch);
        let outcomes = self.rules.iter().map(|rule| {
            self.prepare(rule, &text, &mut scratch);
            rule.explain(&scratch.measurements)
        });
        outcomes.collect()
    }

    /// Measures `text`, normalised if the recipe says so, before any edit: all that the rules ask for.
    pub fn measure(&self, text: &str) -> Measurements {
        let text = self.normalised(text);
        let mut measurements = Measurements::default();
        self.measurer.measure(&text, &mut measurements);
        let groups = self.rules.iter().fold(0, |groups, rule| groups | rule.groups);
        self.measurer.measure_groups(&text, groups, &mut measurements);
        measurements
    }

    /// Measures every statistic of `text`, normalised if the recipe says so, before any edit.
    pub fn measure_all(&self, text: &str) -> Measurements {
        let text = self.normalised(text);
        let mut measurements = Measurements::default();
        self.measurer.measure_all(&text, &mut measurements);
        measurements
    }

    fn normalised<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.normaliser {
            Some(normaliser) => normaliser.normalise(text).0,
            None => Cow::Borrowed(text),
        }
    }

    fn start(&self, text: &str, scratch: &mut CleanScratch) {
        scratch.is_edited = false;
        scratch.edits.clear();
        self.measurer.start(text, &mut scratch.measurements);
    }

    /// Edits the text if the rule does, and measures what it asks for. `text` is that before all edits.
    fn prepare(&self, rule: &CompiledRule, text: &str, scratch: &mut CleanScratch) {
        let CleanScratch { measurements, text: edited, is_edited, edits, spare, editor } = scratch;
        if let Some(edit) = rule.edit {
            let now = if *is_edited { &**edited } else { text };
            let done = self.editor.apply(edit, now, editor, spare);
            if done.changed {
                std::mem::swap(edited, spare);
                *is_edited = true;
                if !edits.contains(&edit) {
                    edits.push(edit);
                }
                self.measurer.start(edited, measurements);
            }
            measurements.dialects.set_words_removed(done.words_removed);
            if let Some(values) = done.c4 {
                measurements.dialects.set_c4(values);
            }
        }
        if rule.groups != 0 {
            let now = if *is_edited { &**edited } else { text };
            self.measurer.measure_groups(now, rule.groups, measurements);
        }
    }

    /// Makes the edits that stand behind all other rules, on a document that those keep; drops it if nothing is left.
    pub fn edit_kept(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut CleanScratch,
        counters: &mut Counters,
    ) -> Verdict {
        self.start(doc.text(), scratch);
        let verdict = self.ask(&self.rules[self.recipe.rules_before_last_edits()..], doc.text(), scratch);
        conclude(doc, verdict, scratch, counters)
    }

    fn judge(&self, text: &str, scratch: &mut CleanScratch) -> Verdict {
        self.start(text, scratch);
        if text.chars().all(is_python_space) {
            return Verdict::drop(Arc::clone(&self.empty));
        }
        self.ask(&self.rules, text, scratch)
    }

    fn ask(&self, rules: &[CompiledRule], text: &str, scratch: &mut CleanScratch) -> Verdict {
        for rule in rules {
            self.prepare(rule, text, scratch);
            if rule.fires(&scratch.measurements) {
                return Verdict::Drop(rule.dropped(&scratch.measurements));
            }
        }
        Verdict::Keep
    }
}

impl Mapper for Cleaner {
    type Work = Never;
    type Scratch = CleanScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut CleanScratch,
        counters: &mut Counters,
    ) -> Work<Never> {
        if let Some(normaliser) = &self.normaliser {
            let (text, changes) = normaliser.normalise(doc.text());
            changes.count(counters);
            if let Cow::Owned(text) = text {
                doc.set_text(text);
            }
        }
        let verdict = self.judge(doc.text(), scratch);
        Work::Decided(conclude(doc, verdict, scratch, counters))
    }
}

/// Counts the edits, and gives a document that is kept the edited text.
fn conclude(
    doc: &mut Document<'_>,
    verdict: Verdict,
    scratch: &mut CleanScratch,
    counters: &mut Counters,
) -> Verdict {
    for edit in &scratch.edits {
        counters.add(edit.counter(), 1);
    }
    if scratch.is_edited && verdict == Verdict::Keep {
        doc.set_text(std::mem::take(&mut scratch.text));
    }
    verdict
}

#[derive(Debug)]
struct CompiledRule {
    reason: Arc<str>,
    expression: String,
    when_text: Option<String>,
    edit: Option<Edit>,
    /// What must be measured before the rule is asked.
    groups: Groups,
    when: Option<Test>,
    drop_if: Test,
}

impl CompiledRule {
    fn new(recipe: &Recipe, rule: &Rule) -> Result<Self> {
        let compile = |key, expression| {
            recipe.compile(expression).map_err(|error| Error::Expression {
                recipe: recipe.name().to_owned(),
                line: 1,
                key,
                text: expression.to_string(),
                error: Box::new(error),
            })
        };
        Ok(Self {
            reason: rule.reason.as_str().into(),
            expression: rule.drop_if.to_string(),
            when_text: rule.when.as_ref().map(ToString::to_string),
            edit: rule.edit,
            groups: rule
                .expressions()
                .flat_map(Expression::names)
                .filter(|name| !recipe.thresholds().contains_key(*name))
                .fold(0, |groups, name| groups | dialects::groups_of(name)),
            when: rule.when.as_ref().map(|when| compile("when", when)).transpose()?,
            drop_if: compile("drop_if", &rule.drop_if)?,
        })
    }

    fn applies(&self, measurements: &Measurements) -> bool {
        self.when.as_ref().is_none_or(|when| Outcome::of(when, measurements).holds)
    }

    fn fires(&self, measurements: &Measurements) -> bool {
        self.applies(measurements) && Outcome::of(&self.drop_if, measurements).holds
    }

    fn dropped(&self, measurements: &Measurements) -> Dropped {
        let mut proof = vec![("rule", Value::Text(self.expression.clone()))];
        if let Some((value, threshold)) = Outcome::of(&self.drop_if, measurements).sides {
            proof.push(("value", Value::Number(value)));
            proof.push(("threshold", Value::Number(threshold)));
        }
        Dropped { reason: Arc::clone(&self.reason), proof }
    }

    fn explain(&self, measurements: &Measurements) -> RuleOutcome {
        let outcome = Outcome::of(&self.drop_if, measurements);
        let applies = self.applies(measurements);
        RuleOutcome {
            reason: self.reason.to_string(),
            expression: self.expression.clone(),
            when: self.when_text.clone(),
            value: outcome.sides.map(|(value, _)| value),
            threshold: outcome.sides.map(|(_, threshold)| threshold),
            applies,
            fired: applies && outcome.holds,
        }
    }
}

struct Outcome {
    holds: bool,
    /// The two sides of a comparison.
    sides: Option<(f64, f64)>,
}

impl Outcome {
    fn of(test: &Test, measurements: &Measurements) -> Self {
        let evaluate =
            |program: &Program| program.evaluate(|number| statistics()[number].value(measurements));
        match test {
            Test::Comparison(left, operator, right) => {
                let sides = (evaluate(left), evaluate(right));
                Self { holds: Binary::apply(*operator, sides.0, sides.1) != 0.0, sides: Some(sides) }
            }
            Test::Condition(program) => Self { holds: evaluate(program) != 0.0, sides: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str = "The lighthouse stands at the end of a long pier, and nobody has lived there since the winter \
        storms took the keeper's boat. Visitors come in summer to climb the stairs; they say that on a clear day you can \
        see as far as the other coast, with its white cliffs and the harbour that once had ships from everywhere.\n";
    const RUSSIAN: &str = "Маяк стоит на самом конце длинного причала, и никто не живёт там с тех пор, как зимние бури \
        унесли лодку смотрителя. Летом сюда приезжают гости, чтобы подняться по лестнице; говорят, что в ясный день видно \
        даже другой берег с его белыми скалами и гаванью, в которой когда-то стояли корабли со всего света, а теперь \
        остались только рыбацкие лодки да чайки над водой.\n";
    const CHINESE: &str = "灯塔矗立在长长的码头尽头，自从冬天的风暴卷走了守塔人的小船，就再也没有人住在那里。夏天有游客来爬楼梯，据说天气晴朗\
        的时候可以望见对岸的白色悬崖和曾经停满船只的港口。\n";
    const THAI: &str = "ประภาคารตั้งอยู่ที่ปลายท่าเรือยาว และไม่มีใครอาศัยอยู่ที่นั่นตั้งแต่พายุฤดูหนาวพัดเรือของผู้ดูแลหายไป\n";

    fn cleaner(recipe: &str) -> Cleaner {
        Cleaner::new(Recipe::builtin(recipe).unwrap()).unwrap()
    }

    fn recipe(rules: &str) -> Recipe {
        let head = "name = 'x'\ndescription = 'd'\nsource = 's'\nwords = 'whitespace'\nnormalise = false\n";
        Recipe::from_toml(&format!("{head}{rules}"), "x").unwrap()
    }

    fn verdict(cleaner: &Cleaner, text: &str) -> Verdict {
        let mut doc = Document::new(b"", "id", "", text);
        match cleaner.map(&mut doc, &mut CleanScratch::default(), &mut Counters::default()) {
            Work::Decided(verdict) => verdict,
            Work::Pending(never) => match never {},
        }
    }

    /// The reason, or `keep`.
    fn reason(cleaner: &Cleaner, text: &str) -> String {
        match verdict(cleaner, text) {
            Verdict::Keep => "keep".to_owned(),
            Verdict::Drop(dropped) => dropped.reason.to_string(),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(reason(&cleaner(Recipe::DEFAULT), text), expected, "{text:?}");
    }

    #[test]
    fn keeps_prose_in_any_script() {
        for text in [ENGLISH, RUSSIAN, CHINESE, THAI] {
            check(text, "keep");
        }
        check(&format!("{CHINESE}{ENGLISH}"), "keep");
        check(&ENGLISH.to_uppercase(), "nothing_left");
    }

    #[test]
    fn short_documents_are_short_in_any_script() {
        check("The lighthouse stands at the end of a long pier.", "too_few_words");
        check("Маяк стоит на самом конце длинного причала.", "too_few_words");
        check("灯塔矗立在长长的码头尽头。", "too_few_words");
        check("ประภาคารตั้งอยู่ที่ปลายท่าเรือยาว", "too_few_words");
        check(&"— • ".repeat(100), "too_few_words");
    }

    #[test]
    fn every_rule_of_the_default_can_fire() {
        let fifty = |words: &str| words.repeat(50);
        let text = |words: &str| fifty(&format!("{words} "));
        let lines = |line: &str| fifty(&format!("{line}\n"));
        for (text, expected) in [
            (String::new(), "empty"),
            (" \u{feff}\r\n\u{a0}".to_owned(), "empty"),
            ("word".to_owned(), "too_few_words"),
            ("the house ".repeat(50_001), "too_many_words"),
            (text("an ox"), "mean_word_too_short"),
            (text("internationalists"), "mean_word_too_long"),
            (text("#house of the # hill #"), "too_many_hashes"),
            (text("house... of the... hill"), "too_many_ellipses"),
            (lines("- the house of bricks"), "too_many_bullet_lines"),
            (lines("the house of bricks stands on a long green hill...\n"), "too_many_ellipsis_lines"),
            (text("house 1234 of 5678"), "too_few_alphabetic_words"),
            (text("house stands upon bricks"), "too_few_stop_words"),
        ] {
            check(&text, expected);
        }
    }

    /// Sixty different words without a stop word, that end as a sentence.
    fn names() -> String {
        let name = |i: usize| {
            format!("b{}k{}l ", char::from(b'a' + (i % 26) as u8), char::from(b'a' + (i / 26) as u8))
        };
        (0..60).map(name).collect::<String>() + "end."
    }

    #[test]
    fn rules_on_repetition_and_lines() {
        let names = names();
        let name = |i: usize| names.split(' ').nth(i % 60).expect("there are sixty");
        let unlike = |i| {
            format!("{} and {} to {} with {}.", name(i), name(7 * i + 1), name(11 * i + 2), name(13 * i + 3))
        };
        let lines = |n: usize| (0..n).map(|i| unlike(i) + "\n").collect::<String>();
        check(&lines(30), "keep");
        check(&format!("{}{}", lines(30), lines(30)), "too_many_repeated_lines");
        check(&"the small house stands on green hills ".repeat(20), "too_frequent_top_2grams");
        check(&format!("{} {ENGLISH}", ENGLISH.trim_end()), "too_many_duplicate_5grams");
        check(&lines(30).replace(".\n", "\n"), "too_few_ended_lines");
        check(&lines(60).replace(" to", "\nto"), "too_many_short_lines");
        check(&format!("{ENGLISH}{}", "\n".repeat(40)), "keep");
    }

    #[test]
    fn stop_words_are_those_of_any_language_and_only_asked_of_latin_text() {
        check(&names(), "too_few_stop_words");
        check(&format!("La casa sta sopra una collina con {}", names()), "keep");
        check(&format!("дом стоит на высокой горе {}", RUSSIAN), "keep");
        let mut recipe = Recipe::builtin(Recipe::DEFAULT).unwrap();
        recipe.set("min_stop_words=0").unwrap();
        assert_eq!(reason(&Cleaner::new(recipe).unwrap(), &names()), "keep");
    }

    #[test]
    fn what_rules_keep_is_edited_last() {
        let cleaner = cleaner(Recipe::DEFAULT);
        let page = format!("3 likes\n{ENGLISH}WE USE COOKIES\n");
        let edit = |text: &str, whole: bool| {
            let (mut doc, mut scratch) =
                (Document::new(b"", "id", "", text.to_owned()), CleanScratch::default());
            let mut counters = Counters::default();
            let verdict = match whole {
                true => match cleaner.map(&mut doc, &mut scratch, &mut counters) {
                    Work::Decided(verdict) => verdict,
                    Work::Pending(never) => match never {},
                },
                false => cleaner.edit_kept(&mut doc, &mut scratch, &mut counters),
            };
            (verdict, doc.text().to_owned(), format!("{counters:?}"))
        };
        assert_eq!(edit(&page, true), edit(&page, false));
        assert_eq!(edit(&page, true).1, ENGLISH);
        let Verdict::Drop(dropped) = edit("NOTHING BUT CAPITALS", false).0 else { panic!("nothing is left") };
        assert_eq!(&*dropped.reason, "nothing_left");
    }

    #[test]
    fn the_first_rule_that_fires_is_the_reason_and_proves_it() {
        let mut recipe = Recipe::builtin("gopher-quality").unwrap();
        recipe.set("min_words=3").unwrap();
        let cleaner = Cleaner::new(recipe).unwrap();
        let Verdict::Drop(dropped) = verdict(&cleaner, "# two") else { panic!("two rules should fire") };
        assert_eq!(&*dropped.reason, "too_few_words");
        let proof = [
            ("rule", Value::Text("content_words < min_words".to_owned())),
            ("value", Value::Number(1.0)),
            ("threshold", Value::Number(3.0)),
        ];
        assert_eq!(dropped.proof, proof);
        assert_eq!(reason(&cleaner, "one # two three"), "too_many_hashes");
    }

    #[test]
    fn a_condition_that_is_no_comparison_is_proven_by_its_text() {
        let rules = "[[rule]]\nreason = 'odd'\ndrop_if = 'words == 1 or words == 3'";
        let cleaner = Cleaner::new(recipe(rules)).unwrap();
        let Verdict::Drop(dropped) = verdict(&cleaner, "a b c") else { panic!("the rule should fire") };
        assert_eq!(dropped.proof, [("rule", Value::Text("words == 1 or words == 3".to_owned()))]);
        assert_eq!(verdict(&cleaner, "a b"), Verdict::Keep);
        let outcome = &cleaner.explain("a b c")[0];
        assert_eq!((outcome.fired, outcome.value, outcome.threshold), (true, None, None));
    }

    #[test]
    fn explains_every_rule() {
        let rules = "[thresholds]\nmax_words = 2\n\
                     [[rule]]\nreason = 'long'\ndrop_if = 'words > max_words'\n\
                     [[rule]]\nreason = 'loud'\nwhen = 'words < 3'\ndrop_if = 'hashes / words >= 1'\n";
        let outcomes = Cleaner::new(recipe(rules)).unwrap().explain("# a # b # c");
        let long = RuleOutcome {
            reason: "long".to_owned(),
            expression: "words > max_words".to_owned(),
            when: None,
            value: Some(3.0),
            threshold: Some(2.0),
            applies: true,
            fired: true,
        };
        let loud = RuleOutcome {
            reason: "loud".to_owned(),
            expression: "hashes / words >= 1".to_owned(),
            when: Some("words < 3".to_owned()),
            value: Some(1.0),
            threshold: Some(1.0),
            applies: false,
            fired: false,
        };
        assert_eq!(outcomes, [long, loud]);
        assert!(cleaner("none").explain(ENGLISH).is_empty());
    }

    #[test]
    fn explaining_and_deciding_agree() {
        for name in Recipe::builtin_names() {
            let cleaner = cleaner(name);
            for text in
                [ENGLISH, RUSSIAN, CHINESE, THAI, "short", "Ã© \r\n", &"# ".repeat(90), &"#a ".repeat(90)]
            {
                let explained = cleaner.explain(text).into_iter().find(|outcome| outcome.fired);
                assert_eq!(
                    explained.map_or("keep".to_owned(), |o| o.reason),
                    reason(&cleaner, text),
                    "{name}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn normalises_before_it_measures_and_counts_what_it_did() {
        let cleaner = cleaner("none");
        let mut counters = Counters::default();
        let mut doc = Document::new(b"", "id", "", "cafÃ©  \n");
        let work = cleaner.map(&mut doc, &mut CleanScratch::default(), &mut counters);
        assert!(matches!(work, Work::Decided(Verdict::Keep)));
        assert!(doc.is_edited());
        assert_eq!(doc.text(), "café\n");
        let mut expected = Counters::default();
        for name in ["normalised", "mojibake_repaired", "trailing_spaces_removed"] {
            expected.add(name, 1);
        }
        assert_eq!(counters, expected);
        assert_eq!(cleaner.measure("e\u{301}").get("characters"), Some(1.0));
    }

    #[test]
    fn an_untouched_document_is_not_edited() {
        let mut doc = Document::new(b"", "id", "", ENGLISH);
        cleaner("curate-v1").map(&mut doc, &mut CleanScratch::default(), &mut Counters::default());
        assert!(!doc.is_edited());
    }

    #[test]
    fn lists_all_reasons_once() {
        let rules = "[[rule]]\nreason = 'a'\ndrop_if = 'words < 1'\n[[rule]]\nreason = 'b'\ndrop_if = 'words > 9'\n\
                     [[rule]]\nreason = 'a'\ndrop_if = 'lines > 9'";
        assert_eq!(Cleaner::new(recipe(rules)).unwrap().reasons(), ["empty", "a", "b"]);
        assert_eq!(cleaner("none").reasons(), ["empty"]);
        assert_eq!(cleaner("curate-v1").reasons().len(), 28);
    }
}
