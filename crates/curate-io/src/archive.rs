//! Tar archives: their members as inputs of their own.
//!
//! The archive is read on a thread of its own, which hands out one member after the other, each through a bounded
//! channel; a member that nobody reads to its end is passed over. Nothing is ever written, so a member's name is only
//! a name; one that points out of the archive is refused all the same, because it is a sign of foul play.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tar::EntryType;

use crate::decompress::{ChunkReader, send_chunks};
use crate::reader::skipped_bytes;

/// Bytes of headers before one member: long names and extended attributes have a few thousand.
const HEADER_BYTES_MAX: u64 = 4 << 20;

/// What an archive gives, in order.
pub(crate) enum Entry {
    /// A regular file and its bytes.
    Member { name: String, reader: ChunkReader },
    /// Something that is not read, and why; the archive goes on.
    Refused { offset: u64, message: String },
    /// The archive cannot be read on.
    Failed { offset: u64, error: io::Error },
}

/// An open archive.
pub(crate) struct Archive {
    entries: Receiver<Option<Entry>>,
    at_end: bool,
}

impl Archive {
    pub(crate) fn new(reader: Box<dyn Read + Send>) -> Self {
        // The thread waits for the reader of one member before it begins the next.
        let (send, entries) = sync_channel(0);
        thread::spawn(move || {
            if let Some(failed) = send_entries(reader, &send) {
                // Nobody may be listening any more.
                let _ = send.send(Some(failed));
            }
            let _ = send.send(None);
        });
        Self { entries, at_end: false }
    }

    /// The next entry; `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Option<Entry> {
        if self.at_end {
            return None;
        }
        let entry = self.entries.recv().unwrap_or_else(|_| {
            let error = io::Error::other("the thread that reads the archive has stopped");
            Some(Entry::Failed { offset: 0, error })
        });
        self.at_end = !matches!(entry, Some(Entry::Member { .. } | Entry::Refused { .. }));
        entry
    }
}

/// Sends all entries; returns the fault that ended them.
fn send_entries(reader: Box<dyn Read + Send>, send: &SyncSender<Option<Entry>>) -> Option<Entry> {
    let headers = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let position = Rc::new(Cell::new(0));
    let guarded = Guarded { inner: reader, headers: Rc::clone(&headers), position: Rc::clone(&position) };
    let mut archive = tar::Archive::new(guarded);
    let failed = |error| Some(Entry::Failed { offset: position.get(), error });
    let mut entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => return failed(error),
    };
    let mut unread: u64 = 0;
    loop {
        headers.set(HEADER_BYTES_MAX.saturating_add(unread));
        let entry = match entries.next()? {
            Ok(entry) => entry,
            Err(error) => return failed(error),
        };
        headers.set(u64::MAX);
        match send_entry(entry, send) {
            Ok(Some(left)) => unread = left,
            Ok(None) => return None,
            Err(error) => return failed(error),
        }
    }
}

/// Sends one entry; returns the bytes of it that are still to be read over, or `None` at the end.
fn send_entry<R: Read>(
    mut entry: tar::Entry<'_, R>,
    send: &SyncSender<Option<Entry>>,
) -> io::Result<Option<u64>> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let size = entry.size();
    let stored = size.max(entry.header().entry_size().unwrap_or(0));
    match kind(&mut entry, &name) {
        Kind::Member => {
            let (chunks, reader) = ChunkReader::channel();
            let name = name.trim_start_matches("./").to_owned();
            if send.send(Some(Entry::Member { name, reader })).is_err() {
                return Ok(None);
            }
            let mut whole = Whole { inner: entry, left: size, failed: false };
            let complete = send_chunks(&mut whole, &chunks);
            if whole.failed {
                // The reader of the member has been told.
                return Ok(None);
            }
            if !complete {
                io::copy(&mut whole, &mut io::sink())?;
            }
            Ok(Some(0))
        }
        Kind::Refused(message) => {
            let offset = entry.raw_header_position();
            let sent = send.send(Some(Entry::Refused { offset, message })).is_ok();
            Ok(sent.then_some(stored))
        }
        Kind::PassedOver => Ok(Some(stored)),
    }
}

enum Kind {
    Member,
    Refused(String),
    /// Directories, links, devices and what else has no bytes.
    PassedOver,
}

fn kind<R: Read>(entry: &mut tar::Entry<'_, R>, name: &str) -> Kind {
    let size = entry.size();
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with('/') => Kind::PassedOver,
        EntryType::Regular | EntryType::Continuous if leaves_archive(name) => {
            Kind::Refused(format!("member name leaves the archive ({name}): not read"))
        }
        EntryType::Regular | EntryType::Continuous if !is_sparse(entry) => Kind::Member,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Kind::Refused(format!("member {name} is a sparse file: not read"))
        }
        EntryType::Link
        | EntryType::Symlink
        | EntryType::Char
        | EntryType::Block
        | EntryType::Directory
        | EntryType::Fifo
        | EntryType::XGlobalHeader => Kind::PassedOver,
        // 'D' is a list of names and 'V' the name of the volume: neither is a file.
        other if size > 0 && !b"DV".contains(&other.as_byte()) => {
            let tag = char::from(other.as_byte());
            Kind::Refused(format!("member {name} is of the unknown type {tag:?}: not read"))
        }
        _ => Kind::PassedOver,
    }
}

/// True for the newer way of storing files with holes, whose bytes begin with a map of them.
fn is_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.flatten().any(|e| e.key_bytes().starts_with(b"GNU.sparse."))
}

fn leaves_archive(name: &str) -> bool {
    name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..")
}

/// Reads `left` bytes and not one less.
struct Whole<R> {
    inner: R,
    left: u64,
    failed: bool,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let outcome = match self.inner.read(buf) {
            Ok(0) if self.left > 0 && !buf.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within this member"))
            }
            // A gap in the compressed archive: what follows it is not at its place.
            Err(error) if skipped_bytes(&error).is_some() => {
                Err(io::Error::new(error.kind(), error.to_string()))
            }
            outcome => outcome,
        };
        self.failed |= outcome.is_err();
        self.left = self.left.saturating_sub(*outcome.as_ref().unwrap_or(&0) as u64);
        outcome
    }
}

/// Counts what is read, and ends an archive whose headers have no end: they are kept in memory.
struct Guarded {
    inner: Box<dyn Read + Send>,
    headers: Rc<Cell<u64>>,
    position: Rc<Cell<u64>>,
}

impl Read for Guarded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let left = self.headers.get().checked_sub(n as u64);
        self.headers.set(left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "more than 4 MiB of headers before one member")
        })?);
        self.position.set(self.position.get() + n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of an archive: names with texts, and what is refused.
    fn read(bytes: Vec<u8>) -> Vec<(String, String)> {
        let mut archive = Archive::new(Box::new(io::Cursor::new(bytes)));
        let mut found = Vec::new();
        while let Some(entry) = archive.next_entry() {
            found.push(match entry {
                Entry::Member { name, mut reader } => {
                    let mut bytes = Vec::new();
                    let outcome = reader.read_to_end(&mut bytes);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    (name, outcome.map_or_else(|e| format!("{} bytes, then {e}", bytes.len()), |_| text))
                }
                Entry::Refused { offset, message } => (format!("refused at {offset}"), message),
                Entry::Failed { error, .. } => ("failed".to_owned(), error.to_string()),
            });
        }
        found
    }

    fn header(name: &str, size: u64, kind: EntryType) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        // Not `set_path`, which refuses the names that a reader must expect.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.set_cksum();
        header
    }

    fn archive(members: &[(&str, &str, EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text, kind) in members {
            builder.append(&header(name, text.len() as u64, *kind), text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn pairs(found: &[(String, String)]) -> Vec<(&str, &str)> {
        found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()
    }

    #[test]
    fn members_come_in_order_and_others_are_passed_over() {
        let file = EntryType::Regular;
        let found = read(archive(&[
            ("./a.txt", "one", file),
            ("dir/", "", EntryType::Directory),
            ("link", "", EntryType::Symlink),
            ("hard", "", EntryType::Link),
            ("device", "", EntryType::Char),
            ("volume", "x", EntryType::new(b'V')),
            ("dir/empty", "", file),
            ("dir/b.txt", "two", EntryType::Continuous),
        ]));
        assert_eq!(pairs(&found), [("a.txt", "one"), ("dir/empty", ""), ("dir/b.txt", "two")]);
        assert_eq!(read(archive(&[])), []);
    }

    #[test]
    fn what_cannot_be_read_is_noted_and_passed_over() {
        let file = EntryType::Regular;
        let found = read(archive(&[
            ("../x", "evil", file),
            ("a/../../b", "evil", file),
            ("/etc/passwd", "evil", file),
            ("a..b", "fine", file),
            ("odd", "content", EntryType::new(b'Z')),
            ("last", "fine", file),
        ]));
        assert_eq!(
            pairs(&found),
            [
                ("refused at 0", "member name leaves the archive (../x): not read"),
                ("refused at 1024", "member name leaves the archive (a/../../b): not read"),
                ("refused at 2048", "member name leaves the archive (/etc/passwd): not read"),
                ("a..b", "fine"),
                ("refused at 4096", "member odd is of the unknown type 'Z': not read"),
                ("last", "fine"),
            ]
        );
    }

    #[test]
    fn long_names_of_both_kinds_are_read() {
        let name = format!("{}/{}.txt", "d".repeat(120), "n".repeat(150));
        let mut gnu = tar::Builder::new(Vec::new());
        gnu.append_data(&mut header("", 1, EntryType::Regular), &name, &b"g"[..]).unwrap();
        let mut pax = tar::Builder::new(Vec::new());
        pax.append_pax_extensions([("path", name.as_bytes())]).unwrap();
        pax.append(&header("short", 1, EntryType::Regular), &b"p"[..]).unwrap();
        assert_eq!(read(gnu.into_inner().unwrap()), [(name.clone(), "g".to_owned())]);
        assert_eq!(read(pax.into_inner().unwrap()), [(name, "p".to_owned())]);
    }

    #[test]
    fn sparse_files_are_not_read() {
        let mut pax = tar::Builder::new(Vec::new());
        pax.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
        pax.append(&header("holes", 4, EntryType::Regular), &b"1\n0\n"[..]).unwrap();
        let found = read(pax.into_inner().unwrap());
        assert_eq!(found[0].1, "member holes is a sparse file: not read");
    }

    #[test]
    fn a_cut_archive_gives_what_came_before() {
        let long = "x".repeat(2_000_000);
        let bytes = archive(&[("a", "one", EntryType::Regular), ("b", &long, EntryType::Regular)]);
        let cut = "the archive ends within this member";
        let found = read(bytes[..1_000_000].to_vec());
        assert_eq!(found[0], ("a".to_owned(), "one".to_owned()));
        assert_eq!(found[1], ("b".to_owned(), format!("{} bytes, then {cut}", 1_000_000 - 1536)));
        assert_eq!(found.len(), 2, "the fault is told once");
        let found = read(bytes[..1100].to_vec());
        assert_eq!((found.len(), found[1].0.as_str()), (2, "failed"));
    }

    #[test]
    fn an_unread_member_is_passed_over() {
        let long = "x".repeat(5_000_000);
        let bytes = archive(&[("a", &long, EntryType::Regular), ("b", "two", EntryType::Regular)]);
        let mut archive = Archive::new(Box::new(io::Cursor::new(bytes)));
        assert!(matches!(archive.next_entry(), Some(Entry::Member { .. })));
        let Some(Entry::Member { name, .. }) = archive.next_entry() else { panic!("no second member") };
        assert_eq!(name, "b");
        assert!(archive.next_entry().is_none());
    }

    #[test]
    fn endless_headers_are_an_error() {
        let long = vec![b'n'; 5 << 20];
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append(&header("././@LongLink", long.len() as u64, EntryType::GNULongName), &long[..])
            .unwrap();
        builder.append(&header("a", 1, EntryType::Regular), &b"x"[..]).unwrap();
        let found = read(builder.into_inner().unwrap());
        let message = "more than 4 MiB of headers before one member";
        assert!(found.len() == 1 && found[0].1.contains(message), "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn members_survive(texts in prop::collection::vec("[a-z]{0,2000}", 0..6)) {
            let names: Vec<String> = (0..texts.len()).map(|i| format!("m{i}")).collect();
            let members: Vec<_> =
                names.iter().zip(&texts).map(|(n, t)| (n.as_str(), t.as_str(), EntryType::Regular)).collect();
            let expected: Vec<_> = names.iter().cloned().zip(texts.iter().cloned()).collect();
            prop_assert_eq!(read(archive(&members)), expected);
        }

        #[test]
        fn damage_is_an_error_at_most(spots in prop::collection::vec((0..3072usize, any::<u8>()), 1..8), cut in 0..3072usize) {
            let mut bytes = archive(&[("a", "one", EntryType::Regular), ("b", "two", EntryType::GNUSparse)]);
            for (at, byte) in spots {
                bytes[at] = byte;
            }
            bytes.truncate(3072 - cut);
            prop_assert!(read(bytes).iter().all(|(_, text)| !text.contains("has stopped")));
        }
    }
}
