//! dolma and OLMo: ids in `.npy` files that are not NumPy files, and a table of documents beside each.
//!
//! ```text
//! SPLIT/part-0-00000.npy      u16|u32 × N   ids back to back, no header; each document ends in the id
//! SPLIT/part-0-00000.csv.gz   a line a document: start,end,id,src,loc      (tokens, end exclusive; no heading)
//! ```
//!
//! 16 bits if the vocabulary is below 65 500 ids, as in our shards: readers are told the type. `src` is the domain
//! and `id` and `loc` the number of the document in its split. Without the table, documents are cut at the id.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder};

use super::stream::{Cutter, EodPlace};
use super::{Importer, Source, numbers};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};
use crate::format::index;
use crate::map::Map;

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    let dir = source.split_dir()?;
    let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
    let (mut next, mut part) = (0, 0);
    while next < source.split.num_documents() {
        let (end, _) = source.file_from(next)?;
        let mut ids = AtomicFile::create(&dir.join(format!("part-0-{part:05}.npy")))?;
        let table_path = dir.join(format!("part-0-{part:05}.csv.gz"));
        let mut table = AtomicFile::create(&table_path)?;
        // No time and no name in the header: the same set gives the same bytes.
        let mut rows = GzBuilder::new().mtime(0).write(&mut table, Compression::default());
        let mut start = 0u64;
        for document in next..end {
            source.read(document, &mut tokens)?;
            bytes.clear();
            numbers::write(&tokens, source.token_bytes(), &mut bytes);
            ids.write_all(&bytes)?;
            let stop = start + tokens.len() as u64;
            let domain = source.split.try_document(document)?.domain;
            let domain = source.set.manifest().domains.get(usize::from(domain)).map_or("", String::as_str);
            let row = format!("{start},{stop},{document},{},{document}\n", quoted(domain));
            rows.write_all(row.as_bytes()).map_err(Error::io("write", &table_path))?;
            start = stop;
        }
        rows.finish().map_err(Error::io("write", &table_path))?;
        ids.commit()?;
        table.commit()?;
        (next, part) = (end, part + 1);
    }
    Ok(())
}

/// A CSV field.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    let mut cutter = Cutter::new(importer.options.eod_place.unwrap_or(EodPlace::Last));
    for path in files {
        let map = Map::open_whole(path.clone())?;
        if map.bytes().starts_with(b"\x93NUMPY") {
            return Err(Error::WrongMagic {
                path: path.clone(),
                kind: "dolma token",
                expected: "ids without a header".to_owned(),
                got: "a NumPy header".to_owned(),
            });
        }
        let table = path.with_extension("csv.gz");
        if table.is_file() {
            by_table(path, &map, &table, importer)?;
        } else {
            cutter.feed(path, map.bytes(), 0, importer.options.number()?, importer)?;
        }
    }
    cutter.finish(importer)
}

fn by_table(path: &Path, map: &Map, table: &Path, importer: &mut Importer<'_>) -> Result<()> {
    let number = importer.options.number()?;
    let width = number.bytes() as u64;
    let vocab_size = importer.tokenizer().vocab_size;
    let file = std::fs::File::open(table).map_err(Error::io("open", table))?;
    let mut rows = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
    let (mut row, mut tokens, mut done, mut line) = (String::new(), Vec::new(), 0u64, 0u64);
    while next_row(&mut rows, &mut row).map_err(Error::io("read", table))? {
        line += 1;
        let mut fields = row.split(',').map(|field| field.trim().parse::<u64>().ok());
        let bad = |expected: &str| {
            Error::damaged(table, format!("row {line}: expected {expected}, got {:?}", row.trim_end()))
        };
        let (Some(Some(start)), Some(Some(end))) = (fields.next(), fields.next()) else {
            return Err(bad("START,END,… in tokens"));
        };
        let bytes = end
            .checked_mul(width)
            .and_then(|stop| map.bytes().get(index(start.saturating_mul(width))..index(stop)));
        let Some(bytes) = bytes.filter(|_| start == done) else {
            let ids = map.bytes().len() as u64 / width;
            return Err(bad(&format!("a document from token {done} on, of the {ids} in {}", path.display())));
        };
        tokens.clear();
        number.read(path, bytes, start * width, vocab_size, &mut tokens)?;
        importer.document(&mut tokens)?;
        done = end;
    }
    if done.saturating_mul(width) != map.bytes().len() as u64 {
        let expected = done.saturating_mul(width);
        return Err(Error::WrongSize { path: path.to_owned(), expected, got: map.bytes().len() as u64 });
    }
    Ok(())
}

/// The next row, which may span lines if a quoted field does.
fn next_row(rows: &mut impl BufRead, row: &mut String) -> std::io::Result<bool> {
    row.clear();
    loop {
        let read = rows.read_line(row)?;
        if read == 0 || row.bytes().filter(|&byte| byte == b'"').count().is_multiple_of(2) {
            return Ok(!row.is_empty());
        }
    }
}
