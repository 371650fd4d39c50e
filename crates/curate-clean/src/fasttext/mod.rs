//! fastText classifiers, read and asked exactly as the C++ program does.
//!
//! [`Model::read`] takes the bytes of a `.bin` or `.ftz` file: every loss (softmax, hierarchical softmax, negative
//! sampling, one-vs-all), dense or product-quantised, with or without quantised norms, quantised output and pruned
//! vocabulary. [`Model::predict`] gives the labels of the C++ program, and its probabilities to 1e-5. That includes
//! its habits: a reported probability is `p + 1e-5`, since scores pass through `log(p + 1e-5)`.
//!
//! A text is one line to fastText, so what happens to line ends must be said: see [`Newlines`].
//!
//! The format: Bojanowski et al. 2017, Joulin et al. 2016 ("FastText.zip"), and the reference program, version 0.9.2.

mod best;
mod dictionary;
mod error;
mod matrix;
mod read;
mod simd;
mod train;
#[cfg(test)]
mod tests;

use best::Best;
use dictionary::{Dictionary, Rows};
pub use error::FastTextError;
use matrix::Matrix;
use read::Reader;
pub use train::{FastTextOptions, train};

pub(crate) const MAGIC: i32 = 793_712_314;
pub(crate) const VERSION: i32 = 12;

/// What becomes of the line ends of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Newlines {
    /// They separate words, as in DCLM (which replaces them by spaces).
    #[default]
    Space,
    /// They vanish, and glue the words around them together, as in datatrove.
    Remove,
}

/// A label and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Index in [`Model::labels`].
    pub label: usize,
    /// As fastText reports it: up to 1.00001.
    pub probability: f32,
}

/// Buffers that predictions reuse.
#[derive(Debug, Default)]
pub struct PredictScratch {
    rows: Rows,
    text: Vec<u8>,
    hidden: Vec<f32>,
    output: Vec<f32>,
    /// Nodes of the tree that are still to be visited, with their scores.
    stack: Vec<(usize, f32)>,
    best: Best,
    predictions: Vec<Prediction>,
}

/// A classifier in memory.
#[derive(Debug)]
pub struct Model {
    dictionary: Dictionary,
    input: Matrix,
    output: Matrix,
    loss: Loss,
}

#[derive(Debug)]
enum Loss {
    Softmax,
    /// A label is as likely as its own sigmoid says; both losses predict alike.
    OneByOne(SigmoidTable),
    Hierarchical(Vec<Node>),
}

/// A node of the Huffman tree of labels; leaves have no children.
#[derive(Debug, Clone, Copy)]
struct Node {
    children: Option<(usize, usize)>,
    count: i64,
}

/// The settings that prediction depends on.
pub(crate) struct Args {
    dim: usize,
    word_ngrams: usize,
    loss: i32,
    bucket: usize,
    minn: usize,
    maxn: usize,
}

impl Args {
    fn read(reader: &mut Reader<'_>, version: i32) -> Result<Self, FastTextError> {
        let most = i64::from(i32::MAX);
        let dim = reader.count("dim", 1..=1 << 20)?;
        for what in ["ws", "epoch", "minCount", "neg"] {
            reader.i32(what)?;
        }
        let word_ngrams = reader.count("wordNgrams", 0..=1 << 16)?;
        let loss = reader.count("loss", 1..=4)? as i32;
        let is_supervised = reader.count("model", 1..=3)? == 3;
        let bucket = reader.count("bucket", 0..=most)?;
        let minn = reader.count("minn", 0..=1 << 16)?;
        let maxn = reader.count("maxn", 0..=1 << 16)?;
        reader.i32("lrUpdateRate")?;
        reader.f64("t")?;
        if !is_supervised {
            return Err(FastTextError::NotSupervised);
        }
        // Classifiers of version 11 were trained without character n-grams, whatever they say.
        let maxn = if version == 11 { 0 } else { maxn };
        if bucket == 0 && (maxn > 0 || word_ngrams > 1) {
            return Err(reader.bad("bucket", 0, "at least 1 for n-grams"));
        }
        Ok(Self { dim, word_ngrams, loss, bucket, minn, maxn })
    }
}

impl Model {
    /// Reads a model from the bytes of its file.
    ///
    /// # Errors
    /// Bytes that are no classifier, or one that would ask for a row that it does not have. Nothing is allocated
    /// that the bytes could not fill, but for a bit per bucket (8 MB at most).
    pub fn read(bytes: &[u8]) -> Result<Self, FastTextError> {
        let mut reader = Reader::new(bytes);
        let found = reader.i32("the magic number")?;
        if found != MAGIC {
            return Err(FastTextError::Magic { found });
        }
        let version = reader.i32("the version")?;
        if !(11..=VERSION).contains(&version) {
            return Err(FastTextError::Version { found: version });
        }
        let args = Args::read(&mut reader, version)?;
        let dictionary = Dictionary::read(&mut reader, &args)?;
        let is_quantised = reader.flag("whether the input is quantised")?;
        if !is_quantised && dictionary.is_pruned() {
            return Err(reader.bad("whether the input is quantised", 0, "1 for a pruned dictionary"));
        }
        let input = Matrix::read(&mut reader, is_quantised, args.dim)?;
        if input.rows < dictionary.rows_needed() {
            let needed = dictionary.rows_needed();
            return Err(reader.bad("rows of the input", input.rows, format!("at least {needed}")));
        }
        let quantised_output = reader.flag("whether the output is quantised")?;
        let output = Matrix::read(&mut reader, is_quantised && quantised_output, args.dim)?;
        let n_labels = dictionary.labels.len();
        if output.rows != n_labels || n_labels == 0 {
            return Err(reader.bad("rows of the output", output.rows, format!("{} labels", n_labels.max(1))));
        }
        let loss = match args.loss {
            1 => Loss::Hierarchical(huffman_tree(&dictionary.label_counts)),
            3 => Loss::Softmax,
            _ => Loss::OneByOne(SigmoidTable::new()),
        };
        Ok(Self { dictionary, input, output, loss })
    }

    /// The labels, without `__label__`.
    pub fn labels(&self) -> &[String] {
        &self.dictionary.labels
    }

    /// The index of the label called `name`, with or without `__label__`.
    pub fn label(&self, name: &str) -> Option<usize> {
        let name = name.strip_prefix("__label__").unwrap_or(name);
        self.labels().iter().position(|label| label == name)
    }

    /// The `k` likeliest labels with a probability of at least `threshold`, likeliest first. Empty for a text that
    /// has no word and no n-gram that the model knows.
    pub fn predict<'s>(
        &self,
        text: &str,
        newlines: Newlines,
        k: usize,
        threshold: f32,
        scratch: &'s mut PredictScratch,
    ) -> &'s [Prediction] {
        scratch.best.clear();
        scratch.predictions.clear();
        if k > 0 && self.compute_hidden(text, newlines, scratch) {
            match &self.loss {
                Loss::Hierarchical(tree) => self.search_tree(tree, k, threshold, scratch),
                Loss::Softmax => {
                    self.compute_output(scratch);
                    softmax(&mut scratch.output);
                    collect_best(k, threshold, scratch);
                }
                Loss::OneByOne(sigmoid) => {
                    self.compute_output(scratch);
                    scratch.output.iter_mut().for_each(|x| *x = sigmoid.of(*x));
                    collect_best(k, threshold, scratch);
                }
            }
        }
        let found = scratch
            .best
            .sorted()
            .iter()
            .map(|(score, label)| Prediction { label: *label, probability: score.exp() });
        scratch.predictions.extend(found);
        &scratch.predictions
    }

    /// The probability of one label, 0 where the model has nothing to say of the text.
    pub fn probability(
        &self,
        text: &str,
        newlines: Newlines,
        label: usize,
        scratch: &mut PredictScratch,
    ) -> f32 {
        let all = self.predict(text, newlines, self.labels().len(), 0.0, scratch);
        let found = all.iter().find(|prediction| prediction.label == label);
        found.map_or(0.0, |prediction| prediction.probability.min(1.0))
    }

    /// The mean of the rows of `text`; false if it has none.
    fn compute_hidden(&self, text: &str, newlines: Newlines, scratch: &mut PredictScratch) -> bool {
        let mut line = text.as_bytes();
        if newlines == Newlines::Remove && memchr::memchr(b'\n', line).is_some() {
            scratch.text.clear();
            line.split(|b| *b == b'\n').for_each(|part| scratch.text.extend_from_slice(part));
            line = &scratch.text;
        }
        self.dictionary.rows_of(line, &mut scratch.rows);
        let rows = &scratch.rows.rows;
        if rows.is_empty() {
            return false;
        }
        scratch.hidden.clear();
        scratch.hidden.resize(self.input.cols, 0.0);
        self.input.add_rows(&mut scratch.hidden, rows);
        let scale = (1.0 / rows.len() as f64) as f32;
        scratch.hidden.iter_mut().for_each(|x| *x *= scale);
        true
    }

    fn compute_output(&self, scratch: &mut PredictScratch) {
        scratch.output.clear();
        let hidden = &scratch.hidden;
        scratch.output.extend((0..self.output.rows).map(|row| self.output.dot_row(hidden, row)));
    }

    /// Walks down the tree, left before right, and turns round where the score is below the worst of `k` found.
    fn search_tree(&self, tree: &[Node], k: usize, threshold: f32, scratch: &mut PredictScratch) {
        let n_labels = self.output.rows;
        let least = log(threshold);
        scratch.stack.clear();
        scratch.stack.push((tree.len() - 1, 0.0));
        while let Some((node, score)) = scratch.stack.pop() {
            if score < least || scratch.best.excludes(k, score) {
                continue;
            }
            let Some((left, right)) = tree[node].children else {
                scratch.best.insert(k, score, node);
                continue;
            };
            let x = self.output.dot_row(&scratch.hidden, node - n_labels);
            let p = (1.0 / f64::from(1.0 + (-x).exp())) as f32;
            scratch.stack.push((right, score + log(p)));
            scratch.stack.push((left, score + (((1.0 - f64::from(p)) as f32) as f64 + 1e-5).ln() as f32));
        }
    }
}

/// `log(x + 1e-5)`, which is how fastText keeps scores finite.
fn log(x: f32) -> f32 {
    (f64::from(x) + 1e-5).ln() as f32
}

fn softmax(output: &mut [f32]) {
    let max = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in output.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    output.iter_mut().for_each(|x| *x /= sum);
}

fn collect_best(k: usize, threshold: f32, scratch: &mut PredictScratch) {
    for (label, p) in scratch.output.iter().enumerate() {
        if *p < threshold {
            continue;
        }
        let score = log(*p);
        if !scratch.best.excludes(k, score) {
            scratch.best.insert(k, score, label);
        }
    }
}

/// The sigmoid as fastText computes it: 512 steps from -8 to 8.
#[derive(Debug)]
struct SigmoidTable(Vec<f32>);

impl SigmoidTable {
    const STEPS: usize = 512;
    const MOST: f32 = 8.0;

    fn new() -> Self {
        let value = |i: usize| {
            let x = (i * 2 * Self::MOST as usize) as f32 / Self::STEPS as f32 - Self::MOST;
            (1.0 / (1.0 + f64::from((-x).exp()))) as f32
        };
        Self((0..=Self::STEPS).map(value).collect())
    }

    fn of(&self, x: f32) -> f32 {
        if x < -Self::MOST {
            0.0
        } else if x > Self::MOST {
            1.0
        } else {
            self.0[((x + Self::MOST) * Self::STEPS as f32 / Self::MOST / 2.0) as usize]
        }
    }
}

/// The Huffman tree over labels, whose counts fall: leaves first, the root last.
fn huffman_tree(counts: &[i64]) -> Vec<Node> {
    let n = counts.len();
    let mut tree: Vec<Node> = counts.iter().map(|count| Node { children: None, count: *count }).collect();
    // The cheapest leaf and the cheapest inner node that have no parent yet.
    let (mut leaves, mut inner) = (n, n);
    for _ in 1..n {
        let mut cheapest = || {
            let take_leaf = leaves > 0 && (inner >= tree.len() || tree[leaves - 1].count < tree[inner].count);
            if take_leaf {
                leaves -= 1;
                leaves
            } else {
                inner += 1;
                inner - 1
            }
        };
        let (left, right) = (cheapest(), cheapest());
        let count = tree[left].count.saturating_add(tree[right].count);
        tree.push(Node { children: Some((left, right)), count });
    }
    tree
}
