//! nanoGPT: `train.bin` and `val.bin`, 16-bit ids back to back and nothing else.
//!
//! ```text
//! SPLIT.bin   u16 × N   ids; each document ends in the end-of-document id
//! ```

use std::path::PathBuf;

use super::stream::{Cutter, EodPlace};
use super::{Format, Importer, Source, cannot, numbers};
use crate::atomic::AtomicFile;
use crate::error::Result;
use crate::map::Map;

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    if source.max_token_id() > u32::from(u16::MAX) {
        let problem = format!("ids are 16-bit there, the largest here is {}", source.max_token_id());
        return Err(cannot(Format::NanoGpt, problem));
    }
    let mut file = AtomicFile::create(&source.dir.join(format!("{}.bin", source.split.name())))?;
    let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
    for document in 0..source.split.num_documents() {
        source.read(document, &mut tokens)?;
        bytes.clear();
        numbers::write(&tokens, 2, &mut bytes);
        file.write_all(&bytes)?;
    }
    file.commit().map(drop)
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    let number = importer.options.number()?;
    let mut cutter = Cutter::new(importer.options.eod_place.unwrap_or(EodPlace::Last));
    for path in files {
        let map = Map::open_whole(path.clone())?;
        cutter.feed(path, map.bytes(), 0, number, importer)?;
    }
    cutter.finish(importer)
}
