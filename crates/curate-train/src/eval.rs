//! Held-out loss: nats per token, perplexity, bits per byte, under a protocol that is stated with every number.
//!
//! **Protocol.** Each document stands alone. Its tokens, the closing end-of-document id included, are preceded by one
//! end-of-document id, so that the first token is scored too. A window of `window` inputs moves over them by `stride`;
//! it scores the tokens that no earlier window has scored. Hence every stored token is scored exactly once, with at
//! least `window - stride` tokens before it wherever the document has that many. Log-probabilities are taken in fp32,
//! summed in f64: within a document window by window, then document by document in the order of the split.
//!
//! **Numbers.** With `nats` the sum over all scored tokens: nats per token = nats / tokens, perplexity = exp of it,
//! bits per byte = nats / (ln 2 × UTF-8 bytes of the texts). The end-of-document ids stand for no byte but carry
//! information (where the text ends), so they are in all three; `text_bits_per_byte` leaves them out, as tools do
//! that score no end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use curate_shards::{ShardSet, Split, Tokens};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::model::{IGNORE, Model};
use crate::{Error, Result};

/// What to evaluate.
#[derive(Clone, Debug, Default)]
pub struct EvalOptions {
    /// Name of the split.
    pub split: String,
    /// Inputs of a window; the model's context if absent.
    pub window: Option<u32>,
    /// Step from window to window; half the window if absent.
    pub stride: Option<u32>,
    /// Documents at most, from the first on.
    pub max_documents: Option<u64>,
    /// Stop after the document that brings the tokens to this number.
    pub max_tokens: Option<u64>,
    /// Whether the unigram baseline is computed: one pass over the tokens of `train`.
    pub baseline: bool,
}

/// How the numbers were made; stored with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Name of the split.
    pub split: String,
    /// Identity of its content.
    pub split_hash: String,
    /// Inputs of a window.
    pub window: u32,
    /// Step from window to window.
    pub stride: u32,
    /// What precedes each document.
    pub prefix: String,
    /// What a document sees of others.
    pub boundary: String,
    /// Which tokens are scored.
    pub scored: String,
    /// What is left out.
    pub excluded: String,
    /// Arithmetic.
    pub arithmetic: String,
}

/// Sums and what follows from them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Documents.
    pub documents: u64,
    /// Scored tokens.
    pub tokens: u64,
    /// UTF-8 bytes of the texts.
    pub bytes: u64,
    /// Sum of the negative log-probabilities.
    pub nats: f64,
    /// The part of it that falls on end-of-document ids, one a document.
    pub eod_nats: f64,
    /// `nats / tokens`.
    pub nats_per_token: f64,
    /// `exp(nats / tokens)`.
    pub perplexity: f64,
    /// `nats / (ln 2 × bytes)`.
    pub bits_per_byte: f64,
    /// `(nats - eod_nats) / (ln 2 × bytes)`.
    pub text_bits_per_byte: f64,
}

/// The score of the documents of one domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainScore {
    /// Name of the domain.
    pub domain: String,
    /// Its score.
    #[serde(flatten)]
    pub score: Score,
}

/// Outcome of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How.
    pub protocol: Protocol,
    /// All documents.
    pub total: Score,
    /// By domain, in the order of the manifest; empty if there is only one.
    pub domains: Vec<DomainScore>,
    /// The same tokens under the token frequencies of the training split: what a model gains is the difference.
    pub unigram: Option<Score>,
}

/// The score of one document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DocumentScore {
    /// Its number in the split.
    pub document: u64,
    /// Its domain's number in the manifest.
    pub domain: u16,
    /// Its tokens, all scored.
    pub tokens: u64,
    /// UTF-8 bytes of its text.
    pub bytes: u32,
    /// Sum of the negative log-probabilities.
    pub nats: f64,
    /// The part of it that falls on the closing end-of-document id.
    pub eod_nats: f64,
}

/// Told now and then how many of how many tokens are done; may stop the evaluation.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Evaluates a model on a split; see the module's text for the protocol.
///
/// # Errors
/// [`Error::NothingThere`] if the split has no document, [`Error::Option`] for an impossible window,
/// [`Error::Interrupted`] if `on_progress` breaks.
pub fn evaluate(
    model: &Model,
    shards: &ShardSet,
    options: &EvalOptions,
    on_progress: OnProgress<'_>,
) -> Result<(Evaluation, Vec<DocumentScore>)> {
    let _no_grad = tch::no_grad_guard();
    let split = shards.split(&options.split)?;
    let (window, stride) = window_and_stride(model, options)?;
    let eod = shards.manifest().tokenizer.eod;
    let mut scores = empty_scores(split, options)?;
    if scores.is_empty() {
        let shards = shards.dir().to_owned();
        return Err(Error::NothingThere { shards, split: options.split.clone(), what: "documents" });
    }
    let total_tokens = scores.iter().map(|score| score.tokens).sum();
    let mut batcher = Batcher::new(model, window as usize, eod);
    let mut done = 0;
    for index in 0..scores.len() {
        let tokens = split.try_document(scores[index].document)?.tokens;
        for span in windows(tokens.len(), window as usize, stride as usize) {
            batcher.push(index, tokens, span, &mut scores)?;
        }
        done += tokens.len() as u64;
        if on_progress(done, total_tokens).is_break() {
            return Err(Error::Interrupted);
        }
    }
    batcher.flush_all(&mut scores)?;
    let unigram = match options.baseline {
        true => Some(unigram_score(shards, split, &scores)?),
        false => None,
    };
    let evaluation = Evaluation {
        protocol: protocol(model, split, options, (window, stride), eod),
        total: Score::of(&scores),
        domains: by_domain(&shards.manifest().domains, &scores),
        unigram,
    };
    Ok((evaluation, scores))
}

impl Score {
    fn of(documents: &[DocumentScore]) -> Score {
        let mut sum = Score::default();
        for document in documents {
            sum.documents += 1;
            sum.tokens += document.tokens;
            sum.bytes += u64::from(document.bytes);
            sum.nats += document.nats;
            sum.eod_nats += document.eod_nats;
        }
        sum.derive()
    }

    /// Fills in what follows from the sums. Texts without a byte have 0 bits per byte.
    fn derive(mut self) -> Score {
        let bits =
            |nats: f64| if self.bytes == 0 { 0.0 } else { nats / std::f64::consts::LN_2 / self.bytes as f64 };
        (self.bits_per_byte, self.text_bits_per_byte) = (bits(self.nats), bits(self.nats - self.eod_nats));
        self.nats_per_token = self.nats / self.tokens.max(1) as f64;
        self.perplexity = self.nats_per_token.exp();
        self
    }
}

fn window_and_stride(model: &Model, options: &EvalOptions) -> Result<(u32, u32)> {
    let context = model.config().context;
    let window = options.window.unwrap_or(context);
    if window == 0 || window > context {
        return Err(Error::option(
            "--window",
            format!("must be 1 to {context} (the model's context), is {window}"),
        ));
    }
    let stride = options.stride.unwrap_or((window / 2).max(1));
    if stride == 0 || stride > window {
        return Err(Error::option("--stride", format!("must be 1 to {window} (the window), is {stride}")));
    }
    Ok((window, stride))
}

/// One entry for each document that is to be scored, with nothing scored yet.
fn empty_scores(split: &Split, options: &EvalOptions) -> Result<Vec<DocumentScore>> {
    let documents = split.num_documents().min(options.max_documents.unwrap_or(u64::MAX));
    let mut scores = Vec::new();
    let mut tokens = 0;
    for document in 0..documents {
        if tokens >= options.max_tokens.unwrap_or(u64::MAX) {
            break;
        }
        let found = split.try_document(document)?;
        let length = found.tokens.len() as u64;
        let (domain, bytes) = (found.domain, found.n_bytes);
        scores.push(DocumentScore { document, domain, tokens: length, bytes, nats: 0.0, eod_nats: 0.0 });
        tokens += length;
    }
    Ok(scores)
}

fn protocol(
    model: &Model,
    split: &Split,
    options: &EvalOptions,
    (window, stride): (u32, u32),
    eod: u32,
) -> Protocol {
    let limit = match (options.max_documents, options.max_tokens) {
        (None, None) => "nothing".to_owned(),
        (documents, tokens) => {
            let limits = [documents.map(|n| format!("{n} documents")), tokens.map(|n| format!("{n} tokens"))];
            format!(
                "what follows the first {}",
                limits.into_iter().flatten().collect::<Vec<_>>().join(" or ")
            )
        }
    };
    Protocol {
        split: split.name().to_owned(),
        split_hash: split.split_hash(),
        window,
        stride,
        prefix: format!("one end-of-document id ({eod})"),
        boundary: "each document alone".to_owned(),
        scored: "every stored token once, the closing end-of-document id included".to_owned(),
        excluded: limit,
        arithmetic: format!("{} model, fp32 log-softmax, f64 sums", model.dtype_name()),
    }
}

/// A window over a document of `n` tokens: inputs `start..end`, of which `scored..end` are new.
///
/// Input `i` is the token before token `i` (the prefix for `i` = 0) and predicts token `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    scored: usize,
    end: usize,
}

/// The windows that score `n` tokens once each.
fn windows(n: usize, window: usize, stride: usize) -> impl Iterator<Item = Span> {
    let first = (n > 0).then_some(Span { start: 0, scored: 0, end: n.min(window) });
    std::iter::successors(first, move |last| {
        let start = last.start + stride;
        (last.end < n).then(|| Span { start, scored: last.end, end: n.min(start + window) })
    })
}

/// Collects windows of like length and runs them through the model together.
///
/// Shorter windows are filled up at the end to the next multiple of 16: under a causal mask what follows a token
/// does not touch it, and filled places are never scored.
struct Batcher<'a> {
    model: &'a Model,
    window: usize,
    eod: u32,
    batch_tokens: usize,
    /// Waiting windows by length.
    waiting: BTreeMap<usize, Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Index of the document, place of its closing token if it is scored here.
    rows: Vec<(usize, Option<usize>)>,
    inputs: Vec<i64>,
    targets: Vec<i64>,
}

impl<'a> Batcher<'a> {
    fn new(model: &'a Model, window: usize, eod: u32) -> Batcher<'a> {
        // Logits of 128 MB, and activations that still fit a small machine.
        let by_logits = (1 << 25) / model.config().padded_vocab() as usize;
        Batcher { model, window, eod, batch_tokens: by_logits.min(16_384), waiting: BTreeMap::new() }
    }

    fn push(
        &mut self,
        index: usize,
        tokens: Tokens<'_>,
        span: Span,
        scores: &mut [DocumentScore],
    ) -> Result<()> {
        let length = span.end - span.start;
        let padded = length.next_multiple_of(16).min(self.window);
        let waiting = self.waiting.entry(padded).or_default();
        let at = waiting.inputs.len();
        waiting.inputs.resize(at + padded, i64::from(self.eod));
        waiting.targets.resize(at + padded, IGNORE);
        let inputs = &mut waiting.inputs[at..at + length];
        match span.start {
            0 => tokens.copy_to_i64(0..span.end - 1, &mut inputs[1..]), // the first stays the prefix
            start => tokens.copy_to_i64(start - 1..span.end - 1, inputs),
        }
        let fresh = at + span.scored - span.start..at + length;
        tokens.copy_to_i64(span.scored..span.end, &mut waiting.targets[fresh]);
        waiting.rows.push((index, (span.end == tokens.len()).then_some(length - 1)));
        if (waiting.rows.len() + 1) * padded > self.batch_tokens {
            self.flush(padded, scores)?;
        }
        Ok(())
    }

    fn flush_all(&mut self, scores: &mut [DocumentScore]) -> Result<()> {
        let lengths: Vec<usize> = self.waiting.keys().copied().collect();
        lengths.into_iter().try_for_each(|length| self.flush(length, scores))
    }

    fn flush(&mut self, length: usize, scores: &mut [DocumentScore]) -> Result<()> {
        let Some(waiting) = self.waiting.remove(&length) else { return Ok(()) };
        let shape = [waiting.rows.len() as i64, length as i64];
        let tensor = |ids: &[i64]| {
            Ok::<_, Error>(Tensor::f_from_slice(ids)?.f_reshape(shape)?.f_to_device(self.model.device())?)
        };
        let losses = self.model.token_losses(&tensor(&waiting.inputs)?, &tensor(&waiting.targets)?)?;
        let losses: Vec<f32> = Vec::try_from(losses.f_to_device(Device::Cpu)?)?; // waits for the device
        for (row, &(index, eod_at)) in losses.chunks_exact(length).zip(&waiting.rows) {
            // Places that are not scored have a loss of 0.
            scores[index].nats += row.iter().map(|&nats| f64::from(nats)).sum::<f64>();
            scores[index].eod_nats += eod_at.map_or(0.0, |at| f64::from(row[at]));
        }
        Ok(())
    }
}

/// The scores of each domain that has documents, if there is more than one.
fn by_domain(names: &[String], documents: &[DocumentScore]) -> Vec<DomainScore> {
    let mut groups: BTreeMap<u16, Vec<DocumentScore>> = BTreeMap::new();
    for document in documents {
        groups.entry(document.domain).or_default().push(*document);
    }
    if groups.len() < 2 {
        return Vec::new();
    }
    let name = |domain: u16| names.get(usize::from(domain)).cloned().unwrap_or_else(|| domain.to_string());
    groups
        .into_iter()
        .map(|(domain, of)| DomainScore { domain: name(domain), score: Score::of(&of) })
        .collect()
}

/// The same documents under the token frequencies of `train`, one added to each count so that none is impossible.
fn unigram_score(shards: &ShardSet, split: &Split, documents: &[DocumentScore]) -> Result<Score> {
    let vocab_size = shards.manifest().tokenizer.vocab_size;
    let table = unigram_nats(shards.split("train")?, vocab_size)?;
    let score = |document: &DocumentScore| {
        let (mut nats, mut eod_nats) = (0.0, 0.0);
        for id in split.try_document(document.document)?.tokens.iter() {
            eod_nats = *table.get(id as usize).ok_or_else(|| out_of_range(split, id, vocab_size))?;
            nats += eod_nats; // after the last token it is the closing one's
        }
        Ok(DocumentScore { nats, eod_nats, ..*document })
    };
    let scores = documents.iter().map(score).collect::<Result<Vec<_>>>()?;
    Ok(Score::of(&scores))
}

/// Nats of every token id under its frequency in a split: `-ln((count + 1) / (total + V))`.
fn unigram_nats(train: &Split, vocab_size: u32) -> Result<Vec<f64>> {
    let mut counts = vec![1u64; vocab_size as usize];
    for document in 0..train.num_documents() {
        for id in train.try_document(document)?.tokens.iter() {
            *counts.get_mut(id as usize).ok_or_else(|| out_of_range(train, id, vocab_size))? += 1;
        }
    }
    let total = counts.iter().sum::<u64>() as f64;
    Ok(counts.iter().map(|&count| -(count as f64 / total).ln()).collect())
}

#[cold]
fn out_of_range(split: &Split, id: u32, vocab_size: u32) -> Error {
    Error::TokenOutOfRange { split: split.name().to_owned(), id, vocab_size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_score_every_token_once_with_enough_context() {
        for n in 0..40 {
            for window in 1..12 {
                for stride in 1..=window {
                    let mut next = 0;
                    for span in windows(n, window, stride) {
                        assert!(
                            span.end - span.start <= window
                                && span.start <= span.scored
                                && span.scored < span.end
                        );
                        assert_eq!(span.scored, next, "n {n}, window {window}, stride {stride}");
                        assert!(span.scored - span.start >= (window - stride).min(span.scored));
                        next = span.end;
                    }
                    assert_eq!(next, n, "n {n}, window {window}, stride {stride}");
                }
            }
        }
    }

    #[test]
    fn windows_of_a_known_case() {
        let spans: Vec<_> = windows(10, 4, 2).map(|s| (s.start, s.scored, s.end)).collect();
        assert_eq!(spans, [(0, 0, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]);
        let spans: Vec<_> = windows(9, 4, 4).map(|s| (s.start, s.scored, s.end)).collect();
        assert_eq!(spans, [(0, 0, 4), (4, 4, 8), (8, 8, 9)]);
        assert_eq!(windows(0, 4, 2).count(), 0);
    }

    #[test]
    fn numbers_follow_from_the_sums() {
        let document =
            |nats, eod_nats| DocumentScore { document: 0, domain: 0, tokens: 4, bytes: 8, nats, eod_nats };
        let score = Score::of(&[document(3.0, 1.0), document(5.0, 1.0)]);
        assert_eq!((score.documents, score.tokens, score.bytes), (2, 8, 16));
        assert_eq!(score.nats_per_token, 1.0);
        assert_eq!(score.perplexity, 1f64.exp());
        assert_eq!(score.bits_per_byte, 0.5 / std::f64::consts::LN_2);
        assert_eq!(score.text_bits_per_byte, 0.375 / std::f64::consts::LN_2);
        assert_eq!(Score::of(&[]).bits_per_byte, 0.0);
    }
}
