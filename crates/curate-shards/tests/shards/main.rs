//! The crate as its users see it: sets are written to disk and read back.
//!
//! - `round_trip`: what is written is what is read, here and by an independent reader of the formats.
//! - `writer`: refusals, leftovers of interrupted runs, replacing, views added later.
//! - `mixed`: mixes of sources, truncated documents, copied rows.
//! - `resume`: interrupted runs that go on.
//! - `convert`: to other formats and back.
//! - `damage`: files that were cut or changed.
//! - `sparse`: counts past 32 bits, in files with holes.
//! - `support`: small corpora, directories, the independent reader.

#![allow(clippy::disallowed_methods)] // tests make files as they need them

mod convert;
mod damage;
mod mixed;
mod resume;
mod round_trip;
#[cfg(target_os = "linux")]
mod sparse;
mod support;
mod writer;
