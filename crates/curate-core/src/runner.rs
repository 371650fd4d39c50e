//! The runner: blocks are read in order, mapped by any thread, admitted in order.
//!
//! A chain is cut into segments, each ending at a gate. A block goes through the mappers of a segment on some
//! thread of the pool, then waits for its turn at the gate (a lane), then goes on to the next segment. Whoever
//! brings the block that a lane waits for also admits the blocks queued behind it, so no thread sits waiting.
//!
//! Memory: `RunOptions::blocks` blocks exist; a block that has not been written cannot be filled again, so a slow
//! block stalls the reader and nothing else queues up. A record larger than a block grows its block.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rayon::{Scope, ThreadPoolBuilder};

use crate::document::Parked;
use crate::stage::{AnyGate, AnyMapper, Counters, Opaque};
use crate::{
    Block, Document, Dropped, Error, Malformed, Record, Report, Result, Sample, Stage, StageReport, Verdict,
    Work,
};

/// Where records come from. Called by one thread, in order.
pub trait Source {
    /// Fills a cleared block with the next records of one input; `false` when there are none left.
    fn fill(&mut self, block: &mut Block) -> Result<bool>;
}

/// How a record becomes a document and a document a record.
pub trait Codec: Sync {
    /// Reads a record.
    fn parse<'a>(&self, record: Record<'a>) -> std::result::Result<Parsed<'a>, Malformed>;

    /// True if the document's record, with a line end after it, is what [`write`](Self::write) would append: the
    /// runner then hands on the bytes that were read, without copying them.
    fn is_verbatim(&self, _doc: &Document<'_>) -> bool {
        false
    }

    /// Appends the document as a record with its line end. An untouched document must come out as it came in.
    fn write(&self, doc: &Document<'_>, out: &mut Vec<u8>);
}

/// What a record turned out to be.
#[derive(Debug)]
pub enum Parsed<'a> {
    Document(Document<'a>),
    /// A sound record that is no document, for a reason that is counted: a request of a web archive, an image.
    SetAside(&'static str),
    /// Nothing at all, and not counted: a blank line.
    Nothing,
}

/// Where documents go. Called in input order, by one thread at a time.
pub trait Sink: Send {
    /// Whether kept documents are to be encoded for [`keep`](Self::keep): `false` where a gate is the real end.
    fn wants_documents(&self) -> bool {
        true
    }

    /// What follows comes from the input called `origin`. Called before every block.
    fn begin_block(&mut self, _origin: &Arc<str>) -> Result<()> {
        Ok(())
    }

    /// One or more kept documents in order, each encoded with its line end.
    fn keep(&mut self, encoded: &[u8]) -> Result<()>;

    /// A document that stage number `stage` of the chain dropped.
    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> Result<()>;

    /// A malformed record, as it stands in the input; [`OnError::Pass`] writes it through.
    fn malformed(&mut self, raw: &[u8], malformed: &Malformed) -> Result<()>;
}

/// What to do with a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// End the run.
    Fail,
    /// Count it and go on.
    Skip,
    /// Count it and write it through as it stands.
    Pass,
}

/// How to run a chain. None of these changes the output.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Worker threads; the reader is one more.
    pub threads: usize,
    /// Blocks in the pool: the memory bound is about `blocks × (block bytes × 2)`.
    pub blocks: usize,
    pub on_error: OnError,
    /// Reads a monotonic clock; with it the report says how long each stage took. It decides nothing.
    pub clock: Option<fn() -> Duration>,
}

impl RunOptions {
    /// Four blocks a worker keep all of them busy while one block waits for its turn.
    pub fn new(threads: usize) -> Self {
        Self { threads, blocks: 4 * threads + 2, on_error: OnError::Skip, clock: None }
    }
}

/// Runs `stages` over everything that `source` gives; returns what was counted.
///
/// The first error in input order ends the run; what was written before it stands.
pub fn run<'s>(
    source: &mut dyn Source,
    codec: &dyn Codec,
    stages: Vec<Stage<'s>>,
    sink: &mut dyn Sink,
    options: &RunOptions,
) -> Result<Report> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|i| format!("worker-{i}"))
        .build()
        .map_err(Error::other)?;
    let (free, blocks) = mpsc::channel();
    let write_documents = sink.wants_documents();
    let (segments, names) = cut_into_segments(stages);
    let machine = Machine {
        codec,
        write_documents,
        on_error: options.on_error,
        clock: options.clock,
        lanes: segments.iter().map(|_| Mutex::new(Lane::default())).collect(),
        segments,
        exit: Mutex::new(Exit {
            sink,
            report: empty_report(&names),
            counters: vec![Counters::default(); names.len()],
            busy: vec![Duration::ZERO; names.len() + 1],
        }),
        scratch: Mutex::new(Vec::new()),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        free,
    };
    for _ in 0..options.blocks.max(2) {
        machine.recycle(Block::default());
    }
    let read = pool.in_place_scope(|scope| feed(source, &blocks, &machine, scope));
    let Machine { exit, failure, .. } = machine;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    read?;
    Ok(exit.into_inner().unwrap_or_else(PoisonError::into_inner).into_report())
}

/// Fills free blocks and sends them into the pool until the source is dry or the run has failed.
fn feed<'r>(
    source: &mut dyn Source,
    blocks: &Receiver<Block>,
    machine: &'r Machine<'_, '_>,
    scope: &Scope<'r>,
) -> Result<()> {
    for seq in 0.. {
        let mut block = blocks.recv().expect("the machine holds a sender");
        if machine.stopped.load(Ordering::Relaxed) {
            break;
        }
        block.clear();
        match source.fill(&mut block) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                // Blocks before the fault are still written: they are in the pool already.
                return Err(error);
            }
        }
        let batch = Batch::new(seq, block, machine.total_stages());
        scope.spawn(move |scope| machine.step(scope, batch, 0));
    }
    Ok(())
}

/// The mappers up to and including a gate, with the chain's number of the first.
struct Segment<'s> {
    first_stage: usize,
    mappers: Vec<Box<dyn AnyMapper + 's>>,
    gate: Mutex<Option<Box<dyn AnyGate + 's>>>,
}

fn cut_into_segments(stages: Vec<Stage<'_>>) -> (Vec<Segment<'_>>, Vec<String>) {
    let mut names = Vec::new();
    let mut segments = vec![];
    let mut open = Segment { first_stage: 0, mappers: Vec::new(), gate: Mutex::new(None) };
    for (i, stage) in stages.into_iter().enumerate() {
        let (name, mapper, gate) = stage.into_parts();
        names.push(name);
        open.mappers.push(mapper);
        if gate.is_some() {
            open.gate = Mutex::new(gate);
            let next = Segment { first_stage: i + 1, mappers: Vec::new(), gate: Mutex::new(None) };
            segments.push(std::mem::replace(&mut open, next));
        }
    }
    if !open.mappers.is_empty() || segments.is_empty() {
        segments.push(open);
    }
    (segments, names)
}

fn empty_report(names: &[String]) -> Report {
    let stage = |name: &String| StageReport { name: name.clone(), ..StageReport::default() };
    Report { stages: names.iter().map(stage).collect(), ..Report::default() }
}

/// What the threads of a run share.
struct Machine<'m, 's> {
    codec: &'m dyn Codec,
    write_documents: bool,
    on_error: OnError,
    clock: Option<fn() -> Duration>,
    segments: Vec<Segment<'s>>,
    /// One a segment: where its blocks wait for their turn.
    lanes: Vec<Mutex<Lane>>,
    exit: Mutex<Exit<'m>>,
    /// Sets of scratch buffers (one for each stage) that no worker is using.
    scratch: Mutex<Vec<Vec<Opaque>>>,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    free: Sender<Block>,
}

/// The queue before a gate.
#[derive(Default)]
struct Lane {
    next: u64,
    waiting: BTreeMap<u64, Batch>,
    /// Some thread is admitting the batches of this lane.
    busy: bool,
}

/// A block with the state of its documents.
struct Batch {
    seq: u64,
    block: Block,
    slots: Vec<Slot>,
    /// Encoded documents, back to back; the slots hold the ranges.
    encoded: Vec<u8>,
    /// Documents and text bytes that entered each stage.
    entered: Vec<(u64, u64)>,
    counters: Vec<Counters>,
    /// Time spent in each stage, and after the last in parsing and writing.
    busy: Vec<Duration>,
}

struct Slot {
    /// Index of the record in the block.
    record: usize,
    state: State,
    encoded: Encoded,
}

/// Where the bytes that a kept document is written as lie: a range of the block or of the batch's own buffer.
#[derive(Clone, Copy, PartialEq)]
enum Encoded {
    Nowhere,
    InBlock(usize, usize),
    Apart(usize, usize),
}

enum State {
    Live(Parked),
    Pending(Parked, Opaque),
    Dropped(Parked, usize, Dropped),
    SetAside(&'static str),
    Malformed(Malformed),
    /// A blank line: not a record.
    Nothing,
}

impl Batch {
    fn new(seq: u64, block: Block, stages: usize) -> Self {
        Self {
            seq,
            block,
            slots: Vec::new(),
            encoded: Vec::new(),
            entered: vec![(0, 0); stages],
            counters: vec![Counters::default(); stages],
            busy: vec![Duration::ZERO; stages + 1],
        }
    }
}

impl Machine<'_, '_> {
    fn total_stages(&self) -> usize {
        self.segments.last().map_or(0, |s| s.first_stage + s.mappers.len())
    }

    fn recycle(&self, block: Block) {
        // The receiver outlives every worker: it ends after the scope that they live in.
        let _ = self.free.send(block);
    }

    /// Takes a batch through one segment and, where it is its turn, through the gate.
    fn step<'r>(&'r self, scope: &Scope<'r>, mut batch: Batch, segment: usize) {
        if self.stopped.load(Ordering::Relaxed) {
            return self.recycle(batch.block);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.map_batch(&mut batch, segment);
            self.deliver(scope, batch, segment);
        }));
        if let Err(panic) = outcome {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            self.fail(Error::Panicked { message: message.to_owned() });
        }
    }

    /// Ends the run with the first error and wakes the reader.
    fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            *failure = Some(error);
        }
        self.stopped.store(true, Ordering::Relaxed);
        self.recycle(Block::default());
    }

    /// Runs `work` and adds the time it takes to `busy`.
    fn timed<T>(&self, busy: &mut Duration, work: impl FnOnce() -> T) -> T {
        let Some(clock) = self.clock else { return work() };
        let start = clock();
        let done = work();
        *busy += clock().saturating_sub(start);
        done
    }

    fn map_batch(&self, batch: &mut Batch, segment: usize) {
        if segment == 0 {
            let mut busy = Duration::ZERO;
            self.timed(&mut busy, || self.parse_batch(batch));
            batch.busy[self.total_stages()] += busy;
        }
        let mut scratch = self.take_scratch();
        let is_last = segment + 1 == self.segments.len();
        let Batch { block, slots, encoded, entered, counters, busy, .. } = batch;
        for slot in slots {
            let mut parked = match std::mem::replace(&mut slot.state, State::Nothing) {
                State::Live(parked) => parked,
                decided => {
                    slot.state = decided;
                    continue;
                }
            };
            let mut doc = parked.resume(block.record(slot.record).bytes);
            let mapped = self.map_document(segment, &mut doc, &mut scratch, entered, counters, busy);
            if is_last && self.write_documents && !matches!(mapped, Mapped::Dropped(..)) {
                slot.encoded = self.encode(&doc, block, slot.record, encoded);
            }
            if let Some(news) = doc.into_news() {
                parked.update(news);
            }
            slot.state = match mapped {
                Mapped::Live => State::Live(parked),
                Mapped::Pending(work) => State::Pending(parked, work),
                Mapped::Dropped(stage, dropped) => State::Dropped(parked, stage, dropped),
            };
        }
        lock(&self.scratch).push(scratch);
    }

    fn encode(&self, doc: &Document<'_>, block: &Block, record: usize, encoded: &mut Vec<u8>) -> Encoded {
        let (start, end) = block.records[record];
        if block.data.get(end) == Some(&b'\n') && self.codec.is_verbatim(doc) {
            return Encoded::InBlock(start, end + 1);
        }
        let start = encoded.len();
        self.codec.write(doc, encoded);
        Encoded::Apart(start, encoded.len())
    }

    fn parse_batch(&self, batch: &mut Batch) {
        batch.slots.reserve(batch.block.records.len());
        for record in 0..batch.block.records.len() {
            let state = match self.codec.parse(batch.block.record(record)) {
                Ok(Parsed::Document(doc)) => State::Live(doc.park()),
                Ok(Parsed::SetAside(what)) => State::SetAside(what),
                Ok(Parsed::Nothing) => State::Nothing,
                Err(malformed) => State::Malformed(malformed),
            };
            batch.slots.push(Slot { record, state, encoded: Encoded::Nowhere });
        }
    }

    fn map_document(
        &self,
        segment: usize,
        doc: &mut Document<'_>,
        scratch: &mut [Opaque],
        entered: &mut [(u64, u64)],
        counters: &mut [Counters],
        busy: &mut [Duration],
    ) -> Mapped {
        let Segment { first_stage, mappers, .. } = &self.segments[segment];
        for (stage, mapper) in (*first_stage..).zip(mappers) {
            entered[stage].0 += 1;
            entered[stage].1 += doc.text_len() as u64;
            let (scratch, counters) = (&mut scratch[stage], &mut counters[stage]);
            match self.timed(&mut busy[stage], || mapper.map(doc, scratch, counters)) {
                Work::Decided(Verdict::Keep) => {}
                Work::Decided(Verdict::Drop(dropped)) => return Mapped::Dropped(stage, dropped),
                Work::Pending(work) => return Mapped::Pending(work),
            }
        }
        Mapped::Live
    }

    fn take_scratch(&self) -> Vec<Opaque> {
        let kept = lock(&self.scratch).pop();
        kept.unwrap_or_else(|| self.segments.iter().flat_map(|s| &s.mappers).map(|m| m.scratch()).collect())
    }

    /// Queues the batch at its lane and, unless another thread is doing it, admits all that are due.
    fn deliver<'r>(&'r self, scope: &Scope<'r>, batch: Batch, segment: usize) {
        {
            let mut lane = lock(&self.lanes[segment]);
            lane.waiting.insert(batch.seq, batch);
            if lane.busy {
                return;
            }
            lane.busy = true;
        }
        while let Some(batch) = self.next_due(segment) {
            if self.stopped.load(Ordering::Relaxed) {
                self.recycle(batch.block);
                continue;
            }
            if let Err(error) = self.admit(scope, batch, segment) {
                self.fail(error);
            }
        }
    }

    fn next_due(&self, segment: usize) -> Option<Batch> {
        let mut lane = lock(&self.lanes[segment]);
        let next = lane.next;
        match lane.waiting.remove(&next) {
            Some(batch) => {
                lane.next += 1;
                Some(batch)
            }
            None => {
                lane.busy = false;
                None
            }
        }
    }

    /// The ordered part: the gate, then the next segment or the exit.
    fn admit<'r>(&'r self, scope: &Scope<'r>, mut batch: Batch, segment: usize) -> Result<()> {
        if let Some(gate) = lock(&self.segments[segment].gate).as_mut() {
            let stage = self.segments[segment].first_stage + self.segments[segment].mappers.len() - 1;
            let start = self.clock.map(|clock| clock());
            let is_last = segment + 1 == self.segments.len();
            let Batch { block, slots, encoded, .. } = &mut batch;
            for slot in slots {
                let (mut parked, work) = match std::mem::replace(&mut slot.state, State::Nothing) {
                    State::Pending(parked, work) => (parked, work),
                    decided => {
                        slot.state = decided;
                        continue;
                    }
                };
                let mut doc = parked.resume(block.record(slot.record).bytes);
                slot.state = match gate.admit(&mut doc, work)? {
                    Verdict::Keep => {
                        if is_last && self.write_documents && doc.has_edits() {
                            slot.encoded = self.encode(&doc, block, slot.record, encoded);
                        }
                        if let Some(news) = doc.into_news() {
                            parked.update(news);
                        }
                        State::Live(parked)
                    }
                    Verdict::Drop(dropped) => State::Dropped(parked, stage, dropped),
                };
            }
            if let (Some(clock), Some(start)) = (self.clock, start) {
                batch.busy[stage] += clock().saturating_sub(start);
            }
        }
        if segment + 1 < self.segments.len() {
            scope.spawn(move |scope| self.step(scope, batch, segment + 1));
            return Ok(());
        }
        let written = lock(&self.exit).write(&batch, self.on_error, self.write_documents);
        self.recycle(batch.block);
        written
    }
}

/// What the mappers of a segment made of a document.
enum Mapped {
    Live,
    Pending(Opaque),
    Dropped(usize, Dropped),
}

/// The end of the chain: the sink and the counts.
struct Exit<'m> {
    sink: &'m mut dyn Sink,
    report: Report,
    counters: Vec<Counters>,
    /// As in [`Batch`].
    busy: Vec<Duration>,
}

impl Exit<'_> {
    fn write(&mut self, batch: &Batch, on_error: OnError, write_documents: bool) -> Result<()> {
        self.add_counts(batch);
        self.sink.begin_block(&batch.block.origin)?;
        for fault in &batch.block.damage {
            self.damaged(fault, on_error)?;
        }
        // Neighbours are written together: a block of untouched records leaves in one piece.
        let mut run = Encoded::Nowhere;
        for slot in &batch.slots {
            let record = batch.block.record(slot.record);
            if !matches!(slot.state, State::Nothing) {
                self.report.read += 1;
                self.report.bytes_in += record.bytes.len() as u64 + 1;
            }
            match &slot.state {
                State::Live(parked) => {
                    self.report.kept += 1;
                    self.report.text_bytes_out += parked.text_len() as u64;
                    if write_documents {
                        run = self.join(batch, run, slot.encoded)?;
                    }
                }
                State::Dropped(parked, stage, dropped) => {
                    run = self.join(batch, run, Encoded::Nowhere)?;
                    self.dropped(*stage, &parked.resume(record.bytes), dropped)?;
                }
                State::Malformed(malformed) => {
                    run = self.join(batch, run, Encoded::Nowhere)?;
                    self.malformed(record.bytes, malformed, on_error)?;
                }
                State::SetAside(what) => *self.report.set_aside.entry((*what).into()).or_default() += 1,
                State::Nothing => {}
                State::Pending(..) => {
                    unreachable!("only a gated stage leaves work pending, and its gate has run")
                }
            }
        }
        self.join(batch, run, Encoded::Nowhere).map(|_| ())
    }

    fn add_counts(&mut self, batch: &Batch) {
        for (i, &(documents, bytes)) in batch.entered.iter().enumerate() {
            self.report.stages[i].read += documents;
            self.report.stages[i].text_bytes_in += bytes;
            self.counters[i].merge(&batch.counters[i]);
        }
        for (total, busy) in self.busy.iter_mut().zip(&batch.busy) {
            *total += *busy;
        }
    }

    /// Extends `run` by `next` if that follows it; else writes the run, and `next` is the new one.
    fn join(&mut self, batch: &Batch, run: Encoded, next: Encoded) -> Result<Encoded> {
        let bytes = match (run, next) {
            (Encoded::InBlock(start, end), Encoded::InBlock(from, to)) if from == end => {
                return Ok(Encoded::InBlock(start, to));
            }
            (Encoded::Apart(start, end), Encoded::Apart(from, to)) if from == end => {
                return Ok(Encoded::Apart(start, to));
            }
            (Encoded::Nowhere, next) => return Ok(next),
            (Encoded::InBlock(start, end), _) => &batch.block.data[start..end],
            (Encoded::Apart(start, end), _) => &batch.encoded[start..end],
        };
        self.report.bytes_out += bytes.len() as u64;
        self.sink.keep(bytes)?;
        Ok(next)
    }

    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> Result<()> {
        let report = &mut self.report.stages[stage];
        *report.dropped.entry(dropped.reason.to_string()).or_default() += 1;
        let samples = report.samples.entry(dropped.reason.to_string()).or_default();
        if samples.len() < Sample::PER_REASON {
            samples.push(Sample {
                id: doc.id().to_owned(),
                text: doc.text().chars().take(Sample::CHARS).collect(),
            });
        }
        self.sink.dropped(stage, doc, dropped)
    }

    /// A fault of an input: the run goes on with what can be read.
    fn damaged(&mut self, fault: &Malformed, on_error: OnError) -> Result<()> {
        if on_error == OnError::Fail {
            return Err(Error::Malformed(fault.clone()));
        }
        if self.report.damaged.len() < Report::DAMAGED {
            self.report.damaged.push(fault.clone());
        }
        Ok(())
    }

    fn malformed(&mut self, raw: &[u8], malformed: &Malformed, on_error: OnError) -> Result<()> {
        if on_error == OnError::Fail {
            return Err(Error::Malformed(malformed.clone()));
        }
        self.report.malformed += 1;
        if self.report.malformed_samples.len() < Report::MALFORMED_SAMPLES {
            self.report.malformed_samples.push(malformed.clone());
        }
        self.sink.malformed(raw, malformed)?;
        if on_error == OnError::Pass {
            self.report.bytes_out += raw.len() as u64 + 1;
            self.sink.keep(raw)?;
            self.sink.keep(b"\n")?;
        }
        Ok(())
    }

    fn into_report(self) -> Report {
        let Self { mut report, counters, busy, .. } = self;
        report.parse_seconds = busy.last().map_or(0.0, Duration::as_secs_f64);
        let last = report.text_bytes_out;
        let entered: Vec<u64> = report.stages.iter().map(|s| s.text_bytes_in).collect();
        report.text_bytes_in = entered.first().copied().unwrap_or(last);
        for (i, (stage, counters)) in report.stages.iter_mut().zip(counters).enumerate() {
            stage.kept = stage.read - stage.dropped_total();
            stage.text_bytes_out = entered.get(i + 1).copied().unwrap_or(last);
            stage.counters = counters.into_map();
            stage.busy_seconds = busy[i].as_secs_f64();
        }
        report
    }
}

/// Locks; a poisoned lock only means that a stage panicked, which ends the run elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Gate, Mapper, Never};

    /// One document a line; `!` marks a malformed one.
    struct Lines;

    impl Codec for Lines {
        fn parse<'a>(&self, record: Record<'a>) -> std::result::Result<Parsed<'a>, Malformed> {
            let text = std::str::from_utf8(record.bytes).expect("test input is UTF-8");
            match text {
                "" => Ok(Parsed::Nothing),
                "!" => Err(Malformed {
                    file: record.origin.to_owned(),
                    line: record.ordinal + 1,
                    offset: record.offset,
                    message: "a bang".to_owned(),
                }),
                _ => {
                    let doc = Document::new(record.bytes, format!("#{}", record.ordinal), "", text);
                    Ok(Parsed::Document(doc))
                }
            }
        }

        fn write(&self, doc: &Document<'_>, out: &mut Vec<u8>) {
            out.extend_from_slice(doc.text().as_bytes());
            out.push(b'\n');
        }
    }

    struct Text<'a> {
        lines: std::slice::Iter<'a, String>,
        per_block: usize,
        next: u64,
        offset: u64,
        fail_at: Option<u64>,
    }

    impl Source for Text<'_> {
        fn fill(&mut self, block: &mut Block) -> Result<bool> {
            if self.fail_at.is_some_and(|at| self.next >= at) {
                return Err(Error::io("test input", std::io::Error::other("torn")));
            }
            block.origin = Arc::from("test");
            block.first_record = self.next;
            block.offset = self.offset;
            for line in self.lines.by_ref().take(self.per_block) {
                block.records.push((block.data.len(), block.data.len() + line.len()));
                block.data.extend_from_slice(line.as_bytes());
                self.next += 1;
            }
            self.offset += block.data.len() as u64;
            Ok(!block.records.is_empty())
        }
    }

    #[derive(Default)]
    struct Collected {
        kept: String,
        dropped: Vec<(usize, String, String)>,
        close_after: Option<usize>,
    }

    impl Sink for Collected {
        fn keep(&mut self, encoded: &[u8]) -> Result<()> {
            if self.close_after.is_some_and(|n| self.kept.len() >= n) {
                return Err(Error::ClosedPipe);
            }
            self.kept.push_str(std::str::from_utf8(encoded).expect("test output is UTF-8"));
            Ok(())
        }

        fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> Result<()> {
            self.dropped.push((stage, doc.id().to_owned(), dropped.reason.to_string()));
            Ok(())
        }

        fn malformed(&mut self, _raw: &[u8], _malformed: &Malformed) -> Result<()> {
            Ok(())
        }
    }

    /// Upper-cases, drops what starts with `drop`.
    struct Shout;

    impl Mapper for Shout {
        type Work = Never;
        type Scratch = ();

        fn map(&self, doc: &mut Document<'_>, _: &mut (), counters: &mut Counters) -> Work<Never> {
            if doc.text().starts_with("drop") {
                return Work::Decided(Verdict::drop("told_to"));
            }
            if doc.text().starts_with("panic") {
                panic!("told to");
            }
            counters.add("shouted", 1);
            doc.set_text(doc.text().to_uppercase());
            Work::keep()
        }
    }

    struct FirstLetter;

    impl Mapper for FirstLetter {
        type Work = char;
        type Scratch = ();

        fn map(&self, doc: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<char> {
            // Uneven work, so that blocks overtake each other.
            let spins = doc.text().len() % 7 * 1000;
            std::hint::black_box((0..spins).sum::<usize>());
            Work::Pending(doc.text().chars().next().expect("blank lines are no documents"))
        }
    }

    #[derive(Default)]
    struct FirstOfEach(HashSet<char>);

    impl Gate for FirstOfEach {
        type Work = char;

        fn admit(&mut self, _: &mut Document<'_>, letter: char) -> Result<Verdict> {
            Ok(if self.0.insert(letter) { Verdict::Keep } else { Verdict::drop("seen") })
        }
    }

    fn lines(text: &str) -> Vec<String> {
        text.split('\n').map(str::to_owned).collect()
    }

    fn run_chain(input: &[String], threads: usize, per_block: usize, sink: &mut Collected) -> Result<Report> {
        let mut source = Text { lines: input.iter(), per_block, next: 0, offset: 0, fail_at: None };
        let stages = vec![
            Stage::filter("shout", Shout),
            Stage::gated("first", FirstLetter, FirstOfEach::default()),
            Stage::filter("again", Shout),
        ];
        run(&mut source, &Lines, stages, sink, &RunOptions::new(threads))
    }

    #[test]
    fn output_does_not_depend_on_threads_or_blocks() {
        let input: Vec<String> = (0..3000u32)
            .map(|i| match i % 11 {
                0 => "!".to_owned(),
                1 => String::new(),
                2 => format!("drop {i}"),
                _ => format!("{}{i}", char::from_u32(0x61 + i * 7 % 500).unwrap_or('x')),
            })
            .collect();
        let mut reference = Collected::default();
        let expected = run_chain(&input, 1, 1, &mut reference).unwrap();
        assert_eq!(expected.read, expected.kept + expected.dropped() + expected.malformed);
        assert_eq!(expected.malformed, 273);
        assert_eq!(expected.malformed_samples[1].line, 12);
        assert!(expected.kept > 100 && expected.stages[1].dropped["seen"] > 100);
        assert_eq!(expected.stages[1].read, expected.stages[0].kept);
        assert_eq!(expected.stages[2].counters["shouted"], expected.kept);
        for (threads, per_block) in [(1, 100), (2, 1), (2, 64), (4, 7), (8, 1000), (3, 5000)] {
            let mut got = Collected::default();
            let report = run_chain(&input, threads, per_block, &mut got).unwrap();
            assert_eq!(got.kept, reference.kept, "{threads} threads, {per_block} records a block");
            assert_eq!(got.dropped, reference.dropped);
            assert_eq!(all_counts(&report), all_counts(&expected));
        }
    }

    /// Numbers the documents; every third it drops.
    #[derive(Default)]
    struct Numbered(u32);

    impl Gate for Numbered {
        type Work = char;

        fn admit(&mut self, doc: &mut Document<'_>, letter: char) -> Result<Verdict> {
            self.0 += 1;
            if letter == 'K' {
                return Ok(Verdict::Keep);
            }
            doc.set_text(format!("{} {}", self.0, doc.text()));
            Ok(if self.0.is_multiple_of(3) { Verdict::drop("third") } else { Verdict::Keep })
        }
    }

    #[test]
    fn a_gate_may_edit() {
        let input = lines("a\nb\nc\nKeep\ne");
        for (last, expected) in [(true, "1 A\n2 B\nKEEP\n5 E\n"), (false, "1 A\n2 B\nKEEP\n5 E\n")] {
            let mut sink = Collected::default();
            let mut source = Text { lines: input.iter(), per_block: 2, next: 0, offset: 0, fail_at: None };
            let mut stages = vec![
                Stage::filter("shout", Shout),
                Stage::gated("numbered", FirstLetter, Numbered::default()),
            ];
            if !last {
                stages.push(Stage::filter("again", Shout));
            }
            let report = run(&mut source, &Lines, stages, &mut sink, &RunOptions::new(2)).unwrap();
            assert_eq!(sink.kept, expected, "gate is last: {last}");
            assert_eq!(report.text_bytes_out, expected.len() as u64 - 4);
        }
    }

    fn all_counts(report: &Report) -> String {
        format!("{report:?}")
    }

    #[test]
    fn empty_input_and_empty_chain() {
        let mut sink = Collected::default();
        let report = run_chain(&[], 2, 4, &mut sink).unwrap();
        assert_eq!((report.read, report.kept), (0, 0));
        let input = lines("a\nb\n\nc");
        let mut source = Text { lines: input.iter(), per_block: 2, next: 0, offset: 0, fail_at: None };
        let report = run(&mut source, &Lines, vec![], &mut sink, &RunOptions::new(2)).unwrap();
        assert_eq!((report.read, report.kept, sink.kept.as_str()), (3, 3, "a\nb\nc\n"));
    }

    #[test]
    fn what_came_before_a_torn_input_is_written() {
        let input = lines("a\nb\nc\nd\ne");
        let mut source = Text { lines: input.iter(), per_block: 2, next: 0, offset: 0, fail_at: Some(4) };
        let mut sink = Collected::default();
        let error = run(&mut source, &Lines, vec![], &mut sink, &RunOptions::new(2)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        assert_eq!(sink.kept, "a\nb\nc\nd\n");
    }

    #[test]
    fn the_first_malformed_record_in_input_order_ends_a_strict_run() {
        let input: Vec<String> =
            (0..500).map(|i| if i % 50 == 49 { "!".into() } else { format!("{i}") }).collect();
        for threads in [1, 4] {
            let mut source = Text { lines: input.iter(), per_block: 3, next: 0, offset: 0, fail_at: None };
            let mut options = RunOptions::new(threads);
            options.on_error = OnError::Fail;
            let error = run(&mut source, &Lines, vec![], &mut Collected::default(), &options).unwrap_err();
            assert!(matches!(error, Error::Malformed(Malformed { line: 50, .. })), "{error}");
        }
    }

    #[test]
    fn malformed_records_can_pass_through() {
        let input = lines("a\n!\nb");
        let mut source = Text { lines: input.iter(), per_block: 2, next: 0, offset: 0, fail_at: None };
        let mut sink = Collected::default();
        let options = RunOptions { on_error: OnError::Pass, ..RunOptions::new(1) };
        run(&mut source, &Lines, vec![], &mut sink, &options).unwrap();
        assert_eq!(sink.kept, "a\n!\nb\n");
    }

    #[test]
    fn a_closed_output_stops_an_endless_input() {
        struct Endless;
        impl Source for Endless {
            fn fill(&mut self, block: &mut Block) -> Result<bool> {
                block.data.extend_from_slice(b"again");
                block.records.push((0, 5));
                Ok(true)
            }
        }
        let mut sink = Collected { close_after: Some(100), ..Collected::default() };
        let error = run(&mut Endless, &Lines, vec![], &mut sink, &RunOptions::new(3)).unwrap_err();
        assert!(matches!(error, Error::ClosedPipe));
    }

    #[test]
    fn a_panicking_stage_is_reported_and_does_not_hang() {
        let mut input = vec!["fine".to_owned(); 100];
        input[50] = "panic".to_owned();
        let error = run_chain(&input, 3, 2, &mut Collected::default()).unwrap_err();
        assert!(matches!(error, Error::Panicked { message } if message == "told to"));
    }

    /// Untouched lines leave as they are; `?` is set aside.
    struct Verbatim;

    impl Codec for Verbatim {
        fn parse<'a>(&self, record: Record<'a>) -> std::result::Result<Parsed<'a>, Malformed> {
            match record.bytes {
                b"?" => Ok(Parsed::SetAside("question")),
                _ => Lines.parse(record),
            }
        }

        fn is_verbatim(&self, doc: &Document<'_>) -> bool {
            !doc.is_edited()
        }

        fn write(&self, doc: &Document<'_>, out: &mut Vec<u8>) {
            Lines.write(doc, out);
        }
    }

    /// Blocks of `per_block` lines with their line ends; the first block of `b` has a fault.
    struct Blocks<'a>(std::vec::IntoIter<(&'static str, Vec<&'a str>)>);

    impl Source for Blocks<'_> {
        fn fill(&mut self, block: &mut Block) -> Result<bool> {
            let Some((origin, lines)) = self.0.next() else { return Ok(false) };
            block.origin = Arc::from(origin);
            for line in lines {
                block.records.push((block.data.len(), block.data.len() + line.len()));
                block.data.extend_from_slice(line.as_bytes());
                block.data.push(b'\n');
            }
            if origin == "b" {
                let message = "cut".to_owned();
                block.damage.push(Malformed { file: "b".to_owned(), line: 0, offset: 7, message });
            }
            Ok(true)
        }
    }

    #[derive(Default)]
    struct Pieces(Vec<String>);

    impl Sink for Pieces {
        fn begin_block(&mut self, origin: &Arc<str>) -> Result<()> {
            self.0.push(format!("[{origin}]"));
            Ok(())
        }

        fn keep(&mut self, encoded: &[u8]) -> Result<()> {
            self.0.push(String::from_utf8(encoded.to_vec()).expect("test output is UTF-8"));
            Ok(())
        }

        fn dropped(&mut self, _: usize, doc: &Document<'_>, _: &Dropped) -> Result<()> {
            self.0.push(format!("-{}", doc.text()));
            Ok(())
        }

        fn malformed(&mut self, raw: &[u8], _: &Malformed) -> Result<()> {
            self.0.push(format!("!{}", raw.len()));
            Ok(())
        }
    }

    /// Keeps everything as it is but what starts with `drop`, and turns `edit` into `EDIT`.
    struct Mostly;

    impl Mapper for Mostly {
        type Work = Never;
        type Scratch = ();

        fn map(&self, doc: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<Never> {
            match doc.text() {
                "edit" => doc.set_text("EDIT".to_owned()),
                text if text.starts_with("drop") => return Work::Decided(Verdict::drop("told_to")),
                _ => {}
            }
            Work::keep()
        }
    }

    fn pieces(blocks: Vec<(&'static str, Vec<&str>)>) -> (Vec<String>, Report) {
        let mut sink = Pieces::default();
        let stages = vec![Stage::filter("mostly", Mostly)];
        let mut source = Blocks(blocks.into_iter());
        let report = run(&mut source, &Verbatim, stages, &mut sink, &RunOptions::new(2)).unwrap();
        (sink.0, report)
    }

    #[test]
    fn untouched_neighbours_leave_in_one_piece_and_everything_is_counted() {
        let first = ("a", vec!["one", "two", "edit", "edit", "three", "?", "four", "drop 1", "five"]);
        let second = ("b", vec!["", "!", "drop 2", "drop 3", "drop 4", "six"]);
        let (found, whole) = pieces(vec![first.clone(), second.clone()]);
        let expected = [
            "[a]",
            "one\ntwo\n",
            "EDIT\nEDIT\n",
            "three\n",
            "four\n",
            "-drop 1",
            "five\n",
            "[b]",
            "!1",
            "-drop 2",
            "-drop 3",
            "-drop 4",
            "six\n",
        ];
        assert_eq!(found, expected);
        assert_eq!((whole.read, whole.kept, whole.dropped(), whole.malformed), (14, 8, 4, 1));
        assert_eq!(whole.set_aside["question"], 1);
        assert_eq!(
            whole.bytes_out,
            expected.iter().filter(|p| p.ends_with('\n')).map(|p| p.len() as u64).sum::<u64>()
        );
        assert_eq!(whole.damaged[0].to_string(), "b (byte 7): cut");
        let samples = &whole.stages[0].samples["told_to"];
        assert_eq!(
            samples.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(),
            ["drop 1", "drop 2", "drop 3"]
        );
        let mut halves = pieces(vec![first]).1;
        halves.append(pieces(vec![second]).1);
        assert_eq!(halves, whole);
    }
}
