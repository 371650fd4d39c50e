//! A block: a run of records of one input, the unit that travels between threads.

use std::sync::Arc;

use crate::Malformed;

/// A run of records of one input, with what is needed to say where each came from.
///
/// Blocks are recycled: a source clears one and fills it again. Their fixed number is the memory bound of a run.
#[derive(Debug, Default)]
pub struct Block {
    /// The bytes of the records, with whatever separates them.
    pub data: Vec<u8>,
    /// Start and end of each record in `data`, in order, without line ends.
    pub records: Vec<(usize, usize)>,
    /// What the input is called in messages and made-up ids: a path, or `stdin`.
    pub origin: Arc<str>,
    /// Offset of `data` in the (decompressed) input.
    pub offset: u64,
    /// Ordinal of the first record in the input, from 0.
    pub first_record: u64,
    /// A codec's own tag for the format of the records.
    pub format: u32,
    /// Faults of the input itself that were met while filling this block: a cut archive, a record that is too long.
    /// They are counted where the block is written; a block may hold nothing else.
    pub damage: Vec<Malformed>,
}

impl Block {
    /// Forgets the records; the buffers stay.
    pub fn clear(&mut self) {
        self.data.clear();
        self.records.clear();
        self.damage.clear();
    }

    /// The `index`-th record of the block.
    pub fn record(&self, index: usize) -> Record<'_> {
        let (start, end) = self.records[index];
        Record {
            bytes: &self.data[start..end],
            origin: &self.origin,
            offset: self.offset + start as u64,
            ordinal: self.first_record + index as u64,
            format: self.format,
        }
    }
}

/// One stored record and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub bytes: &'a [u8],
    pub origin: &'a str,
    /// Offset in the (decompressed) input.
    pub offset: u64,
    /// Position in the input, from 0: for JSON Lines the line number less one.
    pub ordinal: u64,
    pub format: u32,
}
