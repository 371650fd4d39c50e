//! Any bytes of no declared format, through the decompressors and the detection: no panic, and every record is accounted for.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::read(None, bytes));
