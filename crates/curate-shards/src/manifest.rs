//! `manifest.json`: what a set holds. It is written last, so that its presence means the set is complete.
//!
//! Pretty-printed JSON, fields in the order of [`Manifest`], then `checksum`: the xxh3-128 of every byte before its
//! comma. Whoever edits the file by hand breaks the checksum and is told so when the set is opened.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::TokenId;
use crate::atomic::{AtomicFile, DirectoryLock};
use crate::error::{Error, Result, expect_field};
use crate::format::{Width, hex, mix_name, rows_name, shard_stem, view_name};
use crate::mix::MixManifest;
use crate::packing::{LongDocuments, PackPolicy};
use crate::rows::RowsManifest;

/// Version of the whole on-disk format; another number is refused.
pub const FORMAT_VERSION: u32 = 1;

const FILE_NAME: &str = "manifest.json";
const FORMAT_NAME: &str = "curate-shards";
const CHECKSUM_FIELD: &str = ",\n  \"checksum\": \"";

/// Which tokenizer made the ids.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct TokenizerInfo {
    /// Name for people, such as `gpt2`.
    pub name: String,
    /// SHA-256 of `tokenizer.json` (or of what defines the tokenizer), in hex; opaque to this crate.
    pub sha256: String,
    /// Ids are below this.
    pub vocab_size: u32,
    /// End-of-document id, the last token of every document.
    pub eod: TokenId,
}

/// Everything a set says about itself.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Manifest {
    /// `curate-shards`.
    pub format: String,
    /// [`FORMAT_VERSION`] when it was written.
    pub format_version: u32,
    /// Which tokenizer made the ids.
    pub tokenizer: TokenizerInfo,
    /// How ids are stored in `.bin`.
    pub token_width: Width,
    /// Seed of the split.
    pub seed: u64,
    /// Held-out shares as [`crate::Splits::parse`] reads them.
    pub split_shares: String,
    /// A new shard was begun when a document would have taken the last one past this many tokens.
    pub shard_tokens: u64,
    /// Names of the domains; `.dom` indexes this list, in order of first appearance. `""` stands for documents
    /// without a domain.
    pub domains: Vec<String>,
    /// `train`, then the held-out splits in the order they were asked for; also those without a document.
    pub splits: Vec<SplitManifest>,
    /// Packing views, in the order they were made.
    pub views: Vec<ViewManifest>,
    /// The other files of the set: vocabulary and tokenizer, if given.
    pub files: Vec<FileManifest>,
    /// Parameters of the stages that made the documents; opaque to this crate.
    pub lineage: Value,
}

/// One split, in sum and shard by shard.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct SplitManifest {
    /// Name of the split.
    pub name: String,
    /// Tokens, end-of-document ids included.
    pub tokens: u64,
    /// Documents.
    pub documents: u64,
    /// UTF-8 bytes of their texts.
    pub bytes: u64,
    /// The same by domain, in the order of [`Manifest::domains`]; domains without a document here are left out.
    pub domains: Vec<DomainCount>,
    /// The shards in order; a document lies in one of them, whole.
    pub shards: Vec<ShardManifest>,
}

/// Counts of one domain in one split.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct DomainCount {
    /// Name of the domain.
    pub domain: String,
    /// Documents.
    pub documents: u64,
    /// Tokens, end-of-document ids included.
    pub tokens: u64,
    /// UTF-8 bytes of their texts.
    pub bytes: u64,
}

/// One shard: four files of one stem.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ShardManifest {
    /// File names without their ending, such as `train-00000`.
    pub file: String,
    /// Tokens, end-of-document ids included.
    pub tokens: u64,
    /// Documents, at least one.
    pub documents: u64,
    /// UTF-8 bytes of their texts.
    pub bytes: u64,
    /// Smallest id.
    pub min_token_id: TokenId,
    /// Largest id.
    pub max_token_id: TokenId,
    /// xxh3-128 of the four files, in hex.
    pub xxh3_128: ShardHashes,
}

/// xxh3-128 of the files of a shard, in hex.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ShardHashes {
    /// Of the token ids.
    pub bin: String,
    /// Of the Megatron index.
    pub idx: String,
    /// Of the text sizes.
    pub bytes: String,
    /// Of the domains.
    pub dom: String,
}

/// One packing view of one split.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ViewManifest {
    /// Name of the split.
    pub split: String,
    /// File name, such as `train.T1024.view`.
    pub file: String,
    /// `T`: rows are `T + 1` tokens long.
    pub seq_len: u32,
    /// How the rows were filled.
    pub policy: PackPolicy,
    /// What became of documents longer than a row; not written if they were split.
    #[serde(default, skip_serializing_if = "LongDocuments::is_split")]
    pub long: LongDocuments,
    /// Rows.
    pub rows: u64,
    /// Runs of consecutive tokens of one document that the rows are made of.
    pub runs: u64,
    /// Positions of rows that hold a token. A token that two rows share counts in both.
    pub tokens: u64,
    /// Positions after the first of a row that hold a token: what a trainer that scores everything scores.
    pub targets: u64,
    /// Positions of rows that hold none: `rows × (T + 1) − tokens`.
    pub padding: u64,
    /// Tokens beyond the first `T + 1` of their document, in no row; not written if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated: u64,
    /// Documents of which no row holds every token.
    pub documents_cut: u64,
    /// Documents of which no row holds any token, because they have one token and hence no target of their own.
    pub documents_skipped: u64,
    /// xxh3-128 of the file, in hex.
    pub xxh3_128: String,
    /// Sources that take turns, if a mix was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<MixManifest>,
    /// Copies of the rows, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub materialised: Option<RowsManifest>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Any other file of the set.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct FileManifest {
    /// File name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its xxh3-128, in hex.
    pub xxh3_128: String,
}

impl Manifest {
    /// Where a set keeps its manifest.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE_NAME)
    }

    /// Name of the format, the value of the field `format`.
    pub(crate) fn format_name() -> String {
        FORMAT_NAME.to_owned()
    }

    /// Whether the bytes look like a manifest of this format, of any version and even if damaged.
    pub(crate) fn is_ours(bytes: &[u8]) -> bool {
        let needle = format!("\"format\": \"{FORMAT_NAME}\"");
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    /// Writes the manifest, atomically.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = Manifest::path(dir);
        let json = serde_json::to_string_pretty(self)
            .map_err(|source| Error::BadManifest { path: path.clone(), source })?;
        let body = json.strip_suffix("\n}").expect("a pretty-printed struct ends in a brace on its own line");
        let checksum = hex(xxh3_128(body.as_bytes()));
        AtomicFile::write(&path, format!("{body}{CHECKSUM_FIELD}{checksum}\"\n}}\n").as_bytes()).map(drop)
    }

    /// Reads and checks the manifest of a set; returns it with the xxh3-128 of the file.
    pub(crate) fn read(dir: &Path) -> Result<(Manifest, u128)> {
        let path = Manifest::path(dir);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_manifest(dir)),
            read => read.map_err(Error::io("read", &path))?,
        };
        let manifest = Manifest::parse(&path, &bytes)?;
        Ok((manifest, xxh3_128(&bytes)))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest> {
        let bad = |source| Error::BadManifest { path: path.to_owned(), source };
        // The version first: a later one may have other fields.
        let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
        expect_field(path, "format", FORMAT_NAME, &head.format)?;
        if head.format_version != u64::from(FORMAT_VERSION) {
            let (found, supported) = (head.format_version, u64::from(FORMAT_VERSION));
            return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported });
        }
        check_checksum(path, bytes, &head.checksum)?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(bad)?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// Checks names and sums, so that readers may rely on them.
    fn check(&self, path: &Path) -> Result<()> {
        expect_field(
            path,
            "token_width",
            self.token_width.bytes(),
            Width::from_vocab_size(self.tokenizer.vocab_size).bytes(),
        )?;
        for split in &self.splits {
            for (i, shard) in split.shards.iter().enumerate() {
                expect_field(path, "name of a shard", shard_stem(&split.name, i), shard.file.clone())?;
            }
            expect_field(path, "tokens of a split", split.sum(|shard| shard.tokens), split.tokens)?;
            expect_field(path, "documents of a split", split.sum(|shard| shard.documents), split.documents)?;
            expect_field(path, "bytes of a split", split.sum(|shard| shard.bytes), split.bytes)?;
        }
        for view in &self.views {
            expect_field(path, "name of a view", view_name(&view.split, view.seq_len), view.file.clone())?;
            if let Some(mix) = &view.mix {
                let expected = mix_name(&view.split, view.seq_len);
                expect_field(path, "name of a mix", expected, mix.file.clone())?;
            }
            if let Some(rows) = &view.materialised {
                let expected = rows_name(&view.split, view.seq_len);
                expect_field(path, "name of a row file", expected, rows.file.clone())?;
            }
        }
        Ok(())
    }
}

/// Where the tokens of a split went when it was packed.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Tokens of the split.
    pub given: u64,
    /// Tokens that stand in more than one place of the rows: one for each place but the first.
    pub repeated: u64,
    /// Positions of rows that hold a token.
    pub in_rows: u64,
    /// Tokens of long documents that were to be left out.
    pub truncated: u64,
    /// Tokens of documents of one token.
    pub skipped: u64,
    /// Tokens of domains that the mix leaves out.
    pub left_out: u64,
    /// Positions of rows that hold no token.
    pub padding: u64,
}

impl ViewManifest {
    /// Where the `given` tokens of the split went: given + repeated = in rows + truncated + skipped + left out.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] if tokens are missing, or rows are not `T + 1` positions long.
    pub fn balance(&self, given: u64) -> Result<Balance> {
        let left_out = self.mix.as_ref().map_or(0, |mix| mix.left_out);
        let (in_rows, truncated, skipped) = (self.tokens, self.truncated, self.documents_skipped);
        let accounted = in_rows.saturating_add(truncated).saturating_add(skipped).saturating_add(left_out);
        let unbalanced = |problem| Error::Unbalanced { path: PathBuf::from(&self.file), problem };
        let repeated = accounted.checked_sub(given).ok_or_else(|| {
            unbalanced(format!("{given} tokens of documents, but {accounted} in rows or left out"))
        })?;
        let positions = self.rows.saturating_mul(u64::from(self.seq_len) + 1);
        if in_rows.saturating_add(self.padding) != positions {
            let padding = self.padding;
            return Err(unbalanced(format!(
                "{positions} positions, but {in_rows} tokens and {padding} padding"
            )));
        }
        Ok(Balance { given, repeated, in_rows, truncated, skipped, left_out, padding: self.padding })
    }
}

impl SplitManifest {
    fn sum(&self, count: impl Fn(&ShardManifest) -> u64) -> u64 {
        self.shards.iter().map(count).fold(0, u64::saturating_add)
    }

    /// Identity of the split: the xxh3-128 of the hex checksums of its `.bin`, `.idx` and `.bytes` files, shard by shard,
    /// a line feed after each. Domains are left out: their numbers depend on the documents of other splits.
    pub(crate) fn hash(&self) -> u128 {
        let mut text = String::new();
        for shard in &self.shards {
            let ShardHashes { bin, idx, bytes, dom: _ } = &shard.xxh3_128;
            for hash in [bin, idx, bytes] {
                text.push_str(hash);
                text.push('\n');
            }
        }
        xxh3_128(text.as_bytes())
    }
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    format_version: u64,
    #[serde(default)]
    checksum: String,
}

fn check_checksum(path: &Path, bytes: &[u8], expected: &str) -> Result<()> {
    let field = CHECKSUM_FIELD.as_bytes();
    let start = bytes.windows(field.len()).rposition(|window| window == field);
    let got = start.map_or_else(|| "no checksum".to_owned(), |end| hex(xxh3_128(&bytes[..end])));
    if got != expected {
        return Err(Error::BadChecksum { path: path.to_owned(), expected: expected.to_owned(), got });
    }
    Ok(())
}

fn no_manifest(dir: &Path) -> Error {
    let dir = dir.to_owned();
    if DirectoryLock::is_marked(&dir) { Error::Incomplete { dir } } else { Error::NotAShardSet { dir } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::ViewOptions;
    use crate::reader::ShardSet;
    use crate::testing::{TestDir, write_set};

    /// Opens a set whose manifest was changed and sealed anew, as a faulty writer might.
    fn check(change: fn(&mut Manifest), expected: &str) {
        let dir = TestDir::new();
        let mut manifest = write_set(dir.path(), &[ViewOptions { seq_len: 4, policy: PackPolicy::Concat }]);
        change(&mut manifest);
        manifest.write(dir.path()).unwrap();
        let error = ShardSet::open(dir.path()).unwrap_err();
        let message = error.to_string().replace(&format!("{}/", dir.path().display()), "");
        assert_eq!(message, expected);
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        check(|m| m.token_width = Width::I32, "manifest.json: token_width is 2, expected 4");
        check(|m| m.splits[0].tokens += 1, "manifest.json: tokens of a split is 10, expected 9");
        check(|m| m.splits[0].documents = 0, "manifest.json: documents of a split is 0, expected 3");
        check(|m| m.splits[0].bytes = 1, "manifest.json: bytes of a split is 1, expected 12");
        // Names lead nowhere else: they follow from the split.
        check(
            |m| m.splits[0].shards[0].file = "../other".to_owned(),
            "manifest.json: name of a shard is ../other, expected train-00000",
        );
        check(
            |m| m.views[0].file = "/etc/passwd".to_owned(),
            "manifest.json: name of a view is /etc/passwd, expected train.T4.view",
        );
        check(
            |m| m.views[0].split = "val".to_owned(),
            "manifest.json: name of a view is train.T4.view, expected val.T4.view",
        );
    }

    #[test]
    fn impossible_sizes_are_refused_without_arithmetic_accidents() {
        let huge = |m: &mut Manifest| {
            m.splits[0].shards[0].tokens = u64::MAX;
            m.splits[0].tokens = u64::MAX;
        };
        check(huge, "manifest.json: train-00000 has an impossible size");
        check(|m| m.views[0].rows = u64::MAX, "train.T4.view: the manifest gives it an impossible size");
        check(|m| m.views[0].runs = u64::MAX / 16, "train.T4.view: the manifest gives it an impossible size");
    }

    #[test]
    fn what_is_written_is_read_and_looks_like_ours() {
        let dir = TestDir::new();
        let manifest = write_set(dir.path(), &[]);
        let (read, digest) = Manifest::read(dir.path()).unwrap();
        assert_eq!(read, manifest);
        let bytes = std::fs::read(Manifest::path(dir.path())).unwrap();
        assert_eq!(digest, xxh3_128(&bytes));
        assert!(Manifest::is_ours(&bytes) && Manifest::is_ours(&bytes[..40]));
        assert!(!Manifest::is_ours(b"{\"format\": \"other\"}") && !Manifest::is_ours(b""));
    }
}
