//! Event files for TensorBoard: scalars by step.
//!
//! A file is a series of records, all numbers little-endian:
//! ```text
//! u64   length n
//! u32   masked CRC32C of these 8 bytes
//! n     an Event, as a protocol buffer
//! u32   masked CRC32C of the n bytes                      mask(c) = (c rotated right by 15) + 0xa282ead8
//!
//! Event { 1 wall_time: double   2 step: int64   3 file_version: string   5 summary: Summary   7 session_log: SessionLog }
//! Summary { 1 value: repeated Value }   Value { 1 tag: string   2 simple_value: float }   SessionLog { 1 status: enum }
//! ```
//! The first event is the version `brain.Event:2`. A run that goes on writes a new file, whose second event is a session
//! log START: TensorBoard then forgets what earlier files have from that step on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// Writes one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a file in the directory, which is made if absent; `first_step` is the first that will come.
    pub fn create(dir: &Path, first_step: u64) -> Result<EventWriter> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        // TensorBoard reads the files of a directory in the order of their names, which begin with the time.
        let name = format!("events.out.tfevents.{:010}.curate.{}", now().as_secs(), std::process::id());
        let mut path = dir.join(&name);
        for again in 1u32.. {
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = EventWriter { path, file };
                    writer.write(&event(0, &field_bytes(3, b"brain.Event:2")))?;
                    if first_step > 1 {
                        let start = field_varint(1, 1);
                        writer.write(&event(first_step, &field_bytes(7, &start)))?;
                    }
                    return Ok(writer);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    path = dir.join(format!("{name}.{again}"));
                }
                Err(error) => return Err(Error::io(&path)(error)),
            }
        }
        unreachable!("one of four thousand million names is free")
    }

    /// Adds the values of one step: (tag, value).
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = field_bytes(1, tag.as_bytes());
            one.push(2 << 3 | 5);
            one.extend((*value as f32).to_le_bytes());
            summary.extend(field_bytes(1, &one));
        }
        self.write(&event(step, &field_bytes(5, &summary)))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked(crc32c(&length)).to_le_bytes());
        record.extend(event);
        record.extend(masked(crc32c(event)).to_le_bytes());
        self.file.write_all(&record).map_err(Error::io(&self.path))
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An event with one more field.
fn event(step: u64, field: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(now().as_secs_f64().to_le_bytes());
    event.extend(field_varint(2, step));
    event.extend(field);
    event
}

fn field_varint(number: u8, value: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    varint(value, &mut out);
    out
}

fn field_bytes(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC32C (Castagnoli), bit by bit: a few hundred bytes a step.
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of the catalogue of CRC algorithms, and RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn lengths_of_more_than_seven_bits_are_cut() {
        assert_eq!(field_varint(2, 300), [0x10, 0xac, 0x02]);
        assert_eq!(field_bytes(1, &[7; 2]), [0x0a, 2, 7, 7]);
    }
}
