//! What a run counted. The frame counts, not the stages, so the numbers always add up.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The counts of a run: `read = kept + dropped + set aside + malformed`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Records found in the input, malformed ones included.
    pub read: u64,
    pub kept: u64,
    pub malformed: u64,
    /// Sound records that are no documents, by what they are.
    pub set_aside: BTreeMap<&'static str, u64>,
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

    /// Documents dropped by any stage.
    pub fn dropped(&self) -> u64 {
        self.stages.iter().map(StageReport::dropped_total).sum()
    }
}

/// The counts of one stage: `read = kept + the sum of dropped`.
#[derive(Debug, Default, Serialize)]
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<&'static str, u64>,
}

/// A dropped document, short enough for a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
}

/// A record that could not be read: where it is and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Malformed {
    /// The input's name.
    pub file: String,
    /// Line (or record) number, from 1.
    pub line: u64,
    /// Byte offset of the fault in the decompressed input.
    pub offset: u64,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (byte {}): {}", self.file, self.line, self.offset, self.message)
    }
}
