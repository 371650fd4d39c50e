//! Training a classifier that fastText reads: supervised, softmax, word n-grams.
//!
//! The recipe is fastText's (Joulin et al. 2017): a text is the mean of the rows of its words and n-grams, a linear
//! softmax layer on top, plain SGD with a learning rate that falls to zero. It runs on one thread, and the order of
//! documents is shuffled by a seed in each epoch, so the same documents give the same file.

use std::collections::HashMap;

use super::dictionary::{hash, is_space};
use super::{FastTextError, MAGIC, VERSION, simd};

/// Settings of a training, under fastText's names.
#[derive(Debug, Clone, PartialEq)]
pub struct FastTextOptions {
    /// Length of the vectors. Memory and file are 4 × dim × (words + buckets) bytes.
    pub dim: usize,
    /// Learning rate of the first step.
    pub lr: f32,
    pub epochs: usize,
    pub word_ngrams: usize,
    /// Rows that word n-grams share.
    pub buckets: usize,
    /// Words that occur less often are left out.
    pub min_count: u64,
    pub seed: u64,
}

impl Default for FastTextOptions {
    fn default() -> Self {
        Self { dim: 16, lr: 0.1, epochs: 5, word_ngrams: 2, buckets: 1 << 20, min_count: 2, seed: 1 }
    }
}

/// Trains on `documents`, each the index of its label and its text, and returns the bytes of a `.bin` file.
///
/// Labels are written in the order of how often they occur, as fastText does.
///
/// # Errors
/// Fewer than two labels.
pub fn train(
    documents: &[(usize, &str)],
    labels: &[&str],
    options: &FastTextOptions,
) -> Result<Vec<u8>, FastTextError> {
    if labels.len() < 2 {
        return Err(FastTextError::TooFewLabels { needed: 2, found: labels.len() });
    }
    let vocabulary = Vocabulary::count(documents, labels, options);
    let texts: Vec<(usize, Vec<u32>)> = documents
        .iter()
        .map(|(label, text)| (vocabulary.label_rank(*label), vocabulary.rows(text, options)))
        .collect();
    let mut trainer = Trainer::new(&vocabulary, options);
    trainer.fit(&texts, options);
    Ok(write(&vocabulary, &trainer, options))
}

/// Words and labels, most frequent first.
struct Vocabulary<'t> {
    words: Vec<(&'t [u8], u64)>,
    rows: HashMap<&'t [u8], u32>,
    /// (index given by the caller, name, documents)
    labels: Vec<(usize, &'t str, u64)>,
    n_tokens: u64,
}

const END: &[u8] = b"</s>";

/// The tokens of a text, the end among them. A word that looks like a label is left out: it would be taken for one.
fn tokens(text: &str) -> impl Iterator<Item = &[u8]> {
    let words = text.as_bytes().split(|b| is_space(*b)).filter(|w| !w.is_empty() && *w != END);
    words.filter(|word| !word.starts_with(b"__label__")).chain(std::iter::once(END))
}

impl<'t> Vocabulary<'t> {
    fn count(documents: &[(usize, &'t str)], labels: &[&'t str], options: &FastTextOptions) -> Self {
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        let mut label_counts = vec![0; labels.len()];
        let mut n_tokens = 0;
        for (label, text) in documents {
            label_counts[*label] += 1;
            for word in tokens(text) {
                *counts.entry(word).or_default() += 1;
                n_tokens += 1;
            }
        }
        let mut words: Vec<_> = counts.into_iter().filter(|(_, n)| *n >= options.min_count).collect();
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let rows = words.iter().zip(0..).map(|((word, _), row)| (*word, row)).collect();
        let mut labels: Vec<_> =
            labels.iter().zip(label_counts).enumerate().map(|(i, (name, n))| (i, *name, n)).collect();
        labels.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
        Self { words, rows, labels, n_tokens }
    }

    fn label_rank(&self, label: usize) -> usize {
        self.labels.iter().position(|(i, ..)| *i == label).expect("every label is ranked")
    }

    /// The rows of a text: its words', then its n-grams'.
    fn rows(&self, text: &str, options: &FastTextOptions) -> Vec<u32> {
        let mut rows = Vec::new();
        let mut hashes = Vec::new();
        for word in tokens(text) {
            rows.extend(self.rows.get(word));
            hashes.push(i64::from(hash(word) as i32) as u64);
        }
        for (i, first) in hashes.iter().enumerate() {
            let mut hash = *first;
            for next in hashes[i + 1..].iter().take(options.word_ngrams.saturating_sub(1)) {
                hash = hash.wrapping_mul(116_049_371).wrapping_add(*next);
                rows.push((self.words.len() as u64 + hash % options.buckets as u64) as u32);
            }
        }
        rows
    }
}

struct Trainer {
    dim: usize,
    input: Vec<f32>,
    output: Vec<f32>,
    random: u64,
}

impl Trainer {
    fn new(vocabulary: &Vocabulary<'_>, options: &FastTextOptions) -> Self {
        let dim = options.dim;
        let mut trainer = Self {
            dim,
            input: Vec::new(),
            output: vec![0.0; vocabulary.labels.len() * dim],
            random: options.seed,
        };
        let n = (vocabulary.words.len() + bucket_rows(options)) * dim;
        // As fastText: uniform within ±1/dim.
        trainer.input = (0..n).map(|_| (trainer.uniform() * 2.0 - 1.0) / dim as f32).collect();
        trainer
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    fn fit(&mut self, texts: &[(usize, Vec<u32>)], options: &FastTextOptions) {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let steps = (texts.len() * options.epochs).max(1) as f32;
        let mut step = 0.0;
        for _ in 0..options.epochs {
            for i in (1..order.len()).rev() {
                let j = ((u128::from(self.next()) * (i as u128 + 1)) >> 64) as usize;
                order.swap(i, j);
            }
            for i in &order {
                let (label, rows) = &texts[*i];
                self.step(*label, rows, options.lr * (1.0 - step / steps));
                step += 1.0;
            }
        }
    }

    fn step(&mut self, label: usize, rows: &[u32], lr: f32) {
        if rows.is_empty() {
            return;
        }
        let dim = self.dim;
        let mut hidden = vec![0.0; dim];
        simd::add_rows(&mut hidden, &self.input, rows);
        hidden.iter_mut().for_each(|x| *x /= rows.len() as f32);
        let mut scores: Vec<f32> = self.output.chunks_exact(dim).map(|row| simd::dot(row, &hidden)).collect();
        super::softmax(&mut scores);
        let mut gradient = vec![0.0; dim];
        for (i, row) in self.output.chunks_exact_mut(dim).enumerate() {
            let alpha = lr * (f32::from(u8::from(i == label)) - scores[i]);
            for ((weight, gradient), hidden) in row.iter_mut().zip(&mut gradient).zip(&hidden) {
                *gradient += alpha * *weight;
                *weight += alpha * hidden;
            }
        }
        gradient.iter_mut().for_each(|x| *x /= rows.len() as f32);
        for row in rows {
            let row = &mut self.input[*row as usize * dim..][..dim];
            row.iter_mut().zip(&gradient).for_each(|(weight, gradient)| *weight += gradient);
        }
    }
}

/// Without n-grams there are no buckets, as in fastText.
fn bucket_rows(options: &FastTextOptions) -> usize {
    if options.word_ngrams > 1 { options.buckets } else { 0 }
}

fn write(vocabulary: &Vocabulary<'_>, trainer: &Trainer, options: &FastTextOptions) -> Vec<u8> {
    let mut out = Vec::with_capacity(trainer.input.len() * 4 + (1 << 16));
    let mut put = |n: i32| out.extend_from_slice(&n.to_le_bytes());
    put(MAGIC);
    put(VERSION);
    // dim, ws, epoch, minCount, neg, wordNgrams, loss = softmax, model = supervised, bucket, minn, maxn, lrUpdateRate
    let settings = [options.dim, 5, options.epochs, options.min_count as usize, 5, options.word_ngrams, 3, 3];
    settings.iter().for_each(|n| put(*n as i32));
    [bucket_rows(options), 0, 0, 100].iter().for_each(|n| put(*n as i32));
    out.extend_from_slice(&1e-4f64.to_le_bytes());
    let (n_words, n_labels) = (vocabulary.words.len(), vocabulary.labels.len());
    [n_words + n_labels, n_words, n_labels]
        .iter()
        .for_each(|n| out.extend_from_slice(&(*n as i32).to_le_bytes()));
    out.extend_from_slice(&(vocabulary.n_tokens as i64).to_le_bytes());
    out.extend_from_slice(&(-1i64).to_le_bytes());
    for (word, count) in &vocabulary.words {
        write_entry(&mut out, b"", word, *count, 0);
    }
    for (_, label, count) in &vocabulary.labels {
        write_entry(&mut out, b"__label__", label.as_bytes(), *count, 1);
    }
    for matrix in [&trainer.input, &trainer.output] {
        out.push(0); // Not quantised.
        out.extend_from_slice(&((matrix.len() / options.dim) as i64).to_le_bytes());
        out.extend_from_slice(&(options.dim as i64).to_le_bytes());
        matrix.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    }
    out
}

fn write_entry(out: &mut Vec<u8>, prefix: &[u8], word: &[u8], count: u64, kind: u8) {
    out.extend_from_slice(prefix);
    out.extend_from_slice(word);
    out.push(0);
    out.extend_from_slice(&(count as i64).to_le_bytes());
    out.push(kind);
}
