//! Which n-grams of a held-out split stand in the training split too.
//!
//! Units are token ids, `n` of them in a row (13 by default, as in GPT-3's and most later checks of contamination),
//! within one document, its end-of-document id left out; documents shorter than `n` have none. The answer is exact:
//! hashes only lead to a place in the held-out split, where the ids themselves are compared.
//!
//! Memory is bounded: n-grams of the held-out split are looked up in a table of 12 bytes each (8 bytes a slot, two of
//! three in use). Where that is more than [`LeakOptions::memory`], the hashes are taken in as many equal parts as
//! needed, with one pass over both splits for each. A bit a document of either split comes on top. Time is one hash
//! (a few nanoseconds) and one look at the table for every token of the training split and pass.

use serde::Serialize;

use crate::TokenId;
use crate::error::{Error, Result};
use crate::format::index;
use crate::reader::{ShardSet, Split, Tokens};
use crate::splits::TRAIN;

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct LeakOptions {
    /// Tokens of an n-gram, at least 1.
    pub ngram: usize,
    /// Bytes for the table of n-grams.
    pub memory: u64,
}

impl Default for LeakOptions {
    fn default() -> LeakOptions {
        LeakOptions { ngram: 13, memory: 1 << 30 }
    }
}

/// What was found.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct LeakReport {
    /// Tokens of an n-gram.
    pub ngram: usize,
    /// The held-out splits in their order, each against `train`.
    pub splits: Vec<SplitLeak>,
}

/// What one held-out split shares with `train`.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct SplitLeak {
    /// Name of the split.
    pub split: String,
    /// Its n-grams, as often as they occur.
    pub ngrams: u64,
    /// Those that occur in `train` too.
    pub shared: u64,
    /// Different n-grams.
    pub distinct: u64,
    /// Those that occur in `train` too.
    pub distinct_shared: u64,
    /// Its documents that have an n-gram.
    pub documents: u64,
    /// Those that share one with `train`.
    pub documents_sharing: u64,
    /// Documents of `train` that share one with the split.
    pub train_documents_sharing: u64,
}

/// Looks for the n-grams of every held-out split in `train`. Reads both; writes nothing.
///
/// # Errors
/// [`Error::BadOption`] for n-grams of no token; [`Error::UnknownSplit`] without `train`; [`Error::Damaged`].
pub fn check_leak(set: &ShardSet, options: &LeakOptions) -> Result<LeakReport> {
    if options.ngram == 0 {
        return Err(Error::BadOption { name: "ngram", problem: "must be at least 1, is 0".to_owned() });
    }
    let train = Text::of(set.split(TRAIN)?)?;
    let held_out = set.splits().iter().filter(|split| split.name() != TRAIN);
    let splits = held_out.map(|split| leak_of(&Text::of(split)?, &train, options)).collect::<Result<_>>()?;
    Ok(LeakReport { ngram: options.ngram, splits })
}

fn leak_of(held_out: &Text<'_>, train: &Text<'_>, options: &LeakOptions) -> Result<SplitLeak> {
    let n = options.ngram;
    let (mut ngrams, mut documents) = (0, 0);
    held_out.for_each_length(|length| {
        let here = ngrams_of(length, n);
        ngrams += here;
        documents += u64::from(here > 0);
    })?;
    let parts = (ngrams * Table::BYTES_PER_NGRAM).div_ceil(options.memory.max(1)).clamp(1, 1 << 20);
    let mut leak = SplitLeak {
        split: held_out.split.name().to_owned(),
        ngrams,
        shared: 0,
        distinct: 0,
        distinct_shared: 0,
        documents,
        documents_sharing: 0,
        train_documents_sharing: 0,
    };
    let mut sharing = Bits::new(held_out.split.num_documents());
    let mut train_sharing = Bits::new(train.split.num_documents());
    for part in 0..parts {
        let is_of_part = |hash: u64| ((hash >> 16 & 0xffff_ffff) * parts) >> 32 == part;
        let mut here = 0;
        held_out.for_each_ngram(n, |_, _, _, hash| here += u64::from(is_of_part(hash)))?;
        let mut table = Table::new(here, n);
        held_out.for_each_ngram(n, |_, position, ids, hash| {
            if is_of_part(hash) {
                leak.distinct += u64::from(table.insert(held_out, position, ids, hash));
            }
        })?;
        train.for_each_ngram(n, |document, _, ids, hash| {
            if is_of_part(hash)
                && let Some(slot) = table.find(held_out, ids, hash)
            {
                leak.distinct_shared += u64::from(table.seen.insert(slot));
                train_sharing.insert(document);
            }
        })?;
        held_out.for_each_ngram(n, |document, _, ids, hash| {
            if is_of_part(hash) && table.find(held_out, ids, hash).is_some_and(|slot| table.seen.has(slot)) {
                leak.shared += 1;
                sharing.insert(document);
            }
        })?;
    }
    leak.documents_sharing = sharing.count;
    leak.train_documents_sharing = train_sharing.count;
    Ok(leak)
}

/// N-grams of a document of so many tokens, the end-of-document id among them.
fn ngrams_of(length: u32, n: usize) -> u64 {
    (u64::from(length)).saturating_sub(n as u64)
}

/// The tokens of a split as one text: where they stand is a number.
struct Text<'a> {
    split: &'a Split,
    /// First position and tokens of each shard.
    shards: Vec<(u64, Tokens<'a>)>,
}

impl<'a> Text<'a> {
    fn of(split: &'a Split) -> Result<Text<'a>> {
        let mut shards = Vec::new();
        let mut position = 0;
        for tokens in split.shard_tokens() {
            let tokens = tokens?;
            shards.push((position, tokens));
            position += tokens.len() as u64;
        }
        Ok(Text { split, shards })
    }

    fn for_each_length(&self, mut take: impl FnMut(u32)) -> Result<()> {
        self.split.for_each_range(|_, _, length| take(length))
    }

    /// Hands over every n-gram: its document, its position, its ids and their hash.
    fn for_each_ngram(&self, n: usize, mut take: impl FnMut(u64, u64, &[TokenId], u64)) -> Result<()> {
        let mut hasher = Rolling::new(n);
        let mut ids: Vec<TokenId> = Vec::new();
        let mut document = 0;
        self.split.for_each_range(|shard, start, length| {
            let (first, tokens) = self.shards[shard];
            let start_here = index(start);
            ids.clear();
            // Offsets were checked to lie in the shard; the last id ends the document.
            ids.extend((start_here..start_here + length as usize - 1).map(|i| tokens.get(i)));
            if ids.len() >= n {
                hasher.begin(&ids[..n]);
                for (i, window) in (0..).zip(ids.windows(n)) {
                    take(document, first + start + i, window, hasher.hash());
                    if let Some(&next) = ids.get(index(i) + n) {
                        hasher.slide(window[0], next);
                    }
                }
            }
            document += 1;
        })
    }

    fn has_at(&self, position: u64, ids: &[TokenId]) -> bool {
        let shard = self.shards.partition_point(|(first, _)| *first <= position) - 1;
        let (first, tokens) = self.shards[shard];
        let start = index(position - first);
        ids.iter().enumerate().all(|(i, &id)| tokens.get(start + i) == id)
    }
}

/// A polynomial in an odd base modulo 2^64, so that one id enters and one leaves in two multiplications.
struct Rolling {
    sum: u64,
    /// Base to the power of n - 1.
    highest: u64,
}

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rolling {
    fn new(n: usize) -> Rolling {
        Rolling { sum: 0, highest: (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE)) }
    }

    fn begin(&mut self, ids: &[TokenId]) {
        self.sum = ids.iter().fold(0, |sum, &id| sum.wrapping_mul(BASE).wrapping_add(value(id)));
    }

    fn slide(&mut self, leaves: TokenId, enters: TokenId) {
        let rest = self.sum.wrapping_sub(value(leaves).wrapping_mul(self.highest));
        self.sum = rest.wrapping_mul(BASE).wrapping_add(value(enters));
    }

    fn hash(&self) -> u64 {
        crate::plan::mix(self.sum)
    }
}

fn value(id: TokenId) -> u64 {
    u64::from(id) + 1
}

/// Different n-grams of a text, by where they stand first: open addressing, never more than two thirds full.
struct Table {
    n: usize,
    /// 16 bits of the hash above 48 bits of position; all ones is empty.
    slots: Vec<u64>,
    /// Slots that were found again.
    seen: Bits,
}

const EMPTY: u64 = u64::MAX;
const POSITION_BITS: u32 = 48;

impl Table {
    const BYTES_PER_NGRAM: u64 = 12;

    fn new(ngrams: u64, n: usize) -> Table {
        let slots = ngrams + ngrams / 2 + 2;
        Table { n, slots: vec![EMPTY; index(slots)], seen: Bits::new(slots) }
    }

    /// The slot of an n-gram, or the empty one where it belongs.
    fn probe(&self, text: &Text<'_>, ids: &[TokenId], hash: u64) -> (usize, bool) {
        debug_assert_eq!(ids.len(), self.n);
        let tag = hash & 0xffff;
        // The upper half of the product: hashes spread over any number of slots.
        let product = u128::from(hash) * self.slots.len() as u128;
        let mut slot = usize::try_from(product >> 64).expect("below the number of slots");
        loop {
            let entry = self.slots[slot];
            if entry == EMPTY {
                return (slot, false);
            }
            if entry >> POSITION_BITS == tag && text.has_at(entry & ((1 << POSITION_BITS) - 1), ids) {
                return (slot, true);
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
    }

    /// Whether the n-gram is new.
    fn insert(&mut self, text: &Text<'_>, position: u64, ids: &[TokenId], hash: u64) -> bool {
        let (slot, is_there) = self.probe(text, ids, hash);
        if !is_there {
            debug_assert!(position < 1 << POSITION_BITS, "a held-out split has fewer than 2^48 tokens");
            self.slots[slot] = (hash & 0xffff) << POSITION_BITS | position;
        }
        !is_there
    }

    fn find(&self, text: &Text<'_>, ids: &[TokenId], hash: u64) -> Option<u64> {
        let (slot, is_there) = self.probe(text, ids, hash);
        is_there.then_some(slot as u64)
    }
}

/// A set of numbers below a bound.
struct Bits {
    words: Vec<u64>,
    /// Members.
    count: u64,
}

impl Bits {
    fn new(size: u64) -> Bits {
        Bits { words: vec![0; index(size.div_ceil(64))], count: 0 }
    }

    fn has(&self, n: u64) -> bool {
        self.words[index(n / 64)] >> (n % 64) & 1 == 1
    }

    /// Whether it is new.
    fn insert(&mut self, n: u64) -> bool {
        let is_new = !self.has(n);
        self.words[index(n / 64)] |= 1 << (n % 64);
        self.count += u64::from(is_new);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::TestDir;
    use crate::{ShardSetWriter, Splits, TokenDocument, TokenizerInfo, WriterOptions};
    use proptest::prelude::*;

    type Document = (Vec<TokenId>, u64);

    /// A set of documents with keys; some are held out, in two splits, over several shards.
    fn write(dir: &TestDir, vocab_size: u32, docs: &[Document]) -> ShardSet {
        let tokenizer = TokenizerInfo { name: "toy".to_owned(), sha256: String::new(), vocab_size, eod: 0 };
        let splits = Splits::parse("val=0.3,test=0.2").unwrap();
        let options = WriterOptions { splits, shard_tokens: 50, ..WriterOptions::new(tokenizer) };
        let mut writer = ShardSetWriter::create(dir.path(), options).unwrap();
        for (tokens, key) in docs {
            writer.push(&TokenDocument { tokens, n_bytes: 1, domain: "", key: *key }).unwrap();
        }
        writer.finish(&[]).unwrap();
        ShardSet::open(dir.path()).unwrap()
    }

    fn ngrams(split: &Split, n: usize) -> Vec<Vec<Vec<TokenId>>> {
        let of = |i| {
            let mut ids: Vec<TokenId> = split.document(i).tokens.iter().collect();
            ids.pop();
            ids.windows(n).map(<[TokenId]>::to_vec).collect()
        };
        (0..split.num_documents()).map(of).collect()
    }

    fn by_brute_force(set: &ShardSet, n: usize) -> LeakReport {
        let train = ngrams(set.split("train").unwrap(), n);
        let in_train: BTreeSet<_> = train.iter().flatten().collect();
        let leak = |split: &Split| {
            let documents = ngrams(split, n);
            let all: Vec<_> = documents.iter().flatten().collect();
            let distinct: BTreeSet<_> = all.iter().copied().collect();
            let count = |documents: &[Vec<Vec<TokenId>>], of: &BTreeSet<&Vec<TokenId>>| {
                documents.iter().filter(|doc| doc.iter().any(|ngram| of.contains(ngram))).count() as u64
            };
            SplitLeak {
                split: split.name().to_owned(),
                ngrams: all.len() as u64,
                shared: all.iter().filter(|ngram| in_train.contains(*ngram)).count() as u64,
                distinct: distinct.len() as u64,
                distinct_shared: distinct.intersection(&in_train).count() as u64,
                documents: documents.iter().filter(|doc| !doc.is_empty()).count() as u64,
                documents_sharing: count(&documents, &in_train),
                train_documents_sharing: count(&train, &distinct),
            }
        };
        LeakReport { ngram: n, splits: set.splits()[1..].iter().map(leak).collect() }
    }

    fn any_documents() -> impl Strategy<Value = Vec<Document>> {
        // Three different ids, so that n-grams are shared often.
        let document = (prop::collection::vec(1u32..4, 0..40), any::<u64>());
        let document = document.prop_map(|(mut ids, key)| {
            ids.push(0);
            (ids, key)
        });
        prop::collection::vec(document, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn it_counts_what_brute_force_counts(
            docs in any_documents(), n in 1usize..15, wide: bool, memory in 1u64..3000,
        ) {
            let dir = TestDir::new();
            let set = write(&dir, if wide { 70_000 } else { 4 }, &docs);
            let found = check_leak(&set, &LeakOptions { ngram: n, memory }).unwrap();
            prop_assert_eq!(found, by_brute_force(&set, n));
        }
    }

    #[test]
    fn a_copied_passage_is_found() {
        let body =
            |seed: u32| -> Vec<TokenId> { (0..30).map(|i| 1 + (seed * 7919 + i * i * 31) % 997).collect() };
        let docs = |copied: bool| -> Vec<Document> {
            let doc = |seed: u32| {
                let mut ids = body(seed);
                if copied && seed % 2 == 1 {
                    ids.splice(5..20, body(seed - 1)[3..18].to_vec());
                }
                ids.push(0);
                (ids, u64::from(seed))
            };
            (0..40).map(doc).collect()
        };
        let (clean, leaky) = (TestDir::new(), TestDir::new());
        let shared = |report: LeakReport| report.splits.iter().map(|leak| leak.shared).sum::<u64>();
        let report = |dir: &TestDir, copied| {
            check_leak(&write(dir, 1000, &docs(copied)), &LeakOptions::default()).unwrap()
        };
        assert_eq!(shared(report(&clean, false)), 0);
        // Each passage of 15 ids has three 13-grams.
        let found = report(&leaky, true);
        assert!(found.splits.iter().any(|leak| leak.documents_sharing > 0), "{found:?}");
        assert_eq!(shared(found) % 3, 0);
    }

    #[test]
    fn ngrams_of_no_token_are_refused() {
        let dir = TestDir::new();
        let set = write(&dir, 4, &[]);
        let error = check_leak(&set, &LeakOptions { ngram: 0, memory: 1 }).unwrap_err();
        assert_eq!(error.to_string(), "ngram: must be at least 1, is 0");
    }
}
