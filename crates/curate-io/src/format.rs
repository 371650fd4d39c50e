//! What kind of input this is: by its first bytes where they are unmistakable, else by its name.

use std::path::Path;

/// How the records of an input are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// Plain text or Markdown: one document, or several by [`TextSplit`](crate::TextSplit).
    Text,
    /// One web page.
    Html,
    /// A web archive (ISO 28500) or its extracted text (WET).
    Warc,
    /// The web archive of the years before WARC.
    Arc,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC file or stream.
    Arrow,
    /// Rows separated by commas, a header first.
    Csv,
    /// Rows separated by tabs, a header first.
    Tsv,
    /// An archive of any of these.
    Tar,
}

/// The tag of blocks whose records are pieces of a text, each a document of its own.
pub(crate) const PIECE_TAG: u32 = 5;

/// Bytes of an input that [`Format::of_content`] looks at.
pub(crate) const HEAD_BYTES: usize = 512;

/// Suffixes of compressed files; what stands before them names the format.
const COMPRESSED: [&str; 6] = [".gz", ".zst", ".bz2", ".xz", ".lz4", ".br"];

impl Format {
    /// The tag that blocks of this format carry: what a [`Record`](curate_core::Record) of it holds.
    ///
    /// Rows of tables reach the codec as JSON.
    pub(crate) fn tag(self) -> u32 {
        match self {
            Self::JsonLines | Self::Parquet | Self::Arrow | Self::Csv | Self::Tsv => 0,
            Self::Text => 1,
            Self::Html => 2,
            Self::Warc => 3,
            Self::Arc => 4,
            Self::Tar => unreachable!("an archive's members have records, not the archive"),
        }
    }

    /// The format that a file's name promises, whatever its compression.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = Path::new(name).file_name()?.to_str()?.to_ascii_lowercase();
        let (name, _) = split_compression(&name);
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "txt" | "text" | "md" | "markdown" | "rst" => Some(Self::Text),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "warc" | "wet" | "wat" => Some(Self::Warc),
            "arc" => Some(Self::Arc),
            "parquet" => Some(Self::Parquet),
            "arrow" | "arrows" | "feather" | "ipc" => Some(Self::Arrow),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "tar" | "tgz" => Some(Self::Tar),
            _ => None,
        }
    }

    /// The format that the first bytes of an input (after decompression) leave no doubt about.
    pub(crate) fn of_content(head: &[u8]) -> Option<Self> {
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let starts =
            |prefix: &[u8]| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if head.starts_with(b"PAR1") {
            Some(Self::Parquet)
        } else if head.starts_with(b"ARROW1") || head.starts_with(&[0xff; 4]) {
            Some(Self::Arrow)
        } else if head.len() >= 262 && &head[257..262] == b"ustar" {
            Some(Self::Tar)
        } else if text.starts_with(b"WARC/") {
            Some(Self::Warc)
        } else if text.starts_with(b"filedesc:") {
            Some(Self::Arc)
        } else if starts(b"<!doctype html") || starts(b"<html") {
            Some(Self::Html)
        } else {
            None
        }
    }
}

/// A file name without its compression, and the compression.
pub(crate) fn split_compression(name: &str) -> (&str, &str) {
    let suffix = COMPRESSED.iter().find(|suffix| name.to_ascii_lowercase().ends_with(**suffix));
    name.split_at(name.len() - suffix.map_or(0, |s| s.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_tell_the_format() {
        let name = |name, format| assert_eq!(Format::of_name(name), format, "{name}");
        name("a/b.JSONL.gz", Some(Format::JsonLines));
        name("b.warc.wet.gz", Some(Format::Warc));
        name("crawl.warc", Some(Format::Warc));
        name("a.tar.zst", Some(Format::Tar));
        name("a.tgz", Some(Format::Tar));
        name("README", None);
        name("a.bin", None);
        let content = |head: &[u8], format| assert_eq!(Format::of_content(head), format);
        content(b"WARC/1.0\r\n", Some(Format::Warc));
        content(b"\xef\xbb\xbf \n<!DOCTYPE HTML PUBLIC", Some(Format::Html));
        content(b"{\"text\":1}", None);
        content(b"", None);
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        content(&tar, Some(Format::Tar));
    }
}
