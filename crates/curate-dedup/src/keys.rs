//! Documents with a key in common: a URL, an id, any field.
//!
//! The first document of a key stays. Keys are compared as 128 bits of xxh3; a document without one stays and is counted.
//! What is remembered is 12 bytes and a record of 40 bytes a key, and the id, in the memory that [`Storage`] names and then in files.

use std::borrow::Cow;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::kept::{Kept, KeptBudget};
use crate::options::{Place, Storage};
use crate::spill::SpillDir;
use crate::table::{DocNumber, KeyTable};

/// Asks a document for its key.
pub struct KeyMapper<F> {
    key: F,
}

impl<F: Fn(&Document<'_>) -> Option<String> + Sync> KeyMapper<F> {
    pub fn new(key: F) -> Self {
        Self { key }
    }
}

impl<F: Fn(&Document<'_>) -> Option<String> + Sync> Mapper for KeyMapper<F> {
    type Work = Option<String>;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<Self::Work> {
        Work::Pending((self.key)(doc))
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KeySummary {
    pub documents: u64,
    pub removed: u64,
    /// Documents without a key; they were kept.
    pub without_key: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Keeps the first document of each key.
#[derive(Debug)]
pub struct KeyGate {
    /// What the key is called in proofs.
    name: String,
    table: KeyTable,
    kept: Kept,
    dir: SpillDir,
    summary: KeySummary,
    /// A buffer.
    found: Vec<DocNumber>,
}

impl KeyGate {
    /// `name` is what the key is called.
    ///
    /// # Errors
    /// Too little memory. An index is for contents: it is not used here.
    pub fn new(name: impl Into<String>, storage: &Storage) -> Result<Self> {
        storage.validate()?;
        Self::new_in(name, storage)
    }

    pub(crate) fn new_in(name: impl Into<String>, storage: &Storage) -> Result<Self> {
        let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfUnits) };
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        Ok(Self {
            name: name.into(),
            table: KeyTable::new(memory / 4, memory / 4, u32::MAX),
            kept: Kept::new(KeptBudget { records: memory / 8, ids: memory / 8, sets: 0 }),
            dir: SpillDir::temporary_below(parent.clone()),
            summary: KeySummary::default(),
            found: Vec::new(),
        })
    }

    pub fn summary(&self) -> KeySummary {
        let stores = self.kept.stores();
        KeySummary {
            memory_bytes: self.table.memory() + stores.iter().map(|store| store.memory()).sum::<u64>(),
            disk_bytes: self.table.disk() + stores.iter().map(|store| store.disk()).sum::<u64>(),
            ..self.summary.clone()
        }
    }

    fn decide(&mut self, doc: &Document<'_>, key: Option<String>) -> Result<Verdict> {
        self.summary.documents += 1;
        let Some(key) = key else {
            self.summary.without_key += 1;
            return Ok(Verdict::Keep);
        };
        let hash = xxh3_128(key.as_bytes());
        self.found.clear();
        self.table.lookup(hash as u64, &mut self.found)?;
        for &holder in &self.found {
            if self.kept.key(holder)? == hash {
                self.summary.removed += 1;
                let proof = vec![
                    ("dup_of", Value::Text(self.kept.id(holder)?)),
                    ("rule", Value::Text(format!("key {}", self.name))),
                    ("key", Value::Text(key)),
                ];
                return Ok(Verdict::Drop(Dropped { reason: "duplicate_key".into(), proof }));
            }
        }
        let number = self.kept.push(hash, doc.id(), &[], &mut self.dir)?;
        self.table.insert(hash as u64, number, 0, &mut self.dir)?;
        Ok(Verdict::Keep)
    }
}

impl Gate for KeyGate {
    type Work = Option<String>;

    fn admit(&mut self, doc: &mut Document<'_>, key: Option<String>) -> curate_core::Result<Verdict> {
        self.decide(doc, key).map_err(curate_core::Error::other)
    }
}

/// A URL in the form in which two are compared: scheme and host in lower case, without a fragment, the scheme's own port, user
/// names, and slashes at the end of the path. `http` and `https` are the same, and `www.` is left out.
pub fn comparable_url(url: &str) -> Cow<'_, str> {
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once("://") else { return Cow::Borrowed(url) };
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let scheme = scheme.to_ascii_lowercase();
    let host = authority.rsplit('@').next().unwrap_or(authority).to_lowercase();
    let own_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let host = host.strip_suffix(own_port).unwrap_or(&host);
    let host = host.strip_prefix("www.").unwrap_or(host).trim_end_matches('.');
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let scheme = if scheme == "https" { "http" } else { &scheme };
    let mut comparable = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        comparable.push('?');
        comparable.push_str(query);
    }
    Cow::Owned(comparable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_key_stays() {
        let storage = Storage { memory: 16 << 20, place: Place::TemporaryIn(std::env::temp_dir()) };
        let mapper =
            KeyMapper::new(|doc: &Document<'_>| Some(doc.source().to_owned()).filter(|s| !s.is_empty()));
        let mut gate = KeyGate::new("source", &storage).unwrap();
        let mut dup_of = Vec::new();
        for (i, source) in ["a", "b", "", "a", "", "A", "b", "a"].into_iter().enumerate() {
            let mut doc = Document::new(b"", i.to_string(), source, "");
            let Work::Pending(key) = mapper.map(&mut doc, &mut (), &mut Counters::default()) else {
                panic!("the mapper decides nothing");
            };
            dup_of.push(match gate.admit(&mut doc, key).unwrap() {
                Verdict::Keep => None,
                Verdict::Drop(dropped) => match &dropped.proof[0].1 {
                    Value::Text(id) => Some(id.clone()),
                    other => panic!("{other:?}"),
                },
            });
        }
        let expected = [None, None, None, Some("0"), None, None, Some("1"), Some("0")];
        assert_eq!(dup_of.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        let summary = gate.summary();
        assert_eq!((summary.documents, summary.removed, summary.without_key), (8, 3, 2));
    }

    #[test]
    fn urls_that_mean_the_same_page() {
        let check = |url: &str, expected: &str| assert_eq!(comparable_url(url), expected);
        check("https://www.Example.org:443/A/b/#top", "http://example.org/A/b");
        check("HTTP://user:secret@example.org:80", "http://example.org");
        check("http://example.org/?", "http://example.org");
        check("http://example.org?a=B#x", "http://example.org?a=B");
        check("http://example.org:8080/a//", "http://example.org:8080/a");
        check("ftp://www.example.org/x", "ftp://example.org/x");
        check(" not a url ", "not a url");
        check("", "");
    }
}
