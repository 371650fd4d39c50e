//! The stage: finds what a document shares with items, and hands it to the gate that counts and reports it.

use std::sync::Arc;

use curate_core::{Counters, Document, Mapper, Work};

use super::{Index, Leak, Scratch, merge};

/// Looks for items in documents; with a mask, replaces what they share.
#[derive(Debug, Clone)]
pub struct Decontaminator {
    pub index: Arc<Index>,
    /// Score from which a document is contaminated, 0 to 1.
    pub threshold: f32,
    /// What to put in the place of shared spans; `None` leaves the text alone.
    pub mask: Option<String>,
}

/// What one document shares with items, with the facts of its text before any masking.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaks {
    pub leaks: Vec<Leak>,
    /// For each leak, the spans in characters (code points) of the text.
    pub char_spans: Vec<Vec<(usize, usize)>>,
    /// For each leak, the text of its longest span.
    pub texts: Vec<String>,
}

impl Leaks {
    fn of(text: &str, leaks: Vec<Leak>) -> Self {
        let mut ends: Vec<usize> =
            leaks.iter().flat_map(|l| &l.spans).flat_map(|s| [s.start, s.end]).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut chars = Vec::with_capacity(ends.len());
        let (mut at, mut count) = (0, 0);
        for end in &ends {
            count += text[at..*end].chars().count();
            at = *end;
            chars.push(count);
        }
        let char_at = |byte: usize| chars[ends.binary_search(&byte).expect("an end of a span, from above")];
        let in_chars = |leak: &Leak| leak.spans.iter().map(|s| (char_at(s.start), char_at(s.end))).collect();
        let char_spans = leaks.iter().map(in_chars).collect();
        let longest = |leak: &Leak| {
            let span = leak.spans.iter().max_by_key(|s| (s.len(), std::cmp::Reverse(s.start)));
            text[span.expect("a leak has a span").clone()].to_owned()
        };
        let texts = leaks.iter().map(longest).collect();
        Self { leaks, char_spans, texts }
    }

    /// The leak with the best score; of equal ones the first.
    pub fn best(&self) -> usize {
        let better = |best: usize, i: usize| match self.leaks[i].score > self.leaks[best].score {
            true => i,
            false => best,
        };
        (0..self.leaks.len()).fold(0, better)
    }
}

impl Mapper for Decontaminator {
    type Work = Leaks;
    type Scratch = Scratch;

    fn map(&self, doc: &mut Document<'_>, scratch: &mut Scratch, counters: &mut Counters) -> Work<Leaks> {
        let leaks = self.index.find(doc.text(), self.threshold, scratch);
        if leaks.is_empty() {
            return Work::keep();
        }
        let leaks = Leaks::of(doc.text(), leaks);
        if let Some(mask) = &self.mask {
            let spans = merge(leaks.leaks.iter().flat_map(|leak| leak.spans.iter().cloned()).collect());
            counters.add("masked_spans", spans.len() as u64);
            let mut text = String::with_capacity(doc.text().len());
            let mut at = 0;
            for span in spans {
                text.push_str(&doc.text()[at..span.start]);
                text.push_str(mask);
                at = span.end;
            }
            text.push_str(&doc.text()[at..]);
            doc.set_text(text);
        }
        Work::Pending(leaks)
    }
}
