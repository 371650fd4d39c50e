//! The language of rules: arithmetic and conditions over named numbers.
//!
//! ```text
//! condition   either { "or" either }
//! either      negated { "and" negated }
//! negated     "not" negated | comparison
//! comparison  sum [ ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) sum ]
//! sum         product { ( "+" | "-" ) product }
//! product     sign { ( "*" | "/" ) sign }
//! sign        "-" sign | NUMBER | NAME | "(" condition ")"
//! ```
//!
//! Numbers and conditions do not mix: `words and 3` is an error, and so is `1 < words < 9`. Numbers are `f64`.
//! **Anything divided by zero is zero**, so that a ratio over nothing is a plain number. Evaluation needs no
//! allocation: an expression becomes a list of steps on a stack of bounded size.

use std::fmt;

use serde::{Serialize, Serializer};

/// Deepest nesting of parentheses and signs, and most values on the stack.
const MAX_DEPTH: usize = 64;

/// Longest expression, in tokens: keeps recursion over long sums within any stack.
const MAX_TOKENS: usize = 2048;

/// An expression that could not be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ExpressionError {
    /// Where, in characters from 1.
    pub column: usize,
    pub problem: Problem,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error("expected {expected}, found {found}")]
    Unexpected { expected: String, found: String },
    #[error("nothing is called `{name}`")]
    UnknownName { name: String, nearest: Option<String> },
    #[error("more than {MAX_DEPTH} parentheses, signs or operands inside one another")]
    TooDeep,
    #[error("more than {MAX_TOKENS} numbers, names and operators")]
    TooLong,
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Binary {
    const ALL: [Self; 12] = [
        Self::Or,
        Self::And,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::Equal,
        Self::NotEqual,
        Self::Add,
        Self::Subtract,
        Self::Multiply,
        Self::Divide,
    ];

    fn symbol(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide => 6,
            _ => COMPARISON,
        }
    }

    fn operands(self) -> Kind {
        match self {
            Self::Or | Self::And => Kind::Condition,
            _ => Kind::Number,
        }
    }

    fn result(self) -> Kind {
        match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide => Kind::Number,
            _ => Kind::Condition,
        }
    }

    /// True for the six that compare two numbers.
    fn is_comparison(self) -> bool {
        self.precedence() == COMPARISON
    }

    /// The value; conditions are 1 and 0.
    pub(crate) fn apply(self, left: f64, right: f64) -> f64 {
        let holds = match self {
            Self::Add => return left + right,
            Self::Subtract => return left - right,
            Self::Multiply => return left * right,
            Self::Divide => return if right == 0.0 { 0.0 } else { left / right },
            Self::Or => left != 0.0 || right != 0.0,
            Self::And => left != 0.0 && right != 0.0,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        };
        f64::from(u8::from(holds))
    }
}

const NEGATION: u8 = 3;
const COMPARISON: u8 = 4;
const SIGN: u8 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Condition,
}

impl Kind {
    fn with_article(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Condition => "a condition",
        }
    }
}

/// A condition over named numbers, as a tree.
#[derive(Debug, Clone)]
pub struct Expression {
    root: Node,
    /// The names used, with their columns, in the order in which they stand.
    names: Vec<(String, usize)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// Finite and not negative.
    Number(f64),
    Name(String),
    Negate(Box<Node>),
    Not(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
}

impl Expression {
    /// Reads a condition such as `hashes / words > 0.1`.
    ///
    /// # Errors
    /// The first thing that is not as the grammar has it, with its column.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser::new(text)?;
        let operand = parser.operand(0)?;
        parser.expect(&Lexeme::End, "an operator or the end")?;
        parser.expect_kind(&operand, Kind::Condition)?;
        Ok(Self { root: operand.node, names: parser.names })
    }

    /// The names used, in the order in which they stand, some perhaps more than once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// Turns the names into numbers or variables; `nearest` is asked for a suggestion when that fails.
    pub(crate) fn compile(
        &self,
        resolve: impl Fn(&str) -> Option<Operand>,
        nearest: impl Fn(&str) -> Option<String>,
    ) -> Result<Test, ExpressionError> {
        for (name, column) in &self.names {
            if resolve(name).is_none() {
                let problem = Problem::UnknownName { name: name.clone(), nearest: nearest(name) };
                return Err(ExpressionError { column: *column, problem });
            }
        }
        let program = |node| Program::new(node, &resolve);
        Ok(match &self.root {
            Node::Binary(operator, left, right) if operator.is_comparison() => {
                Test::Comparison(program(left)?, *operator, program(right)?)
            }
            root => Test::Condition(program(root)?),
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Node {
    fn precedence(&self) -> u8 {
        match self {
            Self::Number(_) | Self::Name(_) => u8::MAX,
            Self::Negate(_) => SIGN,
            Self::Not(_) => NEGATION,
            Self::Binary(operator, ..) => operator.precedence(),
        }
    }

    /// Writes the node, in parentheses if it binds less tightly than `least`.
    fn fmt_within(&self, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.precedence() < least {
            true => write!(f, "({self})"),
            false => write!(f, "{self}"),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
            Self::Negate(operand) => {
                f.write_str("-")?;
                operand.fmt_within(SIGN, f)
            }
            Self::Not(operand) => {
                f.write_str("not ")?;
                operand.fmt_within(NEGATION, f)
            }
            Self::Binary(operator, left, right) => {
                // Operators group from the left; comparisons do not group at all.
                let precedence = operator.precedence();
                left.fmt_within(precedence + u8::from(operator.is_comparison()), f)?;
                write!(f, " {} ", operator.symbol())?;
                right.fmt_within(precedence + 1, f)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Lexeme {
    Number(f64),
    Name(String),
    Operator(Binary),
    Not,
    Open,
    Close,
    End,
}

impl fmt::Display for Lexeme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "`{number}`"),
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Operator(operator) => write!(f, "`{}`", operator.symbol()),
            Self::Not => f.write_str("`not`"),
            Self::Open => f.write_str("`(`"),
            Self::Close => f.write_str("`)`"),
            Self::End => f.write_str("the end"),
        }
    }
}

fn unexpected(column: usize, expected: impl Into<String>, found: impl Into<String>) -> ExpressionError {
    ExpressionError {
        column,
        problem: Problem::Unexpected { expected: expected.into(), found: found.into() },
    }
}

/// Splits the text into lexemes with their columns, ending with `Lexeme::End`.
fn lexemes(text: &str) -> Result<Vec<(Lexeme, usize)>, ExpressionError> {
    let mut lexemes = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let column = text[..text.len() - rest.len()].chars().count() + 1;
        if lexemes.len() == MAX_TOKENS {
            return Err(ExpressionError { column, problem: Problem::TooLong });
        }
        let (lexeme, len) = lexeme(rest, column)?;
        rest = &rest[len..];
        let is_end = lexeme == Lexeme::End;
        lexemes.push((lexeme, column));
        if is_end {
            return Ok(lexemes);
        }
    }
}

/// The lexeme that `rest` begins with, and its length.
fn lexeme(rest: &str, column: usize) -> Result<(Lexeme, usize), ExpressionError> {
    let Some(first) = rest.chars().next() else { return Ok((Lexeme::End, 0)) };
    if first.is_ascii_digit() || first == '.' {
        let len = number_len(rest);
        return match rest[..len].parse() {
            Ok(number) if f64::is_finite(number) => Ok((Lexeme::Number(number), len)),
            _ => Err(unexpected(column, "a number", format!("`{}`", &rest[..len]))),
        };
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let lexeme = match name {
            "or" => Lexeme::Operator(Binary::Or),
            "and" => Lexeme::Operator(Binary::And),
            "not" => Lexeme::Not,
            _ => Lexeme::Name(name.to_owned()),
        };
        return Ok((lexeme, name.len()));
    }
    match first {
        '(' => return Ok((Lexeme::Open, 1)),
        ')' => return Ok((Lexeme::Close, 1)),
        _ => {}
    }
    // The longest symbol that fits: `<=` before `<`.
    let operator = Binary::ALL
        .into_iter()
        .filter(|operator| rest.starts_with(operator.symbol()))
        .max_by_key(|operator| operator.symbol().len());
    match operator {
        Some(operator) => Ok((Lexeme::Operator(operator), operator.symbol().len())),
        None => Err(unexpected(column, "a number, a name or an operator", format!("`{first}`"))),
    }
}

/// Bytes of the number that `text` begins with: digits, a point, an exponent.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |at: usize| at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    end
}

/// A parsed part, with what it is worth and where it began.
struct Parsed {
    node: Node,
    kind: Kind,
    column: usize,
}

struct Parser {
    lexemes: Vec<(Lexeme, usize)>,
    at: usize,
    depth: usize,
    names: Vec<(String, usize)>,
}

impl Parser {
    fn new(text: &str) -> Result<Self, ExpressionError> {
        Ok(Self { lexemes: lexemes(text)?, at: 0, depth: 0, names: Vec::new() })
    }

    fn peek(&self) -> (&Lexeme, usize) {
        let (lexeme, column) = &self.lexemes[self.at];
        (lexeme, *column)
    }

    /// Moves on; the end is never passed.
    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.lexemes.len() - 1);
    }

    fn expect(&mut self, wanted: &Lexeme, expected: &str) -> Result<(), ExpressionError> {
        let (found, column) = self.peek();
        if found != wanted {
            return Err(unexpected(column, expected, found.to_string()));
        }
        self.advance();
        Ok(())
    }

    fn expect_kind(&self, parsed: &Parsed, kind: Kind) -> Result<(), ExpressionError> {
        match parsed.kind == kind {
            true => Ok(()),
            false => Err(unexpected(
                parsed.column,
                kind.with_article(),
                format!("{} (`{}`)", parsed.kind.with_article(), parsed.node),
            )),
        }
    }

    /// An operand and all operators behind it that bind at least as tightly as `least`.
    fn operand(&mut self, least: u8) -> Result<Parsed, ExpressionError> {
        let mut left = self.prefix()?;
        while let (&Lexeme::Operator(operator), _) = self.peek() {
            let precedence = operator.precedence();
            if precedence < least {
                break;
            }
            self.expect_kind(&left, operator.operands())?;
            self.advance();
            let right = self.operand(precedence + 1)?;
            self.expect_kind(&right, operator.operands())?;
            let node = Node::Binary(operator, Box::new(left.node), Box::new(right.node));
            left = Parsed { node, kind: operator.result(), column: left.column };
        }
        Ok(left)
    }

    fn prefix(&mut self) -> Result<Parsed, ExpressionError> {
        let (lexeme, column) = self.peek();
        let lexeme = lexeme.clone();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpressionError { column, problem: Problem::TooDeep });
        }
        self.advance();
        let parsed = match lexeme {
            Lexeme::Number(number) => Parsed { node: Node::Number(number), kind: Kind::Number, column },
            Lexeme::Name(name) => {
                self.names.push((name.clone(), column));
                Parsed { node: Node::Name(name), kind: Kind::Number, column }
            }
            Lexeme::Operator(Binary::Subtract) => {
                let operand = self.operand(SIGN)?;
                self.expect_kind(&operand, Kind::Number)?;
                Parsed { node: Node::Negate(Box::new(operand.node)), kind: Kind::Number, column }
            }
            Lexeme::Not => {
                let operand = self.operand(NEGATION)?;
                self.expect_kind(&operand, Kind::Condition)?;
                Parsed { node: Node::Not(Box::new(operand.node)), kind: Kind::Condition, column }
            }
            Lexeme::Open => {
                let inner = self.operand(0)?;
                self.expect(&Lexeme::Close, "an operator or `)`")?;
                Parsed { column, ..inner }
            }
            found @ (Lexeme::Operator(_) | Lexeme::Close | Lexeme::End) => {
                return Err(unexpected(column, "a number, a name, `-`, `not` or `(`", found.to_string()));
            }
        };
        self.depth -= 1;
        Ok(parsed)
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operand {
    Constant(f64),
    /// Given at evaluation, by number.
    Variable(usize),
}

/// A compiled condition. A comparison keeps its sides apart, as they are what a verdict is proven with.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Comparison(Program, Binary, Program),
    Condition(Program),
}

/// Steps that leave one number on a stack.
#[derive(Debug, Clone)]
pub(crate) struct Program(Vec<Step>);

#[derive(Debug, Clone, Copy)]
enum Step {
    Push(Operand),
    Negate,
    Not,
    Apply(Binary),
}

impl Program {
    fn new(node: &Node, resolve: &impl Fn(&str) -> Option<Operand>) -> Result<Self, ExpressionError> {
        let mut steps = Vec::new();
        let stack = push_steps(node, resolve, &mut steps);
        match stack <= MAX_DEPTH {
            true => Ok(Self(steps)),
            false => Err(ExpressionError { column: 1, problem: Problem::TooDeep }),
        }
    }

    /// The value, given the variables; a condition is 1 or 0. Does not allocate.
    pub(crate) fn evaluate(&self, variable: impl Fn(usize) -> f64) -> f64 {
        let mut stack = [0.0; MAX_DEPTH];
        let mut top = 0;
        for step in &self.0 {
            match step {
                Step::Push(operand) => {
                    stack[top] = match operand {
                        Operand::Constant(value) => *value,
                        Operand::Variable(number) => variable(*number),
                    };
                    top += 1;
                }
                Step::Negate => stack[top - 1] = -stack[top - 1],
                Step::Not => stack[top - 1] = f64::from(u8::from(stack[top - 1] == 0.0)),
                Step::Apply(operator) => {
                    top -= 1;
                    stack[top - 1] = operator.apply(stack[top - 1], stack[top]);
                }
            }
        }
        stack[0]
    }
}

/// Appends the steps of `node`; returns how high the stack grows.
fn push_steps(node: &Node, resolve: &impl Fn(&str) -> Option<Operand>, steps: &mut Vec<Step>) -> usize {
    match node {
        Node::Number(number) => {
            steps.push(Step::Push(Operand::Constant(*number)));
            1
        }
        Node::Name(name) => {
            steps.push(Step::Push(resolve(name).expect("all names were resolved before")));
            1
        }
        Node::Negate(operand) => {
            let stack = push_steps(operand, resolve, steps);
            steps.push(Step::Negate);
            stack
        }
        Node::Not(operand) => {
            let stack = push_steps(operand, resolve, steps);
            steps.push(Step::Not);
            stack
        }
        Node::Binary(operator, left, right) => {
            let left = push_steps(left, resolve, steps);
            let right = push_steps(right, resolve, steps);
            steps.push(Step::Apply(*operator));
            left.max(right + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [(&str, f64); 3] = [("words", 7.0), ("lines", 0.0), ("min_words", 2.5)];

    fn resolve(name: &str) -> Option<Operand> {
        match name {
            "min_words" => Some(Operand::Constant(2.5)),
            _ => NAMES.iter().position(|(known, _)| *known == name).map(Operand::Variable),
        }
    }

    fn evaluate(text: &str) -> bool {
        let test = Expression::parse(text).unwrap().compile(resolve, |_| None).unwrap();
        let variable = |i: usize| NAMES[i].1;
        let value = match test {
            Test::Comparison(left, operator, right) => {
                operator.apply(left.evaluate(variable), right.evaluate(variable))
            }
            Test::Condition(program) => program.evaluate(variable),
        };
        value != 0.0
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(evaluate(text), expected, "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(Expression::parse(text).unwrap_err().to_string(), expected, "{text:?}");
    }

    #[test]
    fn evaluates() {
        check("words == 7", true);
        check("words<min_words", false);
        check("words >= 7 and words <= 7", true);
        check("1 + 2 * 3 == 7", true);
        check("(1 + 2) * 3 == 9", true);
        check("10 - 3 - 2 == 5 and 8 / 4 / 2 == 1", true);
        check("-words < 0 and - -words == 7 and 2 * -3 == -6", true);
        check("not words < 7 and 1 < 2", true);
        check("not (words == 7 or 1 > 2)", false);
        check("1 > 2 or 2 > 1 and 3 > 2", true);
        check("(1 < 2 or 2 < 1) and 2 < 1", false);
        check(".5 == 0.5 and 1e3 == 1000 and 25E-1 == min_words and 1. == 1", true);
        check("1 != 1", false);
    }

    #[test]
    fn division_by_zero_is_zero() {
        check("words / lines == 0 and 0 / 0 == 0 and -1 / 0 == 0", true);
        check("1 / (words / lines) == 0", true);
        check("words / lines > 0.1", false);
    }

    #[test]
    fn errors_say_where_and_what() {
        check_error("", "column 1: expected a number, a name, `-`, `not` or `(`, found the end");
        check_error("words <", "column 8: expected a number, a name, `-`, `not` or `(`, found the end");
        check_error("words", "column 1: expected a condition, found a number (`words`)");
        check_error("words 3", "column 7: expected an operator or the end, found `3`");
        check_error("(words < 3", "column 11: expected an operator or `)`, found the end");
        check_error("words < 3)", "column 10: expected an operator or the end, found `)`");
        check_error("1 < words < 9", "column 1: expected a number, found a condition (`1 < words`)");
        check_error("words and 3 < 4", "column 1: expected a condition, found a number (`words`)");
        check_error("1 < 2 and words", "column 11: expected a condition, found a number (`words`)");
        check_error("not 3 < 4 + (1 < 2)", "column 13: expected a number, found a condition (`1 < 2`)");
        check_error("words = 3", "column 7: expected a number, a name or an operator, found `=`");
        check_error("wörds < 3", "column 2: expected a number, a name or an operator, found `ö`");
        check_error("'é' < 3", "column 1: expected a number, a name or an operator, found `'`");
        check_error("words < 1e999", "column 9: expected a number, found `1e999`");
        check_error("words < .", "column 9: expected a number, found `.`");
        check_error("words < 1.2.3", "column 12: expected an operator or the end, found `0.3`");
        check_error(
            &"(".repeat(65),
            "column 65: more than 64 parentheses, signs or operands inside one another",
        );
        check_error(&"1+".repeat(2000), "column 2049: more than 2048 numbers, names and operators");
    }

    #[test]
    fn unknown_names_are_found_with_their_column() {
        let expression = Expression::parse("words < 3 or wrds > 2").unwrap();
        let error = expression.compile(resolve, |name| Some(format!("not {name}"))).unwrap_err();
        assert_eq!(error.to_string(), "column 14: nothing is called `wrds`");
        let nearest = Some("not wrds".to_owned());
        assert_eq!(error.problem, Problem::UnknownName { name: "wrds".to_owned(), nearest });
        assert_eq!(expression.names().collect::<Vec<_>>(), ["words", "wrds"]);
    }

    #[test]
    fn long_and_deep_expressions_evaluate() {
        check(&format!("{} > 0", vec!["1"; 1000].join(" + ")), true);
        let deep = format!("{}1{} == 61", "(1 + ".repeat(60), ")".repeat(60));
        check(&deep, true);
    }

    #[test]
    fn prints_with_the_parentheses_it_needs() {
        for text in [
            "words < 3",
            "a / b > 0.1",
            "not (a < 1 or b < 1) and c < 1",
            "not not a < 1",
            "(a + 1) * -(b - 2) >= c - (d - e)",
            "a - b - c < 0",
            "a < 1 or b < 1 and c < 1",
        ] {
            assert_eq!(Expression::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Expression::parse("((a))*(b/1.50)<-(3)").unwrap().to_string(), "a * (b / 1.5) < -3");
    }

    fn number() -> BoxedStrategy<Node> {
        let leaf = prop_oneof![
            (0.0..1e6_f64).prop_map(Node::Number),
            (0..100_u8).prop_map(|n| Node::Number(f64::from(n))),
            "[a-z_][a-z0-9_]{0,6}"
                .prop_filter("keywords are no names", |name| !["or", "and", "not"].contains(&name.as_str()))
                .prop_map(Node::Name),
        ];
        leaf.prop_recursive(5, 24, 2, |inner| {
            let operator =
                prop::sample::select(vec![Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide]);
            prop_oneof![
                inner.clone().prop_map(|operand| Node::Negate(Box::new(operand))),
                (operator, inner.clone(), inner).prop_map(|(o, l, r)| Node::Binary(
                    o,
                    Box::new(l),
                    Box::new(r)
                )),
            ]
        })
        .boxed()
    }

    fn condition() -> BoxedStrategy<Node> {
        let comparisons: Vec<Binary> = Binary::ALL.into_iter().filter(|o| o.is_comparison()).collect();
        let leaf = (prop::sample::select(comparisons), number(), number())
            .prop_map(|(o, l, r)| Node::Binary(o, Box::new(l), Box::new(r)));
        leaf.prop_recursive(4, 16, 2, |inner| {
            let operator = prop::sample::select(vec![Binary::Or, Binary::And]);
            prop_oneof![
                inner.clone().prop_map(|operand| Node::Not(Box::new(operand))),
                (operator, inner.clone(), inner).prop_map(|(o, l, r)| Node::Binary(
                    o,
                    Box::new(l),
                    Box::new(r)
                )),
            ]
        })
        .boxed()
    }

    proptest! {
        #[test]
        fn printed_expressions_parse_to_themselves(root in condition()) {
            let parsed = Expression::parse(&root.to_string()).unwrap();
            prop_assert_eq!(parsed.root, root);
        }

        #[test]
        fn parsing_and_evaluating_never_panic(
            text in prop_oneof![
                any::<String>(),
                "(words|lines|and|or|not|[0-9.()+*/<>=!eE -]){0,40}",
                prop::collection::vec(
                    prop::sample::select(vec!["words", "lines", "1", "<", "and", "or", "not", "(", ")", "-", "+", "/"]),
                    0..40,
                ).prop_map(|tokens| tokens.join(" ")),
            ],
        ) {
            if let Ok(expression) = Expression::parse(&text)
                && let Ok(test) = expression.compile(resolve, |_| None)
            {
                let program = match &test {
                    Test::Comparison(left, ..) => left,
                    Test::Condition(program) => program,
                };
                let _ = program.evaluate(|i| NAMES[i].1);
            }
        }
    }
}
