//! Where documents go: one stream, numbered shards, or one output for each input; and how outputs are named.
//!
//! An output's name is made from its input's: the path below the argument that the input was found in, without the
//! suffixes of format and compression, and never outside the output directory.

use std::path::{Path, PathBuf};

use crate::format::{Format, split_compression};

/// Where the kept documents of a run are written to.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// One file, or standard output for `None` and `-`. The name says what it holds: `.parquet`, or JSON Lines with
    /// `.gz` or `.zst` if it is to be compressed.
    Stream(Option<PathBuf>),
    /// Files `NAME-00000.EXT`, `NAME-00001.EXT` …, made from `path` = `NAME.EXT`. A shard ends with the document
    /// that brings it to `shard_bytes` of uncompressed JSON; a document larger than that has a shard to itself.
    Sharded { path: PathBuf, shard_bytes: u64 },
    /// One output for each input.
    Directory {
        dir: PathBuf,
        /// The arguments that inputs were found in: directories, or addresses of an object store. What an input's
        /// name has after one of them is kept; of any other input the file name is.
        roots: Vec<PathBuf>,
        to: OutputFormat,
        /// Cuts each output into shards, as in [`Sharded`](Self::Sharded).
        shard_bytes: Option<u64>,
    },
}

/// What the files of a [`Destination::Directory`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    Jsonl,
    JsonlGz,
    JsonlZst,
    Parquet,
    /// `documents/NAME.jsonl.gz` with every document that was read, and `attributes/curate/NAME.jsonl.gz` with one
    /// row for each in the same order: why it was dropped, or nothing.
    Dolma,
}

impl OutputFormat {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Jsonl => ".jsonl",
            Self::JsonlGz | Self::Dolma => ".jsonl.gz",
            Self::JsonlZst => ".jsonl.zst",
            Self::Parquet => ".parquet",
        }
    }
}

/// What is wrong with an output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{first} and {second} would both be written to {path}")]
    SameName { path: PathBuf, first: String, second: String },
    #[error("{path} is an input: writing it would replace what is being read")]
    OverInput { path: PathBuf },
    #[error("{path}: cannot compress as {suffix}")]
    Compression { path: PathBuf, suffix: String },
    #[error("standard output cannot be cut into shards")]
    ShardedStdout,
    #[error("{name}: {what} cannot be stored in {format}: {message}")]
    Record { name: String, what: String, format: &'static str, message: String },
}

impl OutputError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::SameName { .. } => {
                "rename one of them, or give the directory that holds both as the input, so that their paths below \
                 it are kept"
            }
            Self::OverInput { .. } => "write to another directory",
            Self::Compression { .. } => "outputs are compressed as .gz or .zst",
            Self::ShardedStdout => "name a file, such as out/kept.jsonl.zst",
            Self::Record { .. } => "write JSON Lines, or leave malformed records out",
        }
        .to_owned()
    }
}

/// The name of an input without the suffixes of its format and compression: `a/b.warc.wet.gz` is `a/b`.
///
/// Something is always left: `.jsonl` stays as it is.
fn without_suffixes(name: &str) -> &str {
    let (bare, _) = split_compression(name);
    let bare = match bare.rsplit_once('.') {
        Some((stem, suffix)) if Format::of_name(bare).is_some() => match suffix.to_ascii_lowercase().as_str()
        {
            "wet" | "wat" => stem.strip_suffix(".warc").unwrap_or(stem),
            _ => stem,
        },
        _ => bare,
    };
    if bare.is_empty() || bare.ends_with(['/', '\\']) { name } else { bare }
}

/// `NAME` and `.EXT` of a file that is to be numbered: `out/kept.jsonl.zst` is `out/kept` and `.jsonl.zst`.
pub(crate) fn split_extension(path: &Path) -> (String, String) {
    let name = path.to_string_lossy();
    let stem = without_suffixes(&name);
    (stem.to_owned(), name[stem.len()..].to_owned())
}

/// `NAME-00000.EXT`, `NAME-00001.EXT`, …
pub(crate) fn shard_name(stem: &str, number: u32, extension: &str) -> PathBuf {
    PathBuf::from(format!("{stem}-{number:05}{extension}"))
}

/// The path of an input's output below the output directory, without suffixes.
///
/// It never leaves that directory: empty parts, `.` and `..` are left out and control characters become `_`. Of a
/// member of an archive the archive's own name is kept as a directory.
pub(crate) fn output_stem(origin: &str, roots: &[PathBuf]) -> String {
    let without_query = match origin.split_once("://") {
        Some(_) => origin.split(['?', '#']).next().unwrap_or(origin),
        None => origin,
    };
    let all = parts(without_query);
    // Below the longest of the roots that the input lies in.
    let below = roots
        .iter()
        .filter_map(|root| {
            let root = root.to_string_lossy();
            let root = parts(&root);
            all.starts_with(&root).then(|| &all[root.len()..])
        })
        .filter(|rest| !rest.is_empty())
        .min_by_key(|rest| rest.len());
    let kept = below.unwrap_or_else(|| &all[first_kept(&all)..]);
    let mut stems: Vec<String> = kept
        .iter()
        .enumerate()
        .map(|(i, part)| {
            let last = i + 1 == kept.len();
            let part = if last || is_archive(part) { without_suffixes(part) } else { part };
            part.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
        })
        .filter(|part: &String| !part.is_empty() && part != "." && part != "..")
        .collect();
    if stems.is_empty() {
        stems.push("stdin".to_owned());
    }
    stems.join("/")
}

/// The parts of a path or an address, and of the member of an archive (`t.tar!a/b.txt`); those that say nothing are
/// left out.
fn parts(path: &str) -> Vec<&str> {
    let of_archive = |part: &'_ str| match part.split_once('!') {
        Some((archive, _)) if is_archive(archive) => archive.len(),
        _ => part.len(),
    };
    path.split(std::path::is_separator)
        .flat_map(|part| {
            let (archive, member) = part.split_at(of_archive(part));
            [archive, member.strip_prefix('!').unwrap_or(member)]
        })
        .filter(|part| !part.is_empty() && *part != ".")
        .collect()
}

/// Of an input that was named itself only the file name counts, or the archive and what is in it.
fn first_kept(all: &[&str]) -> usize {
    let last = all.len().saturating_sub(1);
    all[..last].iter().position(|part| is_archive(part)).unwrap_or(last)
}

fn is_archive(part: &str) -> bool {
    Format::of_name(part) == Some(Format::Tar)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outputs_are_named_after_inputs() {
        let check = |origin: &str, roots: &[&str], expected: &str| {
            let roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
            assert_eq!(output_stem(origin, &roots), expected, "{origin}");
        };
        check("a.jsonl", &[], "a");
        check("data/en/a.jsonl.gz", &["data"], "en/a");
        check("./data/en/a.JSONL.GZ", &["data/"], "en/a");
        check("data/en/a.jsonl.gz", &["data", "data/en"], "a");
        check("data/a.jsonl", &["dat", "data/a.jsonl"], "a");
        check("database/a.jsonl", &["data"], "a");
        check("/abs/x/a.b.c.txt", &[], "a.b.c");
        check("crawl/CC-1.warc.wet.gz", &["crawl"], "CC-1");
        check("x.warc.gz", &[], "x");
        check("a.parquet", &[], "a");
        check("archive.v1", &[], "archive.v1");
        check(".jsonl", &[], ".jsonl");
        check("s3://bucket/dump/en/a.jsonl.zst", &["s3://bucket/dump/"], "en/a");
        check("https://host/x/a.parquet?sig=1/2", &[], "a");
        check("data/t.tar.gz!../../etc/passwd", &["data"], "t/etc/passwd");
        check("elsewhere/t.tgz!x/a.txt", &["data"], "t/x/a");
        check("data/en/t.tar!../x!y.txt", &["data"], "en/t/x!y");
        check("wow!/a.txt", &["."], "wow!/a");
        check("../../up.jsonl", &[], "up");
        check("data/../../x.jsonl", &["data"], "x");
        check("data/b\u{1}\n.txt", &["data"], "b__");
        check("stdin", &[], "stdin");
        check("", &[], "stdin");
        check("/", &["/"], "stdin");
        check("..", &[], "stdin");
    }

    #[test]
    fn shards_are_numbered_before_the_suffixes() {
        let check = |path: &str, expected: &str| {
            let (stem, extension) = split_extension(Path::new(path));
            assert_eq!(shard_name(&stem, 7, &extension), Path::new(expected));
        };
        check("out/kept.jsonl.zst", "out/kept-00007.jsonl.zst");
        check("out.d/kept", "out.d/kept-00007");
        check("k.gz", "k-00007.gz");
        check("a.b.parquet", "a.b-00007.parquet");
        check("out/.jsonl", "out/.jsonl-00007");
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_directory(origin in ".*", root in ".{0,6}", dots in "[./a\\\\]{0,20}") {
            for origin in [origin.as_str(), dots.as_str()] {
                let stem = output_stem(origin, &[PathBuf::from(&root)]);
                prop_assert!(!stem.is_empty() && !stem.starts_with('/'));
                prop_assert!(stem.split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
            }
        }
    }
}
