//! Lines that many pages of one site share: menus, headers, footers.
//!
//! One pass learns ([`SiteLinesLearner`]), a later one removes ([`SiteLines`]). The learner counts on how many pages of a host
//! a line stands. Its memory is bounded, and what it forgets does not depend on the order of the pages: every count
//! has a pseudo-random key, and when a table is full, the half of the keys above a threshold goes, for good. What is
//! left has been counted from its first page on, so learners may be merged and threads may share the pages out as
//! they like. A full learner misses some shared lines; it never takes a line for shared that is not.

use std::borrow::Cow;
use std::collections::HashMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a file of lines begins with; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"CSITELN\x01";

/// Bytes of memory that one count takes, the free places of a hash table among them.
const ENTRY_BYTES: usize = 40;

/// Which lines are shared, and where they are looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteLinesOptions {
    /// Only so many lines at the start and as many at the end of a page, blank ones not counted; `None`: all lines.
    pub edge_lines: Option<u32>,
    /// A line is shared if at least so many pages of the host have it,
    pub min_pages: u32,
    /// and they are at least this share of its pages, 0..=1.
    pub min_share: f64,
}

impl Default for SiteLinesOptions {
    fn default() -> Self {
        Self { edge_lines: Some(5), min_pages: 5, min_share: 0.3 }
    }
}

/// A file of lines that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteLinesError {
    #[error("this is no file of site lines")]
    Magic,
    #[error("site lines of version {0}, expected 1")]
    Version(u8),
    #[error("the file of site lines is cut short or damaged")]
    Damaged,
}

/// Counts by key, in a bounded number of entries.
#[derive(Debug, Clone)]
struct Counts {
    pages: HashMap<u64, u32>,
    max_entries: usize,
    /// Keys with any of so many high bits set are not kept.
    level: u32,
}

impl Counts {
    fn new(bytes: usize) -> Self {
        Self { pages: HashMap::new(), max_entries: (bytes / ENTRY_BYTES).max(1), level: 0 }
    }

    fn keeps(&self, key: u64) -> bool {
        self.level == 0 || key >> (64 - self.level) == 0
    }

    fn add(&mut self, key: u64, pages: u32) {
        if !self.keeps(key) {
            return;
        }
        let count = self.pages.entry(key).or_default();
        *count = count.saturating_add(pages);
        while self.pages.len() > self.max_entries && self.level < 63 {
            self.level += 1;
            let level = self.level;
            self.pages.retain(|key, _| key >> (64 - level) == 0);
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.level > self.level {
            self.level = other.level;
            let level = self.level;
            self.pages.retain(|key, _| key >> (64 - level) == 0);
        }
        for (key, pages) in sorted(&other.pages) {
            self.add(key, pages);
        }
    }
}

fn sorted(counts: &HashMap<u64, u32>) -> Vec<(u64, u32)> {
    let mut entries: Vec<_> = counts.keys().map(|key| (*key, counts[key])).collect();
    entries.sort_unstable();
    entries
}

/// Counts lines by host; see the module's documentation.
#[derive(Debug, Clone)]
pub struct SiteLinesLearner {
    options: SiteLinesOptions,
    /// Pages by host.
    hosts: Counts,
    /// Pages by host and line. The host comes with the key, because the share is of its pages.
    lines: Counts,
    host_of_line: HashMap<u64, u64>,
    keys: Vec<u64>,
}

impl SiteLinesLearner {
    /// Takes up to `memory` bytes: an eighth of it for hosts, the rest for lines.
    pub fn new(options: SiteLinesOptions, memory: usize) -> Self {
        let for_hosts = memory / 8;
        Self {
            options,
            hosts: Counts::new(for_hosts),
            lines: Counts::new((memory - for_hosts) / 2),
            host_of_line: HashMap::new(),
            keys: Vec::new(),
        }
    }

    /// Counts a page. A line that stands on it twice counts once.
    pub fn add(&mut self, host: &str, text: &str) {
        let host_key = host_key(host);
        self.hosts.add(host_key, 1);
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        for_each_line(text, self.options.edge_lines, |line, is_looked_at| {
            if is_looked_at {
                keys.push(line_key(host_key, line));
            }
        });
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            self.add_line(*key, host_key, 1);
        }
        self.keys = keys;
    }

    fn add_line(&mut self, key: u64, host_key: u64, pages: u32) {
        if self.lines.keeps(key) {
            self.host_of_line.insert(key, host_key);
        }
        self.forget_hosts_after(|lines| lines.add(key, pages));
    }

    /// Changes the counts of lines, and drops the hosts of those that went.
    fn forget_hosts_after(&mut self, change: impl FnOnce(&mut Counts)) {
        let level = self.lines.level;
        change(&mut self.lines);
        if self.lines.level > level {
            self.host_of_line.retain(|key, _| self.lines.pages.contains_key(key));
        }
    }

    /// Adds what another learner with the same options and memory has seen.
    pub fn merge(&mut self, other: &Self) {
        self.hosts.merge(&other.hosts);
        for (key, _) in sorted(&other.lines.pages) {
            self.host_of_line.insert(key, other.host_of_line[&key]);
        }
        self.forget_hosts_after(|lines| lines.merge(&other.lines));
        self.host_of_line.retain(|key, _| self.lines.pages.contains_key(key));
    }

    /// Share of hosts and of lines that are still counted; below 1, the memory was too small for all of them.
    pub fn kept_share(&self) -> (f64, f64) {
        (0.5_f64.powi(self.hosts.level as i32), 0.5_f64.powi(self.lines.level as i32))
    }

    /// The lines that are shared by what was seen.
    pub fn finish(&self) -> SiteLines {
        let mut keys: Vec<u64> = sorted(&self.lines.pages)
            .into_iter()
            .filter(|(key, pages)| {
                let of = self.hosts.pages.get(&self.host_of_line[key]).copied();
                *pages >= self.options.min_pages.max(2)
                    && of.is_some_and(|of| f64::from(*pages) >= self.options.min_share * f64::from(of))
            })
            .map(|(key, _)| key)
            .collect();
        keys.shrink_to_fit();
        SiteLines { edge_lines: self.options.edge_lines, keys }
    }
}

/// Lines to remove, by host; shared by threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteLines {
    edge_lines: Option<u32>,
    /// Of host and line, sorted.
    keys: Vec<u64>,
}

impl SiteLines {
    /// The name of the counter of lines that were removed.
    pub const COUNTER: &'static str = "site_lines_removed";

    /// How many lines are known, over all hosts.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The page without the lines that its host's pages share, and how many were removed; borrowed if none was.
    ///
    /// The lines that are left keep their order and their bytes.
    pub fn apply<'t>(&self, host: &str, text: &'t str) -> (Cow<'t, str>, u32) {
        if self.keys.is_empty() {
            return (Cow::Borrowed(text), 0);
        }
        let host_key = host_key(host);
        let mut removed = 0;
        let mut edited: Option<String> = None;
        let start_of = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
        for_each_line(text, self.edge_lines, |line, is_looked_at| {
            if is_looked_at && self.keys.binary_search(&line_key(host_key, line)).is_ok() {
                removed += 1;
                edited.get_or_insert_with(|| text[..start_of(line)].to_owned());
            } else if let Some(edited) = &mut edited {
                edited.push_str(line);
            }
        });
        (edited.map_or(Cow::Borrowed(text), Cow::Owned), removed)
    }

    /// The bytes of a file: magic, edge lines plus one (u32; 0: all lines), number of keys (u64), keys (u64 each), and the
    /// xxh3-64 of all before; numbers are little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28 + 8 * self.keys.len());
        bytes.extend(MAGIC);
        bytes.extend(self.edge_lines.map_or(0, |n| n.saturating_add(1)).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        self.keys.iter().for_each(|key| bytes.extend(key.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SiteLinesError> {
        let (name, version) = bytes.get(..8).ok_or(SiteLinesError::Magic)?.split_at(7);
        if name != &MAGIC[..7] {
            return Err(SiteLinesError::Magic);
        }
        if version[0] != MAGIC[7] {
            return Err(SiteLinesError::Version(version[0]));
        }
        let (body, checksum) = bytes.split_last_chunk::<8>().ok_or(SiteLinesError::Damaged)?;
        if body.len() < 20 || xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(SiteLinesError::Damaged);
        }
        let (edge_lines, rest) = body[8..].split_first_chunk::<4>().ok_or(SiteLinesError::Damaged)?;
        let (n_keys, keys) = rest.split_first_chunk::<8>().ok_or(SiteLinesError::Damaged)?;
        let (keys, surplus) = keys.as_chunks::<8>();
        if !surplus.is_empty() || keys.len() as u64 != u64::from_le_bytes(*n_keys) {
            return Err(SiteLinesError::Damaged);
        }
        let keys = keys.iter().map(|key| u64::from_le_bytes(*key)).collect();
        Ok(Self { edge_lines: u32::from_le_bytes(*edge_lines).checked_sub(1), keys })
    }
}

fn host_key(host: &str) -> u64 {
    xxh3_64(host.as_bytes())
}

fn line_key(host_key: u64, line: &str) -> u64 {
    xxh3_64_with_seed(line.trim().as_bytes(), host_key)
}

/// Hands over every line with its LF, and whether it is one to look at: not blank, and near enough to an end.
fn for_each_line<'t>(text: &'t str, edge_lines: Option<u32>, mut f: impl FnMut(&'t str, bool)) {
    let is_blank = |line: &str| line.trim().is_empty();
    // Lines that start here or behind are among the last ones.
    let tail = edge_lines.map_or(0, |n| {
        let mut start = text.len();
        let mut left = n;
        for line in text.split_inclusive('\n').rev() {
            if left == 0 {
                break;
            }
            start -= line.len();
            left -= u32::from(!is_blank(line));
        }
        start
    });
    let (mut at, mut seen) = (0, 0);
    for line in text.split_inclusive('\n') {
        let is_filled = !is_blank(line);
        f(line, is_filled && (at >= tail || edge_lines.is_none_or(|n| seen < n)));
        at += line.len();
        seen += u32::from(is_filled);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(i: usize) -> String {
        format!(
            "Home | About\n\nStory {i}\nIt was day {i}.\nShared middle\nEnd of {i}\nSo it goes {i}\n  © us\nJobs"
        )
    }

    fn learn(options: SiteLinesOptions, memory: usize) -> SiteLinesLearner {
        let mut learner = SiteLinesLearner::new(options, memory);
        (0..10).for_each(|i| learner.add("a.org", &page(i)));
        (0..2).for_each(|i| learner.add("b.org", &page(i)));
        learner
    }

    #[test]
    fn removes_what_pages_share_at_their_edges() {
        let options = SiteLinesOptions { edge_lines: Some(3), ..SiteLinesOptions::default() };
        let lines = learn(options, 1 << 20).finish();
        assert_eq!(lines.len(), 3);
        let page_77 = page(77);
        let (text, removed) = lines.apply("a.org", &page_77);
        assert_eq!(text, "\nStory 77\nIt was day 77.\nShared middle\nEnd of 77\nSo it goes 77\n");
        assert_eq!(removed, 3);
        for host in ["b.org", "c.org"] {
            assert!(matches!(lines.apply(host, &page(1)), (Cow::Borrowed(_), 0)), "{host}");
        }
        assert_eq!(lines.apply("a.org", "").0, "");
        assert_eq!(lines.apply("a.org", "Jobs").0, "");
    }

    #[test]
    fn removes_anywhere_and_needs_its_share() {
        let anywhere = SiteLinesOptions { edge_lines: None, ..SiteLinesOptions::default() };
        assert_eq!(learn(anywhere.clone(), 1 << 20).finish().apply("a.org", &page(7)).1, 4);
        let mut learner = learn(anywhere, 1 << 20);
        (0..30).for_each(|i| learner.add("a.org", &format!("other {i}")));
        assert!(learner.finish().is_empty(), "10 of 40 pages are too few");
    }

    #[test]
    fn files() {
        let lines = learn(SiteLinesOptions::default(), 1 << 20).finish();
        let bytes = lines.to_bytes();
        assert_eq!(SiteLines::from_bytes(&bytes), Ok(lines));
        assert_eq!(SiteLines::from_bytes(b"{}"), Err(SiteLinesError::Magic));
        for n in 8..bytes.len() {
            assert_eq!(SiteLines::from_bytes(&bytes[..n]), Err(SiteLinesError::Damaged), "{n} bytes");
        }
        let mut newer = bytes.clone();
        newer[7] = 2;
        assert_eq!(SiteLines::from_bytes(&newer), Err(SiteLinesError::Version(2)));
        let mut flipped = bytes;
        flipped[21] ^= 1;
        assert_eq!(SiteLines::from_bytes(&flipped), Err(SiteLinesError::Damaged));
    }

    proptest! {
        #[test]
        fn order_parts_and_memory(
            pages in prop::collection::vec((0..4_usize, prop::collection::vec(0..12_u8, 0..8)), 0..60),
            memory in prop::sample::select(vec![1 << 20, 4000, 1200, 0]),
            cut in 0..60_usize,
        ) {
            let options = SiteLinesOptions { edge_lines: Some(2), min_pages: 2, min_share: 0.1 };
            let text = |lines: &[u8]| lines.iter().map(|n| if *n == 0 { "\n".to_owned() } else { format!("l{n}\n") }).collect::<String>();
            let learn = |pages: &[(usize, Vec<u8>)]| {
                let mut learner = SiteLinesLearner::new(options.clone(), memory);
                pages.iter().for_each(|(host, lines)| learner.add(["a", "b", "c", "d"][*host], &text(lines)));
                learner
            };
            let whole = learn(&pages).finish();
            let (left, right) = pages.split_at(cut.min(pages.len()));
            let mut merged = learn(right);
            merged.merge(&learn(left));
            prop_assert_eq!(&merged.finish(), &whole);
            let all = SiteLinesLearner { ..learn(&pages) };
            prop_assert!(all.lines.pages.len() <= all.lines.max_entries.max(1));
            prop_assert_eq!(all.host_of_line.len(), all.lines.pages.len());
            for (host, lines) in &pages {
                let text = text(lines);
                let (edited, removed) = whole.apply(["a", "b", "c", "d"][*host], &text);
                prop_assert_eq!(edited.lines().count() + removed as usize, text.lines().count());
            }
        }
    }
}
