//! `.curate-journal`: which shards of an unfinished set are finished, so that the next run need not write them again.
//!
//! ```text
//! line 1    CHECKSUM {"format":"curate-journal","version":1,"options":"…"}
//! line n    CHECKSUM {"split":0,"shard":{…}}      a shard as the manifest will have it
//! ```
//!
//! CHECKSUM is the xxh3-128 of the JSON behind it, in hex; `options` is that of all options that decide which document
//! lies where. A line is added when the four files of its shard are synced and have their names, and is synced itself
//! before the next shard of the split is begun. A torn last line, which a crash may leave, counts for nothing, and so
//! does all that follows a bad line. A run with other options does not look further than the first line.
//!
//! The next run is given the same documents again, from a pipe as well as from a file. Those of finished shards are
//! hashed instead of written; at the end of each shard its checksums must come out as they stand here, and the files
//! must still have them. So nothing depends on the input being the same: if it is not, that is an error.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::atomic::{AtomicFile, remove_if_present, sync_directory};
use crate::error::{Error, Result};
use crate::format::hex;
use crate::manifest::ShardManifest;

/// Name of the journal in the directory of a set.
pub(crate) const FILE_NAME: &str = ".curate-journal";
const FORMAT_NAME: &str = "curate-journal";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize, PartialEq)]
struct Head {
    format: String,
    version: u32,
    options: String,
}

/// A finished shard.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(crate) struct Finished {
    /// Number of its split.
    pub(crate) split: usize,
    pub(crate) shard: ShardManifest,
}

/// The journal of a set that is being written. The file is made with the first finished shard.
pub(crate) struct Journal {
    path: PathBuf,
    head: Head,
    file: Option<File>,
}

impl Journal {
    /// A journal for a run with these options; `options` is a text that is equal for equal ones.
    pub(crate) fn new(dir: &Path, options: &str) -> Journal {
        let options = hex(xxh3_128(options.as_bytes()));
        let head = Head { format: FORMAT_NAME.to_owned(), version: VERSION, options };
        Journal { path: dir.join(FILE_NAME), head, file: None }
    }

    /// The shards that an earlier run with the same options finished; none if there was no such run.
    pub(crate) fn read(&self) -> Result<Vec<Finished>> {
        match std::fs::read(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            read => Ok(self.parse(&read.map_err(Error::io("read", &self.path))?)),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Vec<Finished> {
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').map_while(checked);
        let head = lines.next().and_then(|json| serde_json::from_slice::<Head>(json).ok());
        if head.as_ref() != Some(&self.head) {
            return Vec::new();
        }
        lines.map_while(|json| serde_json::from_slice(json).ok()).collect()
    }

    /// Begins the file with what is known to be finished; what else it held is gone.
    pub(crate) fn begin(&mut self, finished: &[Finished]) -> Result<()> {
        let mut text = line(&self.head);
        finished.iter().for_each(|shard| text.push_str(&line(shard)));
        AtomicFile::write(&self.path, text.as_bytes())?;
        let file = File::options().append(true).open(&self.path).map_err(Error::io("open", &self.path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Adds a shard whose files are complete, and makes both durable.
    pub(crate) fn add(&mut self, shard: &Finished) -> Result<()> {
        if self.file.is_none() {
            self.begin(&[])?;
        }
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        let file = self.file.as_mut().expect("begun just above");
        let written = file.write_all(line(shard).as_bytes()).and_then(|()| file.sync_data());
        written.map_err(Error::io("write", &self.path))
    }

    /// Removes the file: the set is complete.
    pub(crate) fn remove(self) -> Result<()> {
        remove_if_present(&self.path)
    }
}

fn line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("plain data");
    format!("{} {json}\n", hex(xxh3_128(json.as_bytes())))
}

/// The JSON of a whole line with a good checksum.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(33)?;
    (checksum == format!("{} ", hex(xxh3_128(json))).as_bytes()).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ShardHashes;
    use crate::testing::TestDir;
    use proptest::prelude::*;

    fn finished(n: usize) -> Finished {
        let hash = |ending: &str| format!("{n}{ending}");
        let shard = ShardManifest {
            file: format!("train-{n:05}"),
            tokens: 10,
            documents: 2,
            bytes: 3,
            min_token_id: 0,
            max_token_id: 7,
            xxh3_128: ShardHashes { bin: hash("b"), idx: hash("i"), bytes: hash("y"), dom: hash("d") },
        };
        Finished { split: n % 2, shard }
    }

    #[test]
    fn shards_come_back_for_the_same_options_only() {
        let dir = TestDir::new();
        let mut journal = Journal::new(dir.path(), "a");
        assert_eq!(journal.read().unwrap(), []);
        (0..3).for_each(|n| journal.add(&finished(n)).unwrap());
        let read = |options| Journal::new(dir.path(), options).read().unwrap();
        assert_eq!(read("a"), [finished(0), finished(1), finished(2)]);
        assert_eq!(read("b"), []);
        let mut again = Journal::new(dir.path(), "a");
        again.begin(&[finished(0)]).unwrap();
        again.add(&finished(4)).unwrap();
        assert_eq!(read("a"), [finished(0), finished(4)]);
        again.remove().unwrap();
        assert_eq!(read("a"), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn a_damaged_journal_tells_of_less_and_never_of_others(
            at: prop::sample::Index, change in 1u8.., cut: bool,
        ) {
            let journal = Journal::new(Path::new("x"), "a");
            let all: Vec<Finished> = (0..4).map(finished).collect();
            let mut text = line(&journal.head);
            all.iter().for_each(|shard| text.push_str(&line(shard)));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            let found = journal.parse(&bytes);
            prop_assert!(found.len() < all.len());
            prop_assert_eq!(&found[..], &all[..found.len()]);
        }
    }
}
