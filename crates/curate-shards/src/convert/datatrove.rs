//! datatrove and nanotron: `.ds` files with an index of document ends.
//!
//! ```text
//! SPLIT/00000_SPLIT.ds            u16|u32 × N   ids back to back; each document ends in the id
//! SPLIT/00000_SPLIT.ds.index      u64 × D       end of each document, in tokens
//! SPLIT/00000_SPLIT.ds.metadata   text          tokenizer|bytes of an id, line feed, N, line feed, N for people
//! ```

use std::path::{Path, PathBuf};

use super::numbers::{self, Number};
use super::stream::{Cutter, EodPlace};
use super::{Importer, Source, with_suffix};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};
use crate::format::{index, u64_at};
use crate::map::Map;

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    let dir = source.split_dir()?;
    let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
    let (mut next, mut part) = (0, 0);
    while next < source.split.num_documents() {
        let (end, count) = source.file_from(next)?;
        let path = dir.join(format!("{part:05}_{}.ds", source.split.name()));
        let mut ids = AtomicFile::create(&path)?;
        let mut ends = AtomicFile::create(&with_suffix(&path, ".index"))?;
        let mut stop = 0u64;
        for document in next..end {
            source.read(document, &mut tokens)?;
            bytes.clear();
            numbers::write(&tokens, source.token_bytes(), &mut bytes);
            ids.write_all(&bytes)?;
            stop += tokens.len() as u64;
            ends.write_all(&stop.to_le_bytes())?;
        }
        ids.commit()?;
        ends.commit()?;
        // A bar or a line feed in the name would end the field.
        let name = source.tokenizer().name.replace(['|', '\n', '\r'], "_");
        let text = format!("{name}|{}\n{count}\n{}", source.token_bytes(), readable(count));
        AtomicFile::write(&with_suffix(&path, ".metadata"), text.as_bytes())?;
        (next, part) = (end, part + 1);
    }
    Ok(())
}

/// A count of tokens in three digits, such as `1.23 MT`.
fn readable(count: u64) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut steps = 0;
    while value >= 999.5 && steps + 1 < PREFIXES.len() {
        value /= 1000.0;
        steps += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}T", PREFIXES[steps])
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    let mut cutter = Cutter::new(importer.options.eod_place.unwrap_or(EodPlace::Last));
    for path in files {
        let map = Map::open_whole(path.clone())?;
        let number = number(path, &map, importer)?;
        let ends = with_suffix(path, ".index");
        if ends.is_file() {
            by_index(path, &map, &Map::open_whole(ends)?, number, importer)?;
        } else {
            cutter.feed(path, map.bytes(), 0, number, importer)?;
        }
    }
    cutter.finish(importer)
}

/// The type of ids: as the options say, else as the metadata says, else by the vocabulary.
fn number(path: &Path, map: &Map, importer: &Importer<'_>) -> Result<Number> {
    let metadata = with_suffix(path, ".metadata");
    if importer.options.token_bytes.is_some() || !metadata.is_file() {
        return importer.options.number();
    }
    let text = std::fs::read(&metadata).map_err(Error::io("read", &metadata))?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let size = lines.next().and_then(|line| line.rsplit_once('|')).map(|(_, size)| size.trim());
    let number = match size {
        Some("2") => Number::U16,
        Some("4") => Number::U32,
        _ => return Err(Error::damaged(&metadata, "line 1: expected TOKENIZER|2 or TOKENIZER|4")),
    };
    let count: Option<u64> = lines.next().and_then(|line| line.trim().parse().ok());
    let count = count.ok_or_else(|| Error::damaged(&metadata, "line 2: expected the number of tokens"))?;
    let expected = count.saturating_mul(number.bytes() as u64);
    if expected != map.bytes().len() as u64 {
        return Err(Error::WrongSize { path: path.to_owned(), expected, got: map.bytes().len() as u64 });
    }
    Ok(number)
}

fn by_index(path: &Path, map: &Map, ends: &Map, number: Number, importer: &mut Importer<'_>) -> Result<()> {
    let width = number.bytes() as u64;
    if !ends.bytes().len().is_multiple_of(8) {
        let problem = format!("{} bytes are no whole number of 8-byte ends", ends.bytes().len());
        return Err(Error::damaged(ends.path(), problem));
    }
    let mut tokens = Vec::new();
    let mut start = 0u64;
    for i in 0..ends.bytes().len() as u64 / 8 {
        let end = u64_at(ends.bytes(), 0, i).expect("the loop ends with the file");
        let bytes =
            end.checked_mul(width).and_then(|stop| map.bytes().get(index(start * width)..index(stop)));
        let Some(bytes) = bytes else {
            let last = map.bytes().len() as u64 / width;
            let problem =
                format!("byte {}: document {i} ends at token {end}, expected {start} to {last}", 8 * i);
            return Err(Error::damaged(ends.path(), problem));
        };
        tokens.clear();
        number.read(path, bytes, start * width, importer.tokenizer().vocab_size, &mut tokens)?;
        importer.document(&mut tokens)?;
        start = end;
    }
    let expected = start * width;
    if expected != map.bytes().len() as u64 {
        return Err(Error::WrongSize { path: path.to_owned(), expected, got: map.bytes().len() as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn counts_have_three_digits() {
        let check = |count, expected: &str| assert_eq!(readable(count), expected);
        check(0, "0.00 T");
        check(42, "42.0 T");
        check(999, "999 T");
        check(1_234_567, "1.23 MT");
        check(999_999, "1.00 MT");
        check(u64::MAX, "18.4 ET");
    }
}
