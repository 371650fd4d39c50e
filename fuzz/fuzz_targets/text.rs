//! Any bytes read as text: no panic, and every record is accounted for.
#![no_main]

mod common;

use curate_io::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| common::read(Some(Format::Text), bytes));
