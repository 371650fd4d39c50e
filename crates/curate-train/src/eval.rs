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
//! that score no end. Word perplexity = exp(nats without ends / words), words being what stands between white space.
//!
//! **Other tools.** [`Like`] has the protocols of two of them, so that a number can be put beside theirs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use curate_shards::{ShardSet, Split, TokenId, Tokens, Vocabulary};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::model::{IGNORE, Model};
use crate::rng::Rng;
use crate::{Error, Result};

/// Whose protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Like {
    /// The one at the head of this module.
    #[default]
    Curate,
    /// The recipe of transformers' page on perplexity: all documents, without their ends, are one text; a window
    /// moves over it; the text's first token is not scored.
    ///
    /// As there, the mean of a window is weighted by its new tokens less one, although all of them are in the mean
    /// wherever a window overlaps the one before; with `stride` = `window` the first token of every window is lost.
    Transformers,
    /// `loglikelihood_rolling` of lm-evaluation-harness: each document alone, without its end, after the prefix;
    /// windows that do not overlap but for one token of context; only the last is filled up with what was before.
    LmEval,
}

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
    /// Whose protocol.
    pub like: Like,
    /// The id before each document; the end-of-document id if absent.
    pub prefix: Option<TokenId>,
    /// Ids between documents, where they make one text ([`Like::Transformers`]).
    pub join: Vec<TokenId>,
    /// Every how many documents one is taken; 0 and 1 = all.
    pub every: u64,
    /// Resamples of the documents for the confidence interval; 0 = none.
    pub resamples: u32,
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
    /// Words of the texts; 0 if the shards have no vocabulary.
    #[serde(default)]
    pub words: u64,
    /// `nats / tokens`.
    pub nats_per_token: f64,
    /// `exp(nats / tokens)`.
    pub perplexity: f64,
    /// `nats / (ln 2 × bytes)`.
    pub bits_per_byte: f64,
    /// `(nats - eod_nats) / (ln 2 × bytes)`.
    pub text_bits_per_byte: f64,
    /// `exp((nats - eod_nats) / words)`; 0 if there are no words or they are too long for it to be a number.
    #[serde(default)]
    pub word_perplexity: f64,
    /// `exp((nats - eod_nats) / bytes)`; 0 without bytes.
    #[serde(default)]
    pub byte_perplexity: f64,
}

/// The middle 95 % of what other draws of as many documents would give (percentile bootstrap).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Draws.
    pub resamples: u32,
    /// Of nats per token.
    pub nats_per_token: [f64; 2],
    /// Of the perplexity.
    pub perplexity: [f64; 2],
    /// Of bits per byte.
    pub bits_per_byte: [f64; 2],
}

/// Means over domains, each with the same weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MacroAverage {
    /// Of nats per token.
    pub nats_per_token: f64,
    /// Of bits per byte.
    pub bits_per_byte: f64,
}

/// How much better the model knows what it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Documents of `train`, spread over all of it.
    pub train: Score,
    /// Held-out nats per token less those of `train`.
    pub nats_per_token: f64,
    /// Held-out bits per byte less those of `train`.
    pub bits_per_byte: f64,
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
    /// Means over domains; absent if there is only one.
    #[serde(default)]
    pub macro_average: Option<MacroAverage>,
    /// Of the total; absent with fewer than two documents.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Filled in by whoever evaluates on `train` too.
    #[serde(default)]
    pub gap: Option<Gap>,
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
    /// Words of its text.
    pub words: u64,
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
    let prefix = options.prefix.unwrap_or(eod);
    if prefix >= model.config().vocab_size {
        let problem = format!("id {prefix} is outside the vocabulary of {}", model.config().vocab_size);
        return Err(Error::option("--prefix-id", problem));
    }
    let vocabulary = shards.vocabulary()?;
    count_words(split, vocabulary.as_ref(), options.like, eod, &mut scores)?;
    let total_tokens = scores.iter().map(|score| score.tokens).sum();
    let mut batcher = Batcher::new(model, window as usize, prefix);
    if options.like == Like::Transformers {
        scores = vec![one_text(
            split,
            vocabulary.as_ref(),
            options,
            eod,
            &scores,
            &mut batcher,
            (window, stride),
        )?];
    }
    let mut done = 0;
    for index in 0..scores.len() {
        if options.like == Like::Transformers {
            break; // its windows are waiting already
        }
        let tokens = split.try_document(scores[index].document)?.tokens;
        if options.like == Like::LmEval {
            let text = text_tokens(tokens, eod);
            scores[index].tokens = text.len() as u64;
            rolling(&text, window as usize, i64::from(prefix), |inputs, scored| {
                batcher.push_ids(index, inputs, scored, 1.0, &mut scores)
            })?;
            done += tokens.len() as u64;
            if on_progress(done, total_tokens).is_break() {
                return Err(Error::Interrupted);
            }
            continue;
        }
        for span in windows(tokens.len(), window as usize, stride as usize) {
            batcher.push(index, tokens, span, &mut scores)?;
        }
        done += tokens.len() as u64;
        if on_progress(done, total_tokens).is_break() {
            return Err(Error::Interrupted);
        }
    }
    batcher.flush_all(&mut scores)?;
    let unigram = match options.baseline && options.like == Like::Curate {
        true => Some(unigram_score(shards, split, &scores)?),
        false => None,
    };
    let domains = by_domain(&shards.manifest().domains, &scores);
    let evaluation = Evaluation {
        protocol: protocol(model, split, options, (window, stride), prefix),
        total: Score::of(&scores),
        macro_average: macro_average(&domains),
        domains,
        interval: interval(&scores, options.resamples),
        gap: None,
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
            sum.words += document.words;
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
        let per = |units: u64| match units {
            0 => 0.0,
            units => Some(((self.nats - self.eod_nats) / units as f64).exp())
                .filter(|x| x.is_finite())
                .unwrap_or(0.0),
        };
        (self.word_perplexity, self.byte_perplexity) = (per(self.words), per(self.bytes));
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
    let stride = match options.like {
        Like::LmEval if options.stride.is_some_and(|stride| stride != window) => {
            return Err(Error::option("--stride", "lm-eval's windows do not overlap: leave it out"));
        }
        Like::LmEval => window,
        _ => options.stride.unwrap_or((window / 2).max(1)),
    };
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
    for document in (0..documents).step_by(options.every.max(1) as usize) {
        if tokens >= options.max_tokens.unwrap_or(u64::MAX) {
            break;
        }
        let found = split.try_document(document)?;
        let length = found.tokens.len() as u64;
        let (domain, bytes) = (found.domain, found.n_bytes);
        scores.push(DocumentScore {
            document,
            domain,
            tokens: length,
            bytes,
            words: 0,
            nats: 0.0,
            eod_nats: 0.0,
        });
        tokens += length;
    }
    Ok(scores)
}

fn protocol(
    model: &Model,
    split: &Split,
    options: &EvalOptions,
    (window, stride): (u32, u32),
    prefix: u32,
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
        prefix: match (options.like, options.prefix) {
            (Like::Transformers, _) => "none".to_owned(),
            (_, None) => format!("one end-of-document id ({prefix})"),
            (_, Some(id)) => format!("id {id}"),
        },
        boundary: match (options.like, options.join.is_empty()) {
            (Like::Transformers, true) => "one text, nothing between documents".to_owned(),
            (Like::Transformers, false) => format!("one text, ids {:?} between documents", options.join),
            _ => "each document alone".to_owned(),
        },
        scored: match options.like {
            Like::Curate => "every stored token once, the closing end-of-document id included".to_owned(),
            Like::Transformers => {
                "as transformers' perplexity recipe: all but the first, window means weighted by new \
                                   tokens less one, no end-of-document ids"
                    .to_owned()
            }
            Like::LmEval => {
                "as lm-eval's loglikelihood_rolling: every token once, no end-of-document ids".to_owned()
            }
        },
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
    /// Index of the document, place of its closing token if it is scored here, weight of the row.
    rows: Vec<(usize, Option<usize>, f64)>,
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
        waiting.rows.push((index, (span.end == tokens.len()).then_some(length - 1), 1.0));
        if (waiting.rows.len() + 1) * padded > self.batch_tokens {
            self.flush(padded, scores)?;
        }
        Ok(())
    }

    /// A row of ids of which the last `scored` are targets; all but the last are inputs. Its sum counts `weight` times.
    fn push_ids(
        &mut self,
        index: usize,
        ids: &[i64],
        scored: usize,
        weight: f64,
        scores: &mut [DocumentScore],
    ) -> Result<()> {
        let length = ids.len() - 1;
        let padded = length.next_multiple_of(16).min(self.window);
        let waiting = self.waiting.entry(padded).or_default();
        let at = waiting.inputs.len();
        waiting.inputs.extend_from_slice(&ids[..length]);
        waiting.inputs.resize(at + padded, i64::from(self.eod));
        waiting.targets.resize(at + length - scored, IGNORE);
        waiting.targets.extend_from_slice(&ids[ids.len() - scored..]);
        waiting.targets.resize(at + padded, IGNORE);
        waiting.rows.push((index, None, weight));
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
        for (row, &(index, eod_at, weight)) in losses.chunks_exact(length).zip(&waiting.rows) {
            // Places that are not scored have a loss of 0.
            scores[index].nats += weight * row.iter().map(|&nats| f64::from(nats)).sum::<f64>();
            scores[index].eod_nats += eod_at.map_or(0.0, |at| f64::from(row[at]));
        }
        Ok(())
    }
}

/// A document's tokens without the closing end-of-document id.
fn text_tokens(tokens: Tokens<'_>, eod: TokenId) -> Vec<i64> {
    let length = tokens.len() - usize::from(tokens.last() == Some(eod));
    let mut ids = vec![0; length];
    tokens.copy_to_i64(0..length, &mut ids);
    ids
}

/// Fills in the words of each document, where there is a vocabulary to spell them.
fn count_words(
    split: &Split,
    vocabulary: Option<&Vocabulary>,
    like: Like,
    eod: TokenId,
    scores: &mut [DocumentScore],
) -> Result<()> {
    let Some(vocabulary) = vocabulary else { return Ok(()) };
    let mut text = Vec::new();
    for score in scores {
        text.clear();
        split.try_document(score.document)?.tokens.iter().filter(|&id| id != eod).for_each(|id| {
            text.extend_from_slice(vocabulary.bytes(id));
        });
        score.words = words(&String::from_utf8_lossy(&text), like);
    }
    Ok(())
}

/// What stands between white space. lm-eval takes the pieces of `re.split(r"\s+", text)`: a text that begins or ends
/// with white space, or is empty, has an empty one there.
fn words(text: &str, like: Like) -> u64 {
    let is_space = |c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}'); // Python's white space
    let words = text.split(is_space).filter(|word| !word.is_empty()).count() as u64;
    match like {
        Like::LmEval if words == 0 => 1 + u64::from(!text.is_empty()),
        Like::LmEval => words + u64::from(text.starts_with(is_space)) + u64::from(text.ends_with(is_space)),
        _ => words,
    }
}

/// Makes one text of the documents and hands its windows to the batcher; see [`Like::Transformers`].
fn one_text(
    split: &Split,
    vocabulary: Option<&Vocabulary>,
    options: &EvalOptions,
    eod: TokenId,
    documents: &[DocumentScore],
    batcher: &mut Batcher<'_>,
    (window, stride): (u32, u32),
) -> Result<DocumentScore> {
    let join: Vec<i64> = options.join.iter().map(|&id| i64::from(id)).collect();
    let mut joined = Vec::new();
    if let Some(vocabulary) = vocabulary {
        vocabulary.decode(&options.join, &mut joined);
    }
    let (mut ids, mut bytes, mut num_words) = (Vec::new(), 0u64, 0);
    for (i, document) in documents.iter().enumerate() {
        if i > 0 {
            ids.extend_from_slice(&join);
            bytes += joined.len() as u64;
        }
        ids.extend(text_tokens(split.try_document(document.document)?.tokens, eod));
        bytes += u64::from(document.bytes);
        num_words += document.words;
    }
    let bytes = u32::try_from(bytes)
        .map_err(|_| Error::option("--like", "one text of 4 GiB or more: take fewer with --max-documents"))?;
    let mut score = [DocumentScore {
        document: 0,
        domain: 0,
        tokens: 0,
        bytes,
        words: num_words,
        nats: 0.0,
        eod_nats: 0.0,
    }];
    let (window, stride) = (window as usize, stride as usize);
    let mut previous_end = 0;
    for begin in (0..ids.len()).step_by(stride) {
        let end = (begin + window).min(ids.len());
        let fresh = end - previous_end;
        let scored = fresh.min(end - begin - 1);
        score[0].tokens += fresh as u64 - 1;
        if scored > 0 {
            batcher.push_ids(0, &ids[begin..end], scored, (fresh - 1) as f64 / scored as f64, &mut score)?;
        }
        previous_end = end;
        if end == ids.len() {
            break;
        }
    }
    batcher.flush_all(&mut score)?;
    let [score] = score;
    Ok(score)
}

/// The windows of lm-eval: calls `push` with ids, whose last so many are scored; see [`Like::LmEval`].
fn rolling(
    ids: &[i64],
    window: usize,
    prefix: i64,
    mut push: impl FnMut(&[i64], usize) -> Result<()>,
) -> Result<()> {
    let first = ids.len().min(window);
    if first == 0 {
        return Ok(());
    }
    push(&[&[prefix], &ids[..first]].concat(), first)?;
    let mut done = first;
    while done < ids.len() {
        let fresh = (ids.len() - done).min(window);
        done += fresh;
        push(&ids[done - window - 1..done], fresh)?;
    }
    Ok(())
}

fn macro_average(domains: &[DomainScore]) -> Option<MacroAverage> {
    let mean = |f: fn(&Score) -> f64| {
        domains.iter().map(|domain| f(&domain.score)).sum::<f64>() / domains.len() as f64
    };
    (!domains.is_empty()).then(|| MacroAverage {
        nats_per_token: mean(|score| score.nats_per_token),
        bits_per_byte: mean(|score| score.bits_per_byte),
    })
}

/// Percentile bootstrap over documents (Efron 1979), always with the same draws.
fn interval(documents: &[DocumentScore], resamples: u32) -> Option<Interval> {
    if documents.len() < 2 || resamples == 0 {
        return None;
    }
    let mut rng = Rng::new(1, "bootstrap over documents");
    let mut draw = || {
        let (mut nats, mut tokens, mut bytes) = (0.0, 0u64, 0u64);
        for _ in 0..documents.len() {
            let document = &documents[(rng.uniform() * documents.len() as f64) as usize];
            nats += document.nats;
            tokens += document.tokens;
            bytes += u64::from(document.bytes);
        }
        Score { nats, tokens, bytes, ..Score::default() }.derive()
    };
    let draws: Vec<Score> = (0..resamples).map(|_| draw()).collect();
    let middle = |f: fn(&Score) -> f64| {
        let mut values: Vec<f64> = draws.iter().map(f).collect();
        values.sort_by(f64::total_cmp);
        [0.025, 0.975].map(|share| values[(share * (values.len() - 1) as f64).round() as usize])
    };
    Some(Interval {
        resamples,
        nats_per_token: middle(|score| score.nats_per_token),
        perplexity: middle(|score| score.perplexity),
        bits_per_byte: middle(|score| score.bits_per_byte),
    })
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
        let document = |nats, eod_nats| DocumentScore {
            document: 0,
            domain: 0,
            tokens: 4,
            bytes: 8,
            words: 2,
            nats,
            eod_nats,
        };
        let score = Score::of(&[document(3.0, 1.0), document(5.0, 1.0)]);
        assert_eq!((score.documents, score.tokens, score.bytes), (2, 8, 16));
        assert_eq!(score.nats_per_token, 1.0);
        assert_eq!(score.perplexity, 1f64.exp());
        assert_eq!(score.bits_per_byte, 0.5 / std::f64::consts::LN_2);
        assert_eq!(score.text_bits_per_byte, 0.375 / std::f64::consts::LN_2);
        assert_eq!(score.word_perplexity, 1.5f64.exp());
        assert_eq!(score.byte_perplexity, 0.375f64.exp());
        assert_eq!((Score::of(&[]).bits_per_byte, Score::of(&[]).word_perplexity), (0.0, 0.0));
    }

    #[test]
    fn words_are_counted_as_each_tool_does() {
        let check = |text: &str, ours, lm_eval| {
            assert_eq!((words(text, Like::Curate), words(text, Like::LmEval)), (ours, lm_eval), "{text:?}");
        };
        check("", 0, 1);
        check(" ", 0, 2);
        check("a b\n\nc", 3, 3);
        check(" a\u{1c}b ", 2, 4);
    }

    #[test]
    fn rolling_windows_score_every_token_once() {
        for n in 0..30 {
            for window in 1..10 {
                let ids: Vec<i64> = (0..n).collect();
                let (mut seen, mut lengths) = (Vec::new(), Vec::new());
                rolling(&ids, window, -1, |row, scored| {
                    seen.extend_from_slice(&row[row.len() - scored..]);
                    lengths.push(row.len() - 1);
                    Ok(())
                })
                .unwrap();
                assert_eq!(seen, ids, "n {n}, window {window}");
                assert!(lengths.iter().skip(1).all(|&length| length == window));
            }
        }
    }

    #[test]
    fn the_interval_holds_the_mean_and_narrows() {
        let documents = |n: u64| -> Vec<DocumentScore> {
            let score = |i: u64| DocumentScore {
                document: i,
                domain: 0,
                tokens: 10,
                bytes: 20,
                words: 4,
                nats: 20.0 + (i % 7) as f64,
                eod_nats: 0.0,
            };
            (0..n).map(score).collect()
        };
        let width = |n| {
            let documents = documents(n);
            let [low, high] = interval(&documents, 400).unwrap().nats_per_token;
            let mean = Score::of(&documents).nats_per_token;
            assert!(low <= mean && mean <= high, "{low} {mean} {high}");
            high - low
        };
        // The deviation of 0..=6 is 2, so that of the mean of n is 0.2 / sqrt(n); 3.92 of them are 95 %.
        assert!((width(700) - 0.0296).abs() < 0.006, "{}", width(700));
        assert!(width(7000) < 0.5 * width(700));
        assert!(interval(&documents(1), 400).is_none());
    }
}
