//! The second pass: repeated spans are cut out of the documents, or marked in them.

use std::sync::Arc;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work};
use serde::Serialize;

use super::{Repeats, SpanAction, SubstringSummary, SubstringUnit};
use crate::error::{Error, Result};
use crate::twopass::Seen;
use crate::words::placed_units;

/// Sends every document to the gate, which knows where its repeats are.
#[derive(Debug)]
pub struct SubstringMapper;

impl Mapper for SubstringMapper {
    type Work = ();
    type Scratch = ();

    fn map(&self, _: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<()> {
        Work::Pending(())
    }
}

/// Takes the proof of each span: `start`, `end`, `dup_of`, `offset` in bytes, and its `text`.
pub trait SpanLog: Send {
    /// # Errors
    /// The log could not be written; the run ends.
    fn write(&mut self, doc: &Document<'_>, proof: &Dropped) -> curate_core::Result<()>;

    /// Completes the log.
    ///
    /// # Errors
    /// The log could not be written.
    fn finish(self: Box<Self>) -> curate_core::Result<()>;
}

/// Cuts or marks what [`RepeatFinder`](super::RepeatFinder) found; it must see the same documents in the same order.
pub struct SubstringGate {
    repeats: Arc<Repeats>,
    summary: SubstringSummary,
    log: Option<Box<dyn SpanLog>>,
    document: u64,
    segment: u64,
    seen: Seen,
}

/// A piece of a text, in bytes, and where it was first.
#[derive(Serialize)]
struct Piece {
    start: usize,
    end: usize,
    dup_of: String,
    offset: u64,
}

impl SubstringGate {
    pub fn new(repeats: Arc<Repeats>) -> Self {
        let summary = repeats.summary.clone();
        Self { repeats, summary, log: None, document: 0, segment: 0, seen: Seen::default() }
    }

    /// Writes the proofs of spans to `log` from now on.
    pub fn set_log(&mut self, log: Box<dyn SpanLog>) {
        self.log = Some(log);
    }

    /// What was found, and done so far.
    pub fn summary(&self) -> &SubstringSummary {
        &self.summary
    }

    /// Call it after the last document, before the output counts as complete.
    ///
    /// # Errors
    /// The documents were not those of the first pass.
    pub fn check(&self) -> Result<()> {
        let expected = self.summary.documents;
        match self.document == expected && self.seen.digest() == self.repeats.seen {
            true => Ok(()),
            false => Err(Error::InputsChanged { first: expected, second: self.document }),
        }
    }

    /// Completes the log.
    ///
    /// # Errors
    /// Those of the log.
    pub fn finish_log(&mut self) -> curate_core::Result<()> {
        self.log.take().map_or(Ok(()), SpanLog::finish)
    }

    fn decide(&mut self, doc: &mut Document<'_>) -> curate_core::Result<Verdict> {
        let changed = || curate_core::Error::from(Error::Changed { id: doc.id().to_owned() });
        if self.document >= self.summary.documents {
            return Err(changed());
        }
        self.seen.add(doc);
        let (start, end) = (self.repeats.start(self.document)?, self.repeats.start(self.document + 1)?);
        self.document += 1;
        let segments = cover(self.take_segments(start, end)?);
        if segments.is_empty() {
            return Ok(Verdict::Keep);
        }
        let text = doc.text();
        let count = (end - start) as usize;
        let mut units = Vec::new();
        let found = match self.repeats.options.unit {
            SubstringUnit::Bytes => text.len(),
            SubstringUnit::Words(profile) => {
                placed_units(profile, text, &mut Vec::new(), &mut units);
                units.len()
            }
        };
        if found != count {
            return Err(changed());
        }
        let mut pieces = Vec::new();
        for (from, to, copy) in segments {
            let (from, to) = ((from - start) as usize, (to - start) as usize);
            let (dup_of, mut offset) = self.repeats.place(copy)?;
            let (mut piece_start, mut piece_end) = match units.is_empty() {
                true => (from, to),
                false => (units[from].start as usize, units[to - 1].end as usize),
            };
            while !text.is_char_boundary(piece_start) {
                (piece_start, offset) = (piece_start + 1, offset + 1);
            }
            while !text.is_char_boundary(piece_end) {
                piece_end -= 1;
            }
            if piece_start < piece_end {
                pieces.push(Piece { start: piece_start, end: piece_end, dup_of, offset });
            }
        }
        self.act(doc, &pieces)
    }

    /// First unit, end and first copy of each segment of the document with these units.
    fn take_segments(&mut self, start: u64, end: u64) -> Result<Vec<(u64, u64, u64)>> {
        let length = self.repeats.options.length as u64;
        let mut segments = Vec::new();
        while let Some([at, first, windows]) = self.repeats.segment(self.segment)?.filter(|s| s[0] < end) {
            debug_assert!(at >= start, "segments come in the order of documents");
            segments.push((at, at + windows + length - 1, first));
            self.segment += 1;
        }
        Ok(segments)
    }

    fn act(&mut self, doc: &mut Document<'_>, pieces: &[Piece]) -> curate_core::Result<Verdict> {
        let Some(first) = pieces.first() else { return Ok(Verdict::Keep) };
        let text = doc.text();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for piece in pieces {
            match spans.last_mut() {
                Some(span) if piece.start <= span.1 => span.1 = span.1.max(piece.end),
                _ => spans.push((piece.start, piece.end)),
            }
        }
        let cut: usize = spans.iter().map(|(start, end)| end - start).sum();
        let value = |piece: &Piece| {
            vec![
                ("start", Value::Count(piece.start as u64)),
                ("end", Value::Count(piece.end as u64)),
                ("dup_of", Value::Text(piece.dup_of.clone())),
                ("offset", Value::Count(piece.offset)),
            ]
        };
        if let Some(log) = &mut self.log {
            for piece in pieces {
                let mut proof = value(piece);
                proof.push(("text", Value::Text(text[piece.start..piece.end].to_owned())));
                log.write(doc, &Dropped { reason: "repeated_substring".into(), proof })?;
            }
        }
        let summary = &mut self.summary;
        if let SpanAction::Mark(field) = &self.repeats.options.action {
            let marks = serde_json::to_string(pieces).expect("numbers and text are JSON");
            doc.set_field(field, marks);
        } else {
            let (mut rest, mut at) = (String::with_capacity(text.len() - cut), 0);
            for &(start, end) in &spans {
                rest.push_str(&text[at..start]);
                at = end;
            }
            rest.push_str(&text[at..]);
            if rest.chars().filter(|c| !c.is_whitespace()).count() < self.repeats.options.min_chars {
                summary.dropped += 1;
                let mut proof = vec![("rule", Value::Text("substring".to_owned()))];
                proof.push(("value", Value::Number(cut as f64 / text.len() as f64)));
                proof.extend(value(first));
                return Ok(Verdict::Drop(Dropped { reason: "repeated_substrings".into(), proof }));
            }
            doc.set_text(rest);
        }
        summary.edited += 1;
        summary.spans += spans.len() as u64;
        summary.span_bytes += cut as u64;
        Ok(Verdict::Keep)
    }
}

/// The fewest of the segments, which come by their start, that cover what all cover.
fn cover(segments: Vec<(u64, u64, u64)>) -> Vec<(u64, u64, u64)> {
    let mut chosen: Vec<(u64, u64, u64)> = Vec::new();
    for segment in segments {
        if chosen.last().is_some_and(|last| segment.1 <= last.1) {
            continue;
        }
        // The last one is not needed if the one before it overlaps this one. To touch is not enough: what stands between
        // two words is cut if one segment holds both.
        if chosen.len() > 1 && chosen[chosen.len() - 2].1 > segment.0 {
            chosen.pop();
        }
        chosen.push(segment);
    }
    chosen
}

impl Gate for SubstringGate {
    type Work = ();

    fn admit(&mut self, doc: &mut Document<'_>, (): ()) -> curate_core::Result<Verdict> {
        self.decide(doc)
    }
}
