//! One vector for each document: the mean of the model's final hidden state over its tokens.
//!
//! **Protocol.** A document's tokens, without an end-of-document id, are cut into windows of the context less one. Each window
//! follows one end-of-document id, as every document does in training, and is seen alone. The hidden state (after all blocks
//! and the last norm, fp32) is summed in f64 over the tokens of all windows of the document, the id before them left out, and
//! divided by their number. A document without tokens has a vector of zeros.
//!
//! Windows of like length run together; shorter ones are filled up at the end, which under a causal mask does not touch what is
//! before. Threads share the weights, and each runs batches of its own with one thread for the tensor operations: the same
//! documents in the same order with the same batch give the same bytes on one machine, whatever the number of threads.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tch::{Device, Kind, Tensor};

use crate::device::set_threads;
use crate::model::Model;
use crate::{Error, Result};

/// Batches of windows that are gathered before they are sorted by length. It does not depend on the number of threads, or the
/// batches would.
const BATCHES_AHEAD: usize = 64;

/// Reads what `curate embed` sends: the token ids of one document after another.
///
/// ```text
/// 'curate ids 1\n'
/// a document: its number of ids, then the ids       u32 each, little-endian
/// u32::MAX, then the number of documents as u64     at the end, so that a stream that was cut short is known
/// ```
#[derive(Debug)]
pub struct IdReader<R> {
    reader: R,
    documents: u64,
    ended: bool,
}

/// What an id stream begins with.
pub const ID_STREAM_HEAD: &[u8; 13] = b"curate ids 1\n";

impl<R: Read> IdReader<R> {
    /// # Errors
    /// What is no such stream.
    pub fn new(mut reader: R) -> Result<Self> {
        let mut head = [0; ID_STREAM_HEAD.len()];
        reader.read_exact(&mut head).map_err(|e| broken(&e))?;
        match head == *ID_STREAM_HEAD {
            true => Ok(Self { reader, documents: 0, ended: false }),
            false => Err(Error::Ids { problem: "they do not begin as `curate embed` begins them".into() }),
        }
    }

    fn next_document(&mut self) -> Result<Option<Vec<u32>>> {
        if self.ended {
            return Ok(None);
        }
        let count = u32::from_le_bytes(self.take()?);
        if count == u32::MAX {
            let expected = u64::from_le_bytes(self.take()?);
            self.ended = true;
            return match expected == self.documents {
                true => Ok(None),
                false => Err(Error::Ids {
                    problem: format!("{} documents, but their end speaks of {expected}", self.documents),
                }),
            };
        }
        let mut bytes = Vec::new();
        let length = 4 * u64::from(count);
        // A number that is damaged must not reserve memory for itself.
        self.reader.by_ref().take(length).read_to_end(&mut bytes).map_err(|e| broken(&e))?;
        if bytes.len() as u64 != length {
            return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        self.documents += 1;
        Ok(Some(bytes.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|e| broken(&e))?;
        Ok(bytes)
    }
}

fn broken(error: &io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::UnexpectedEof => "they end too early".to_owned(),
        _ => error.to_string(),
    };
    Error::Ids { problem }
}

impl<R: Read> Iterator for IdReader<R> {
    type Item = Result<Vec<u32>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_document().transpose()
    }
}

/// What was embedded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Embedded {
    pub documents: u64,
    pub tokens: u64,
    /// Documents without tokens, whose vectors are zeros.
    pub empty: u64,
}

/// Embeds documents in batches of `batch` windows, on as many threads as there are models; `write` is given their vectors in
/// order. The models are one and its [shares](Model::share).
///
/// # Errors
/// Token ids outside the vocabulary; a context of one token; what `documents` and `write` say; [`Error::Interrupted`] once
/// `interrupted` is set.
pub fn embed(
    models: &mut [Model],
    eod: u32,
    batch: usize,
    documents: impl Iterator<Item = Result<Vec<u32>>>,
    mut write: impl FnMut(&[f32]) -> Result<()>,
    interrupted: &AtomicBool,
) -> Result<Embedded> {
    let config = models.first().expect("there is a model").config().clone();
    let window = config.context as usize - 1;
    if window == 0 {
        return Err(Error::option("RUN", "its model has a context of one token, which leaves none to embed"));
    }
    let mut done = Embedded::default();
    let mut waiting = Waiting::default();
    for document in documents {
        // Who interrupts us may have interrupted the one that sends, too.
        let stopped = |error| if interrupted.load(Ordering::Relaxed) { Error::Interrupted } else { error };
        let ids = document.map_err(stopped)?;
        if let Some(id) = ids.iter().find(|id| **id >= config.vocab_size) {
            let problem = format!("id {id} is outside the model's vocabulary of {}", config.vocab_size);
            return Err(Error::Ids { problem });
        }
        done.documents += 1;
        done.tokens += ids.len() as u64;
        done.empty += u64::from(ids.is_empty());
        waiting.push(&ids, window);
        if waiting.windows.len() >= batch * BATCHES_AHEAD || waiting.lengths.len() >= batch * BATCHES_AHEAD {
            waiting.run(models, eod, batch, &mut write, interrupted)?;
        }
    }
    waiting.run(models, eod, batch, &mut write, interrupted)?;
    Ok(done)
}

/// Documents whose windows have not been seen.
#[derive(Default)]
struct Waiting {
    /// Tokens of each document.
    lengths: Vec<usize>,
    /// The document of each window, and its ids.
    windows: Vec<(usize, Vec<i64>)>,
}

impl Waiting {
    fn push(&mut self, ids: &[u32], window: usize) {
        let document = self.lengths.len();
        self.lengths.push(ids.len());
        let windows = ids.chunks(window).map(|ids| (document, ids.iter().map(|id| i64::from(*id)).collect()));
        self.windows.extend(windows);
    }

    /// Runs all windows and writes the vectors of all documents.
    fn run(
        &mut self,
        models: &mut [Model],
        eod: u32,
        batch: usize,
        write: &mut impl FnMut(&[f32]) -> Result<()>,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let channels = models.first().map_or(0, |model| model.config().channels as usize);
        let mut sums = vec![0.0f64; self.lengths.len() * channels];
        // Stable, so that the batches are the same every time.
        let mut order: Vec<usize> = (0..self.windows.len()).collect();
        order.sort_by_key(|&window| self.windows[window].1.len());
        // Long ones first, so that no thread begins one when the others are done.
        let batches: Vec<&[usize]> = order.chunks(batch).rev().collect();
        let mut found = vec![Vec::new(); self.windows.len()];
        for (members, summed) in self.run_batches(models, eod, &batches, interrupted)? {
            for (&member, sum) in members.iter().zip(summed.chunks_exact(channels)) {
                found[member] = sum.to_vec();
            }
        }
        // In the order of the windows, whatever the order in which they ran.
        for ((document, _), sum) in self.windows.iter().zip(&found) {
            let total = &mut sums[document * channels..(document + 1) * channels];
            total.iter_mut().zip(sum).for_each(|(total, x)| *total += x);
        }
        for (length, sum) in self.lengths.iter().zip(sums.chunks_exact(channels)) {
            let mean: Vec<f32> = sum.iter().map(|x| (x / (*length).max(1) as f64) as f32).collect();
            if let Some(value) = mean.iter().find(|x| !x.is_finite()) {
                let quantity = "a number of an embedding";
                return Err(Error::NotFiniteModel { quantity, value: f64::from(*value) });
            }
            write(&mean)?;
        }
        *self = Self::default();
        Ok(())
    }
}

/// Some windows, and the sums of each.
type Summed<'b> = (&'b [usize], Vec<f64>);

impl Waiting {
    /// Runs batches, each on whichever thread is free.
    fn run_batches<'b>(
        &self,
        models: &mut [Model],
        eod: u32,
        batches: &[&'b [usize]],
        interrupted: &AtomicBool,
    ) -> Result<Vec<Summed<'b>>> {
        let next = AtomicUsize::new(0);
        let work = |model: &mut Model| {
            // Both belong to the thread.
            let _no_grad = tch::no_grad_guard();
            set_threads(1);
            let mut done = Vec::new();
            while let Some(&members) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let windows: Vec<&[i64]> =
                    members.iter().map(|&member| &self.windows[member].1[..]).collect();
                done.push((members, window_sums(model, eod, &windows)?));
            }
            Ok(done)
        };
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = models.iter_mut().map(|model| scope.spawn(move || work(model))).collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    }
}

/// The sums of the hidden states over the tokens of each window: [B, C], row by row.
fn window_sums(model: &Model, eod: u32, windows: &[&[i64]]) -> Result<Vec<f64>> {
    let longest = windows.iter().map(|ids| ids.len()).max().unwrap_or(0) + 1;
    let (mut tokens, mut counts) = (Vec::new(), Vec::new());
    for ids in windows {
        let start = tokens.len();
        tokens.push(i64::from(eod));
        tokens.extend_from_slice(ids);
        tokens.resize(start + longest, i64::from(eod));
        counts.push(0.0f64);
        counts.extend((1..longest).map(|place| if place <= ids.len() { 1.0 } else { 0.0 }));
    }
    let shape = [windows.len() as i64, longest as i64];
    let place = |values: Tensor| Ok::<_, Error>(values.f_reshape(shape)?.f_to_device(model.device())?);
    let tokens = place(Tensor::f_from_slice(&tokens)?)?;
    let counts = place(Tensor::f_from_slice(&counts)?)?;
    let hidden = model.final_hidden(&tokens)?.f_to_kind(Kind::Double)?; // [B, T, C]
    let sums = hidden.f_mul(&counts.f_unsqueeze(-1)?)?.f_sum_dim_intlist(&[1i64][..], false, Kind::Double)?; // [B, C]
    Ok(Vec::try_from(sums.f_to_device(Device::Cpu)?.f_reshape([-1])?)?)
}
