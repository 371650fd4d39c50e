//! Mixing sources by tokens: which source a sample comes from, and which of its rows it is.
//!
//! A view with a mix keeps the rows of each source apart: no row holds tokens of two, and the rows of a source are
//! numbered one after the other. How many of them are drawn is settled when the view is made, in tokens: a source of
//! share `s` whose rows hold `m` targets on average gets rows in proportion to `s / m`. These counts, the *draws*, are
//! exact and stand in the manifest. Their sum `N` is a *cycle*.
//!
//! Within a cycle the sources take turns so that after every number of samples each source has been drawn less than one
//! row more or less than its share of them: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32
//! (1980), which keeps `k` sources within `1 - 1/(2k - 2)`. At step `t` the sources that are behind by
//! `1/(2k - 2)` rows or more may be taken, and the one of them is taken that would be a row behind first.
//!
//! `SPLIT.T1024.mix`, all numbers little-endian:
//!
//! ```text
//! 0    8     magic "CURMIX\0\0"
//! 8    u32   version = 1
//! 12   u32   k, number of sources, 1 ..= 255
//! 16   u64   N, samples of a cycle
//! 24   u64   4096, samples between two rows of the table of counts
//! 32   16    xxh3-128 of the view file
//! 48   source × k        { u64 first row, u64 rows, u64 draws of a cycle, u64 salt: xxh3-64 of its name }
//!      u64 × k × blocks  draws of each source before samples 0, 4096, 8192, … of a cycle
//!      u8  × N           source of each sample of a cycle
//!      16    xxh3-128 of everything before
//! ```
//!
//! So a sample is found with one look at the table, and at most 4,095 bytes are counted, whatever `N` is:
//!
//! ```text
//! sample n: cycle = n / N, i = n % N; s = source of sample i
//!           j = cycle × draws[s] + draws of s before i              the j-th time that s is drawn
//!           epoch = j / rows[s], row = first[s] + permute(seed + salt[s], epoch, rows[s], j % rows[s])
//! ```
//!
//! where `permute` is that of `plan.rs` and the sum wraps. Nothing of it depends on how documents lie in shards.

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{check_magic, hex, index, u32_at, u64_at};
use crate::map::Map;
use crate::plan::Permutation;

const MAGIC: [u8; 8] = *b"CURMIX\0\0";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 48;
const SOURCE_BYTES: u64 = 32;
const FOOTER_BYTES: u64 = 16;
/// Samples between two rows of the table of counts.
const BLOCK: u64 = 4096;
const MAX_SOURCES: usize = 255;

/// One source of a mix as it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixSource {
    /// Name of the domain.
    pub name: String,
    /// Its share of the tokens, above 0; shares are taken relative to their sum.
    pub share: f64,
    /// How often its rows may be seen at most in a cycle; without it once, or any number where a target is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<f64>,
}

/// A mix as it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixSpec {
    /// The sources, in the order given; domains that are not among them are left out.
    pub sources: Vec<MixSource>,
    /// Targets of a cycle; without it as many as the epochs allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_tokens: Option<u64>,
}

impl MixSpec {
    /// Reads `NAME=SHARE` pairs separated by commas, each with `:EPOCHS` after it or not, such as
    /// `web=0.6,code=0.3,books=0.1:4`. The last `=` of a pair counts, so that names may hold one.
    ///
    /// # Errors
    /// [`Error::BadMix`] with what is wrong.
    pub fn parse(spec: &str, target_tokens: Option<u64>) -> Result<MixSpec> {
        let bad = |problem: String| Error::BadMix { problem: format!("{spec:?}: {problem}") };
        let positive = |what: &str, text: &str| {
            let number = text.trim().parse::<f64>().ok();
            let number = number.filter(|number| number.is_finite() && *number > 0.0);
            number.ok_or_else(|| bad(format!("the {what} {text:?} is not a number above 0")))
        };
        let mut sources: Vec<MixSource> = Vec::new();
        for pair in spec.split(',') {
            let (name, share) =
                pair.rsplit_once('=').ok_or_else(|| bad(format!("{pair:?} is not NAME=SHARE")))?;
            let name = name.trim();
            if sources.iter().any(|other| other.name == name) {
                return Err(bad(format!("{name} is given twice")));
            }
            let (share, max_epochs) = match share.split_once(':') {
                Some((share, epochs)) => (share, Some(positive("number of epochs", epochs)?)),
                None => (share, None),
            };
            sources.push(MixSource { name: name.to_owned(), share: positive("share", share)?, max_epochs });
        }
        if sources.len() > MAX_SOURCES {
            return Err(bad(format!("{} sources, at most {MAX_SOURCES} can be mixed", sources.len())));
        }
        Ok(MixSpec { sources, target_tokens })
    }

    /// How many rows of each source a cycle holds, given rows and targets of each, in the order of the sources.
    ///
    /// # Errors
    /// [`Error::BadMix`] for a source without rows, and for a target that the epochs do not allow.
    fn draws(&self, packed: &[(u64, u64)]) -> Result<Vec<u64>> {
        let bad = |problem: String| Error::BadMix { problem };
        for (source, (rows, _)) in self.sources.iter().zip(packed) {
            if *rows == 0 {
                return Err(bad(format!("source {:?} has no rows in this set", source.name)));
            }
        }
        let total: f64 = self.sources.iter().map(|source| source.share).sum();
        // Targets of the largest cycle in which no source comes more often than it may.
        let allowed = |(source, (_, targets)): (&MixSource, &(u64, u64))| {
            let default = if self.target_tokens.is_some() { f64::INFINITY } else { 1.0 };
            source.max_epochs.unwrap_or(default) * *targets as f64 * total / source.share
        };
        let largest = self.sources.iter().zip(packed).map(allowed).fold(f64::INFINITY, f64::min);
        let target = self.target_tokens.map_or(largest, |tokens| tokens as f64);
        if target > largest {
            return Err(bad(format!(
                "{target} tokens are more than the epochs allow, which is {} at these shares",
                largest.floor()
            )));
        }
        let draws = |(source, (rows, targets)): (&MixSource, &(u64, u64))| {
            let exact = target * source.share / total * *rows as f64 / *targets as f64;
            #[expect(clippy::cast_possible_truncation, reason = "checked to be far below 2^64 just after")]
            #[expect(clippy::cast_sign_loss, reason = "products of positive numbers")]
            let draws = exact.round() as u64;
            match draws {
                0 => Err(bad(format!("source {:?} would not get a single row", source.name))),
                _ => Ok(draws),
            }
        };
        let draws: Vec<u64> = self.sources.iter().zip(packed).map(draws).collect::<Result<_>>()?;
        let sum = draws.iter().fold(0u64, |sum, draws| sum.saturating_add(*draws));
        if sum > MAX_SAMPLES {
            return Err(bad(format!("{sum} samples are more than a mix can hold, which is {MAX_SAMPLES}")));
        }
        Ok(draws)
    }
}

/// More than a quadrillion tokens at any sequence length worth training on; leaves room for the interleave's
/// arithmetic in 64 bits.
const MAX_SAMPLES: u64 = 1 << 40;

/// A mix as the manifest of its view has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct MixManifest {
    /// File name, such as `train.T1024.mix`.
    pub file: String,
    /// Samples of a cycle: the sum of the draws.
    pub samples: u64,
    /// What was asked for.
    pub spec: MixSpec,
    /// What each source has and gives, in the order of the spec.
    pub sources: Vec<SourceManifest>,
    /// Tokens of documents whose domain is in no source.
    pub left_out: u64,
    /// xxh3-128 of the file, in hex.
    pub xxh3_128: String,
}

/// What one source has and gives.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct SourceManifest {
    /// Name of the domain.
    pub name: String,
    /// Its documents in the split.
    pub documents: u64,
    /// Number of its first row in the view.
    pub first_row: u64,
    /// Its rows.
    pub rows: u64,
    /// Targets of all its rows.
    pub targets: u64,
    /// How many of its rows a cycle holds.
    pub draws: u64,
}

impl SourceManifest {
    /// How often its rows are seen in a cycle.
    pub fn epochs(&self) -> f64 {
        self.draws as f64 / self.rows as f64
    }

    /// Targets that its draws hold in a cycle; exact for whole epochs, else to within the difference of its rows.
    pub fn drawn_targets(&self) -> f64 {
        self.draws as f64 * self.targets as f64 / self.rows as f64
    }
}

/// The turns of a cycle: the source of each sample, given the draws of each source; see the module's text.
pub(crate) struct Interleave<'d> {
    draws: &'d [u64],
    samples: i64,
    /// `t × draws - drawn × samples` of each source: how far it is behind, in units of 1/`samples` rows.
    behind: Vec<i64>,
    left: u64,
}

impl<'d> Interleave<'d> {
    /// `draws` are at least 1 each, at most 255 of them, and add up to no more than [`MAX_SAMPLES`].
    pub(crate) fn new(draws: &'d [u64]) -> Interleave<'d> {
        let left: u64 = draws.iter().sum();
        let samples = i64::try_from(left).expect("the sum was checked");
        Interleave { draws, samples, behind: vec![0; draws.len()], left }
    }
}

impl Iterator for Interleave<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        // 2k - 2; one source alone is always due.
        let parts = 2 * self.draws.len().max(2) as i64 - 2;
        let mut best: Option<(usize, i64)> = None;
        for (source, (behind, draws)) in self.behind.iter_mut().zip(self.draws).enumerate() {
            *behind += draws.cast_signed();
            if *behind * parts < self.samples {
                continue;
            }
            // Steps until it would be 1 - 1/parts rows behind are slack / (parts × draws): compared across.
            let slack = (self.samples - *behind) * parts - self.samples;
            let sooner = best.is_none_or(|(other, other_slack)| {
                i128::from(slack) * i128::from(self.draws[other])
                    < i128::from(other_slack) * i128::from(*draws)
            });
            if sooner {
                best = Some((source, slack));
            }
        }
        let (source, _) = best.expect("what all are behind adds up to a row, so one is behind by 1/(2k - 2)");
        self.behind[source] -= self.samples;
        Some(u8::try_from(source).expect("there are at most 255 sources"))
    }
}

/// What a source is made of while its view is written.
#[derive(Clone, Debug)]
pub(crate) struct PackedSource {
    pub(crate) documents: u64,
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
    pub(crate) targets: u64,
}

/// Settles the draws of a mix and writes its file.
pub(crate) fn write_mix(
    path: &Path,
    file_name: String,
    spec: &MixSpec,
    packed: &[PackedSource],
    left_out: u64,
    view_hash: u128,
) -> Result<MixManifest> {
    let counts: Vec<(u64, u64)> = packed.iter().map(|source| (source.rows, source.targets)).collect();
    let draws = spec.draws(&counts)?;
    let samples: u64 = draws.iter().sum();
    let mut file = AtomicFile::create(path)?;
    file.write_all(&MAGIC)?;
    for word in [VERSION, u32::try_from(draws.len()).expect("checked by the parser")] {
        file.write_all(&word.to_le_bytes())?;
    }
    for long in [samples, BLOCK] {
        file.write_all(&long.to_le_bytes())?;
    }
    file.write_all(&view_hash.to_le_bytes())?;
    for ((source, packed), draws) in spec.sources.iter().zip(packed).zip(&draws) {
        for long in [packed.first_row, packed.rows, *draws, xxh3_64(source.name.as_bytes())] {
            file.write_all(&long.to_le_bytes())?;
        }
    }
    // Made twice, for the table and for the turns: that costs less than holding them.
    let mut drawn = vec![0u64; draws.len()];
    for (at, source) in (0u64..).zip(Interleave::new(&draws)) {
        if at % BLOCK == 0 {
            drawn.iter().try_for_each(|count| file.write_all(&count.to_le_bytes()))?;
        }
        drawn[usize::from(source)] += 1;
    }
    Interleave::new(&draws).try_for_each(|source| file.write_all(&[source]))?;
    file.write_all(&file.digest().to_le_bytes())?;
    let xxh3_128 = hex(file.commit()?);
    let sources =
        spec.sources.iter().zip(packed).zip(draws).map(|((source, packed), draws)| SourceManifest {
            name: source.name.clone(),
            documents: packed.documents,
            first_row: packed.first_row,
            rows: packed.rows,
            targets: packed.targets,
            draws,
        });
    Ok(MixManifest {
        file: file_name,
        samples,
        spec: spec.clone(),
        sources: sources.collect(),
        left_out,
        xxh3_128,
    })
}

/// Rows and draws of one source, as its file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
    draws: u64,
    salt: u64,
}

impl Source {
    /// The order in which training with `seed` visits the rows of the source in an epoch.
    pub(crate) fn order(&self, seed: u64, epoch: u64) -> Permutation {
        Permutation::new(seed.wrapping_add(self.salt), epoch, self.rows)
    }
}

/// One sample of a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixSample {
    /// Number of its source, in the order of the spec.
    pub source: usize,
    /// How often every row of the source was drawn before.
    pub epoch: u64,
    /// Number of the row in the view.
    pub row: u64,
}

/// The turns of a mix, mapped from disk: which row of which source the `n`-th sample is, as a pure function.
#[derive(Debug)]
pub struct Mix {
    map: Map,
    samples: u64,
    sources: Vec<Source>,
    /// Where the table of counts begins, and where the turns begin.
    tables: (u64, u64),
    checksum: String,
}

impl PartialEq for Mix {
    fn eq(&self, other: &Mix) -> bool {
        self.checksum == other.checksum
    }
}

impl Eq for Mix {}

impl Mix {
    /// Maps a mix and checks it against its manifest entry and its view. The turns themselves are checked by
    /// [`Mix::verify`] and where they are used.
    pub(crate) fn open(dir: &Path, manifest: &MixManifest, view_hash: &str) -> Result<Mix> {
        let path = dir.join(&manifest.file);
        let k = manifest.sources.len() as u64;
        let turns = manifest.samples.div_ceil(BLOCK).checked_mul(8 * k);
        let turns = turns.and_then(|bytes| bytes.checked_add(HEADER_BYTES + SOURCE_BYTES * k));
        let size = turns.and_then(|turns| turns.checked_add(manifest.samples)?.checked_add(FOOTER_BYTES));
        let (Some(turns), Some(size)) = (turns, size) else {
            return Err(Error::damaged(&path, "the manifest gives it an impossible size"));
        };
        let map = Map::open(path, size)?;
        let (path, bytes) = (map.path(), map.bytes());
        check_magic(path, bytes, MAGIC, "mix", VERSION)?;
        let word = |at| u32_at(bytes, at, 0).expect("the file is larger than its header");
        let long = |at| u64_at(bytes, at, 0).expect("the file is larger than its header");
        expect_field(path, "number of sources", k, word(12).into())?;
        expect_field(path, "number of samples", manifest.samples, long(16))?;
        expect_field(path, "samples of a block", BLOCK, long(24))?;
        let hash = u128::from(long(32)) | u128::from(long(40)) << 64;
        expect_field(path, "checksum of the view", view_hash.to_owned(), hex(hash))?;
        let mut sources = Vec::with_capacity(manifest.sources.len());
        let mut next_row = 0;
        for (i, entry) in (0..).zip(&manifest.sources) {
            let field = |n: u64| long(HEADER_BYTES + SOURCE_BYTES * i + 8 * n);
            let source = Source { first_row: field(0), rows: field(1), draws: field(2), salt: field(3) };
            expect_field(path, "first row of a source", next_row, source.first_row)?;
            expect_field(path, "first row of a source", entry.first_row, source.first_row)?;
            expect_field(path, "rows of a source", entry.rows, source.rows)?;
            expect_field(path, "draws of a source", entry.draws, source.draws)?;
            if source.rows == 0 || source.draws == 0 {
                return Err(Error::damaged(path, format!("source {:?} is empty", entry.name)));
            }
            next_row = next_row.saturating_add(source.rows);
            sources.push(source);
        }
        let sum = sources.iter().fold(0u64, |sum, source| sum.saturating_add(source.draws));
        expect_field(path, "sum of the draws", manifest.samples, sum)?;
        if manifest.samples == 0 {
            return Err(Error::damaged(path, "it has no samples"));
        }
        let tables = (HEADER_BYTES + SOURCE_BYTES * k, turns);
        let checksum = manifest.xxh3_128.clone();
        Ok(Mix { samples: manifest.samples, sources, tables, checksum, map })
    }

    /// Samples of a cycle, after which every source has been drawn exactly as often as the manifest says.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// xxh3-128 of the file in hex. It covers that of the view, hence every token of every row.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The `n`-th sample since the start of training. Constant time, below a microsecond.
    pub fn sample(&self, seed: u64, n: u64) -> MixSample {
        let (cycle, at) = (n / self.samples, n % self.samples);
        // A damaged file may name a source that is not there: any row that exists will do until it is verified.
        let source = usize::from(self.turns(at, at + 1).first().copied().unwrap_or(0)) % self.sources.len();
        let Source { first_row, rows, draws, .. } = self.sources[source];
        let drawn = cycle.wrapping_mul(draws).wrapping_add(self.drawn_in_cycle(source, at));
        let (epoch, position) = (drawn / rows, drawn % rows);
        let row = first_row + self.sources[source].order(seed, epoch).apply(position);
        MixSample { source, epoch, row }
    }

    /// How many of the first `n` samples come from each source.
    pub fn drawn(&self, n: u64) -> Vec<u64> {
        let (cycle, at) = (n / self.samples, n % self.samples);
        let drawn = |(i, source): (usize, &Source)| cycle * source.draws + self.drawn_in_cycle(i, at);
        self.sources.iter().enumerate().map(drawn).collect()
    }

    /// Draws of a source before a sample of the cycle.
    fn drawn_in_cycle(&self, source: usize, at: u64) -> u64 {
        let entry = at / BLOCK * self.sources.len() as u64 + source as u64;
        let before = u64_at(self.map.bytes(), self.tables.0, entry).unwrap_or(0);
        let turns = self.turns(at / BLOCK * BLOCK, at);
        before + turns.iter().filter(|&&turn| usize::from(turn) == source).count() as u64
    }

    fn turns(&self, start: u64, end: u64) -> &[u8] {
        &self.map.bytes()[index(self.tables.1 + start)..index(self.tables.1 + end)]
    }

    /// Re-hashes the file and makes the turns anew from the draws.
    pub(crate) fn verify(&self) -> Result<()> {
        let got = hex(xxh3_128(self.map.bytes()));
        if got != self.checksum {
            let (path, expected) = (self.map.path().to_owned(), self.checksum.clone());
            return Err(Error::BadChecksum { path, expected, got });
        }
        let draws: Vec<u64> = self.sources.iter().map(|source| source.draws).collect();
        let mut drawn = vec![0u64; draws.len()];
        for (at, (turn, &found)) in (0..).zip(Interleave::new(&draws).zip(self.turns(0, self.samples))) {
            let counts = |i: usize| {
                u64_at(self.map.bytes(), self.tables.0, at / BLOCK * draws.len() as u64 + i as u64)
            };
            if at % BLOCK == 0 && (0..drawn.len()).any(|i| counts(i) != Some(drawn[i])) {
                return Err(Error::damaged(
                    self.map.path(),
                    format!("the counts before sample {at} are wrong"),
                ));
            }
            if turn != found {
                let problem = format!("sample {at} is of source {found}, expected {turn}");
                return Err(Error::damaged(self.map.path(), problem));
            }
            drawn[usize::from(turn)] += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDir;
    use proptest::prelude::*;

    #[test]
    fn specs_are_read() {
        let source = |name: &str, share, max_epochs| MixSource { name: name.to_owned(), share, max_epochs };
        let check = |spec: &str, expected: &[MixSource]| {
            assert_eq!(MixSpec::parse(spec, None).unwrap().sources, expected, "{spec}");
        };
        check("web=1", &[source("web", 1.0, None)]);
        check("=1", &[source("", 1.0, None)]);
        check(
            "web=0.6, code = 30 : 2.5 ,a=b=1e-3:4",
            &[source("web", 0.6, None), source("code", 30.0, Some(2.5)), source("a=b", 1e-3, Some(4.0))],
        );
    }

    #[test]
    fn specs_that_say_nothing_are_refused() {
        let check = |spec: &str, problem: &str| {
            let error = MixSpec::parse(spec, None).unwrap_err();
            assert_eq!(error.to_string(), format!("mix {spec:?}: {problem}"));
            assert!(error.hint().is_some());
        };
        check("", "\"\" is not NAME=SHARE");
        check("web", "\"web\" is not NAME=SHARE");
        check("web=1,", "\"\" is not NAME=SHARE");
        check("web=x", "the share \"x\" is not a number above 0");
        check("web=0", "the share \"0\" is not a number above 0");
        check("web=-1", "the share \"-1\" is not a number above 0");
        check("web=inf", "the share \"inf\" is not a number above 0");
        check("web=NaN", "the share \"NaN\" is not a number above 0");
        check("web=1:0", "the number of epochs \"0\" is not a number above 0");
        check("web=1:", "the number of epochs \"\" is not a number above 0");
        check("web=1,web=2", "web is given twice");
        let many: Vec<String> = (0..256).map(|i| format!("s{i}=1")).collect();
        let error = MixSpec::parse(&many.join(","), None).unwrap_err();
        assert!(error.to_string().ends_with("256 sources, at most 255 can be mixed"), "{error}");
    }

    #[test]
    fn draws_are_settled_in_tokens() {
        let check = |spec: &str, target, packed: &[(u64, u64)], expected: &[u64]| {
            assert_eq!(MixSpec::parse(spec, target).unwrap().draws(packed).unwrap(), expected, "{spec}");
        };
        // As many as can be had without seeing a row twice: 100 rows of code are 0.4 of all.
        check("web=0.6,code=0.4", None, &[(1000, 10_000), (100, 1000)], &[150, 100]);
        // Rows of code hold half as many tokens, so it takes twice as many of them.
        check("web=0.5,code=0.5", None, &[(1000, 10_000), (100, 500)], &[50, 100]);
        // Four epochs of books allow more of all.
        check("web=0.9,books=0.1:4", None, &[(1000, 10_000), (10, 100)], &[360, 40]);
        check("web=9,books=1", Some(2000), &[(1000, 10_000), (10, 100)], &[180, 20]);
        check("web=1", None, &[(7, 70)], &[7]);
        check("web=1:2.5", None, &[(10, 70)], &[25]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let check = |spec: &str, target, packed: &[(u64, u64)], problem: &str| {
            let error = MixSpec::parse(spec, target).unwrap().draws(packed).unwrap_err();
            assert_eq!(error.to_string(), format!("mix {problem}"));
        };
        check("a=1,b=1", None, &[(3, 30), (0, 0)], "source \"b\" has no rows in this set");
        check("a=1,b=1e-9", None, &[(3, 30), (3, 30)], "source \"b\" would not get a single row");
        check(
            "a=1,b=1:2",
            Some(1000),
            &[(3, 30), (3, 30)],
            "1000 tokens are more than the epochs allow, which is 120 at these shares",
        );
        check(
            "a=1",
            Some(u64::MAX),
            &[(1, 1)],
            "18446744073709551615 samples are more than a mix can hold, which is 1099511627776",
        );
    }

    /// The greatest distance between what was drawn and its share, in rows.
    fn greatest_distance(draws: &[u64]) -> f64 {
        let samples: u64 = draws.iter().sum();
        let mut drawn = vec![0u64; draws.len()];
        let mut greatest = 0.0f64;
        for (t, source) in (1u64..).zip(Interleave::new(draws)) {
            drawn[usize::from(source)] += 1;
            for (drawn, draws) in drawn.iter().zip(draws) {
                let share = t as f64 * *draws as f64 / samples as f64;
                greatest = greatest.max((*drawn as f64 - share).abs());
            }
        }
        assert_eq!(drawn, draws, "a cycle draws what it should");
        greatest
    }

    #[test]
    fn turns_by_hand() {
        let turns = |draws: &[u64]| Interleave::new(draws).map(|s| char::from(b'a' + s)).collect::<String>();
        assert_eq!(turns(&[3]), "aaa");
        assert_eq!(turns(&[1, 1]), "ab");
        assert_eq!(turns(&[2, 1]), "aba");
        // Worked out by hand: the third waits until it is behind by 7/10, as the others would be late sooner.
        assert_eq!(turns(&[6, 3, 1]), "abaabacaba");
    }

    #[test]
    fn skewed_shares_stay_within_a_row() {
        for draws in
            [&[1, 1, 1, 1, 996][..], &[1; 255], &[500, 1, 499], &[65_536, 3, 1, 77], &[90_000, 5000, 5000]]
        {
            let bound = 1.0 - 1.0 / (2.0 * draws.len().max(2) as f64 - 2.0);
            let greatest = greatest_distance(draws);
            assert!(greatest <= bound + 1e-6, "{draws:?}: {greatest} > {bound}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_a_spec_or_an_error(text in "[a-c=:,.0-9e+-]{0,24}") {
            if let Ok(spec) = MixSpec::parse(&text, None) {
                prop_assert!(!spec.sources.is_empty());
                let positive = |number: f64| number > 0.0 && number.is_finite();
                for source in &spec.sources {
                    prop_assert!(positive(source.share) && source.max_epochs.is_none_or(positive));
                }
                let written: Vec<String> = spec
                    .sources
                    .iter()
                    .map(|source| match source.max_epochs {
                        Some(epochs) => format!("{}={}:{epochs}", source.name, source.share),
                        None => format!("{}={}", source.name, source.share),
                    })
                    .collect();
                prop_assert_eq!(MixSpec::parse(&written.join(","), None).unwrap(), spec);
            }
        }

        #[test]
        fn every_beginning_is_within_a_row(draws in prop::collection::vec(1u64..400, 1..12)) {
            let greatest = greatest_distance(&draws);
            let k = draws.len().max(2) as f64;
            prop_assert!(greatest <= 1.0 - 1.0 / (2.0 * k - 2.0) + 1e-6, "{greatest}");
        }

        #[test]
        fn samples_are_what_the_turns_say(
            rows in prop::collection::vec(1u64..50, 1..5),
            target in 1u64..20_000,
            seed: u64,
            from in 0u64..50_000,
        ) {
            let dir = TestDir::new();
            let (spec, manifest) = write(&dir, &rows, target);
            prop_assume!(manifest.is_ok());
            let manifest = manifest.unwrap();
            let mix = Mix::open(dir.path(), &manifest, VIEW).unwrap();
            mix.verify().unwrap();
            let draws: Vec<u64> = manifest.sources.iter().map(|source| source.draws).collect();
            // Plainly: turn after turn, each source visits its rows in the order of its own epochs.
            let turns = Interleave::new(&draws).collect::<Vec<u8>>().into_iter().cycle();
            let mut drawn = vec![0u64; rows.len()];
            for (n, source) in (0..from + 300).zip(turns) {
                let s = usize::from(source);
                if n >= from {
                    let (epoch, at) = (drawn[s] / rows[s], drawn[s] % rows[s]);
                    let salt = xxh3_64(spec.sources[s].name.as_bytes());
                    let row = Permutation::new(seed.wrapping_add(salt), epoch, rows[s]).apply(at);
                    let row = row + rows[..s].iter().sum::<u64>();
                    prop_assert_eq!(mix.sample(seed, n), MixSample { source: s, epoch, row });
                    prop_assert_eq!(&mix.drawn(n), &drawn);
                }
                drawn[s] += 1;
            }
        }
    }

    const VIEW: &str = "000000000000000000000000000000aa";

    /// A mix of sources `s0`, `s1`, … of so many rows with ten targets each, with shares 1, 2, ….
    fn write(dir: &TestDir, rows: &[u64], target: u64) -> (MixSpec, Result<MixManifest>) {
        let spec = (0..rows.len()).map(|i| format!("s{i}={}", i + 1)).collect::<Vec<_>>().join(",");
        let spec = MixSpec::parse(&spec, Some(target)).unwrap();
        let mut first_row = 0;
        let packed = rows.iter().map(|&rows| {
            let source = PackedSource { documents: rows, first_row, rows, targets: rows * 10 };
            first_row += rows;
            source
        });
        let packed: Vec<PackedSource> = packed.collect();
        let manifest =
            write_mix(&dir.path().join("train.T8.mix"), "train.T8.mix".into(), &spec, &packed, 0, 0xaa);
        (spec, manifest)
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // tests make files as they need them
    fn each_defect_has_its_message() {
        let dir = TestDir::new();
        let (_, manifest) = write(&dir, &[5, 7], 90_000);
        let manifest = manifest.unwrap();
        let path = dir.path().join("train.T8.mix");
        let good = std::fs::read(&path).unwrap();
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = good.clone();
            change(&mut bytes);
            std::fs::write(&path, &bytes).unwrap();
            let mut manifest = manifest.clone();
            manifest.xxh3_128 = hex(xxh3_128(&bytes));
            let error = Mix::open(dir.path(), &manifest, VIEW).and_then(|mix| mix.verify()).unwrap_err();
            let message = error.to_string().replace(&format!("{}/", dir.path().display()), "");
            assert!(message.starts_with(expected), "{message}");
        };
        check(&|b| b[0] = b'X', "train.T8.mix: not a mix file (it begins with \"XURMIX");
        check(&|b| b[8] = 2, "train.T8.mix: format version 2 is not supported (this build reads version 1)");
        check(&|b| b[12] = 3, "train.T8.mix: number of sources is 3, expected 2");
        check(&|b| b[16] ^= 1, "train.T8.mix: number of samples is ");
        check(&|b| b[25] = 1, "train.T8.mix: samples of a block is ");
        check(&|b| b[32] = 0, "train.T8.mix: checksum of the view is ");
        check(&|b| b[48] = 1, "train.T8.mix: first row of a source is 1, expected 0");
        check(&|b| b[56] = 6, "train.T8.mix: rows of a source is 6, expected 5");
        check(&|b| b[64] ^= 1, "train.T8.mix: draws of a source is ");
        check(&|b| b[112 + 16] ^= 1, "train.T8.mix: the counts before sample 4096 are wrong");
        let turns = 112 + 16 * 3;
        check(&|b| b[turns + 5] ^= 1, "train.T8.mix: sample 5 is of source ");
        check(&|b| b.truncate(b.len() - 1), "train.T8.mix: 9");
        // What was not verified gives some row of the view, not a panic.
        let mut bytes = good.clone();
        bytes[turns..turns + 9000].fill(200);
        std::fs::write(&path, &bytes).unwrap();
        let mix = Mix::open(dir.path(), &manifest, VIEW).unwrap();
        assert!((0..30_000).all(|n| mix.sample(3, n).row < 12));
    }
}
