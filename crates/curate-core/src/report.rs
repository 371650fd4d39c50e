//! What a run counted. The frame counts, not the stages, so the numbers always add up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The counts of a run: `read = kept + dropped + set aside + malformed`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Records found in the input, malformed ones included.
    pub read: u64,
    pub kept: u64,
    pub malformed: u64,
    /// Sound records that are no documents, by what they are.
    pub set_aside: BTreeMap<Cow<'static, str>, u64>,
    /// The first malformed records, in input order.
    pub malformed_samples: Vec<Malformed>,
    /// Inputs with a fault that is not one record's: cut archives, files that cannot be read to their end.
    pub damaged: Vec<Malformed>,
    /// Bytes of the records read (decompressed).
    pub bytes_in: u64,
    /// Bytes of the records written (before compression).
    pub bytes_out: u64,
    /// UTF-8 bytes of the texts read and kept.
    pub text_bytes_in: u64,
    pub text_bytes_out: u64,
    /// Time that all workers together spent reading records into documents, and writing them; 0 without a clock.
    pub parse_seconds: f64,
    pub stages: Vec<StageReport>,
}

impl Report {
    /// How many malformed records are kept as samples.
    pub const MALFORMED_SAMPLES: usize = 10;
    /// How many damaged inputs are named; more are counted in `malformed` all the same.
    pub const DAMAGED: usize = 1000;

    /// Adds the counts of a run of the same stages over the inputs that follow.
    pub fn append(&mut self, later: Self) {
        self.read += later.read;
        self.kept += later.kept;
        self.malformed += later.malformed;
        add(&mut self.set_aside, later.set_aside);
        extend_up_to(Self::MALFORMED_SAMPLES, &mut self.malformed_samples, later.malformed_samples);
        extend_up_to(Self::DAMAGED, &mut self.damaged, later.damaged);
        self.bytes_in += later.bytes_in;
        self.bytes_out += later.bytes_out;
        self.text_bytes_in += later.text_bytes_in;
        self.text_bytes_out += later.text_bytes_out;
        self.parse_seconds += later.parse_seconds;
        if self.stages.is_empty() {
            self.stages = later.stages;
        } else {
            self.stages.iter_mut().zip(later.stages).for_each(|(stage, later)| stage.append(later));
        }
    }

    /// Adds the counts of a run of further stages over what this run kept.
    pub fn then(mut self, next: Self) -> Self {
        self.stages.extend(next.stages);
        Self {
            kept: next.kept,
            bytes_out: next.bytes_out,
            text_bytes_out: next.text_bytes_out,
            parse_seconds: self.parse_seconds + next.parse_seconds,
            ..self
        }
    }

    /// Documents dropped by any stage.
    pub fn dropped(&self) -> u64 {
        self.stages.iter().map(StageReport::dropped_total).sum()
    }
}

/// The counts of one stage: `read = kept + the sum of dropped`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    pub name: String,
    pub read: u64,
    pub kept: u64,
    /// Documents dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// The first documents dropped for each reason, in input order.
    pub samples: BTreeMap<String, Vec<Sample>>,
    /// UTF-8 bytes of the texts that came in and that went on.
    pub text_bytes_in: u64,
    pub text_bytes_out: u64,
    /// Time that all workers together spent in this stage; 0 without a clock.
    pub busy_seconds: f64,
    /// What else the stage counted: edits made, repairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<Cow<'static, str>, u64>,
}

/// A dropped document, short enough for a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub id: String,
    /// The beginning of its text.
    pub text: String,
}

impl Sample {
    /// Samples kept for each reason.
    pub const PER_REASON: usize = 3;
    /// Characters kept of a text.
    pub const CHARS: usize = 160;
}

impl StageReport {
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    fn append(&mut self, later: Self) {
        self.read += later.read;
        self.kept += later.kept;
        add(&mut self.dropped, later.dropped);
        for (reason, samples) in later.samples {
            extend_up_to(Sample::PER_REASON, self.samples.entry(reason).or_default(), samples);
        }
        self.text_bytes_in += later.text_bytes_in;
        self.text_bytes_out += later.text_bytes_out;
        self.busy_seconds += later.busy_seconds;
        add(&mut self.counters, later.counters);
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (name, n) in more {
        *counts.entry(name).or_default() += n;
    }
}

fn extend_up_to<T>(limit: usize, list: &mut Vec<T>, more: Vec<T>) {
    let room = limit.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}

/// A record that could not be read: where it is and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Malformed {
    /// The input's name.
    pub file: String,
    /// Line (or record) number, from 1; 0 for a fault of the input as a whole.
    pub line: u64,
    /// Byte offset of the fault in the decompressed input.
    pub offset: u64,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{} (byte {}): {}", self.file, self.offset, self.message),
            line => write!(f, "{}:{line} (byte {}): {}", self.file, self.offset, self.message),
        }
    }
}
