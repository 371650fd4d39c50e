//! Deduplication that must see every document before it can say which stay: `--keep`, `--cluster components`, `--semantic`,
//! `--substring`.
//!
//! The stages before it, and what it needs to know, run over the inputs once for each such stage; then all stages run, with
//! what was decided. Stages are made anew for every pass and give the same every time, so nothing but streams is copied.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use curate_core::Source;
use curate_dedup::{Decisions, Order, Repeats};
use curate_io::{DocumentSink, FieldPath, Inputs, Records, Resolved, field_of};
use serde::{Serialize, Serializer};

use crate::chain::{Ending, Kind, Link, Pass, default_threads};
use crate::cli::StreamOptions;
use crate::commands::read::ReadOptions;
use crate::failure::Result;
use crate::signals::{self, WatchedRead};

/// What the progress line of a first pass is called.
pub(crate) const FIRST_PASS: &str = "dedup (first pass)";

/// Which of several copies stays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Keep {
    First,
    Longest,
    Max(String),
    Min(String),
}

impl Keep {
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let field = |field: &str| match FieldPath::parse(field) {
            Ok(_) => Ok(field.to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match text.split_once(':') {
            None if text == "first" => Ok(Self::First),
            None if text == "longest" => Ok(Self::Longest),
            Some(("max", name)) => field(name).map(Self::Max),
            Some(("min", name)) => field(name).map(Self::Min),
            _ => Err("expected first, longest, max:FIELD or min:FIELD".to_owned()),
        }
    }

    pub(crate) fn order(&self) -> Result<Order> {
        let number = |field: &str| -> Result<curate_dedup::NumberOf> {
            let path = FieldPath::parse(field)?;
            Ok(Box::new(move |doc| field_of(doc, &path)?.trim().parse().ok()))
        };
        Ok(match self {
            Self::First => Order::Input,
            Self::Longest => Order::Longest,
            Self::Max(field) => Order::Largest(number(field)?),
            Self::Min(field) => Order::Smallest(number(field)?),
        })
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::First => serializer.serialize_str("first"),
            Self::Longest => serializer.serialize_str("longest"),
            Self::Max(field) => serializer.collect_str(&format_args!("max:{field}")),
            Self::Min(field) => serializer.collect_str(&format_args!("min:{field}")),
        }
    }
}

/// What one stage had to see everything for.
pub(crate) enum Answer {
    Decisions(Arc<Decisions>),
    Repeats(Arc<Repeats>),
}

/// What has been decided, in the order of the stages that asked.
#[derive(Default)]
pub(crate) struct Settled(Vec<Answer>);

impl Settled {
    /// For the stages to ask, from the first one on.
    pub(crate) fn ask(&self) -> Asked<'_> {
        Asked(self.0.iter())
    }

    pub(crate) fn add(&mut self, answer: Answer) {
        self.0.push(answer);
    }
}

/// Answers that stages have not asked for yet. Stages ask in the same order in every pass, and so get their own.
pub(crate) struct Asked<'s>(std::slice::Iter<'s, Answer>);

impl Asked<'_> {
    /// The decisions for the next stage that needs any; `None` if they are still to be made.
    pub(crate) fn next(&mut self) -> Option<&Arc<Decisions>> {
        self.0.next().map(|answer| match answer {
            Answer::Decisions(decisions) => decisions,
            Answer::Repeats(_) => unreachable!("the stage that asks here gathers decisions"),
        })
    }

    /// The repeats for the next stage, which cuts them; `None` if they are still to be found.
    pub(crate) fn repeats(&mut self) -> Option<Arc<Repeats>> {
        self.0.next().map(|answer| match answer {
            Answer::Repeats(repeats) => Arc::clone(repeats),
            Answer::Decisions(_) => unreachable!("the stage that asks here finds repeats"),
        })
    }
}

/// True if the last link must see everything first, and has not.
pub(crate) fn is_unsettled(links: &[Link]) -> bool {
    links.last().is_some_and(|link| must_see_all(&link.kind))
}

/// True of the first pass of a stage that needs two.
pub(super) fn must_see_all(kind: &Kind) -> bool {
    matches!(kind, Kind::Gather(..) | Kind::FindRepeats(..))
}

/// A chain whose decisions are to be made.
pub(crate) struct Settling<'s> {
    /// What the command is called.
    pub(crate) command: &'static str,
    pub(crate) stream: &'s StreamOptions,
    pub(crate) read: &'s ReadOptions,
    /// As the chain will have it: it may decide what a document is called.
    pub(crate) canonical: bool,
}

impl Settling<'_> {
    /// Calls `prepare` with what is settled until nothing is left to settle, and reads the inputs for each call but the last.
    /// If there is any, streams among the inputs are copied to `temp_dir` first.
    pub(crate) fn settle(
        &self,
        resolved: &mut Resolved,
        temp_dir: PathBuf,
        mut prepare: impl FnMut(Asked<'_>) -> Result<(Vec<Link>, Ending)>,
    ) -> Result<(Vec<Link>, Ending)> {
        let mut settled = Settled::default();
        let (mut links, mut ending) = prepare(settled.ask())?;
        while is_unsettled(&links) {
            for file in resolved.files.iter_mut().filter(|file| file.is_stream()) {
                let watch = |inner| Box::new(WatchedRead::new(inner)) as Box<dyn Read>;
                let spooled = file.spooled(&temp_dir, watch);
                // The end of a stream may be that of a command before us which the same signal has ended.
                signals::check()?;
                *file = spooled?;
            }
            let inputs = Inputs::new(resolved.files.clone(), self.read.input_options(self.stream)?);
            let codec = self.read.codec(self.stream, self.canonical)?;
            let name = if self.command == "dedup" { FIRST_PASS } else { self.command };
            let pass = Pass { command: name, stream: self.stream, progress: inputs.progress() };
            settled.add(gather(&pass, inputs, &codec, links)?);
            (links, ending) = prepare(settled.ask())?;
        }
        Ok((links, ending))
    }
}

/// Runs links of which the last one is to decide, and lets it.
pub(crate) fn gather(
    pass: &Pass<'_>,
    source: impl Source + Send + 'static,
    codec: &Records,
    mut links: Vec<Link>,
) -> Result<Answer> {
    pass.run(source, codec, &mut links, &mut DocumentSink::nowhere())?;
    match links.pop() {
        Some(Link { kind: Kind::Gather(_, _, gate), .. }) => {
            let threads = pass.stream.threads.map_or_else(default_threads, usize::from);
            Ok(Answer::Decisions(Arc::new(gate.with_threads(threads).decide(signals::check)?)))
        }
        Some(Link { kind: Kind::FindRepeats(_, finder), .. }) => {
            Ok(Answer::Repeats(Arc::new(finder.finish(signals::check)?)))
        }
        _ => unreachable!("called for links that are unsettled"),
    }
}

/// Fails if the second pass did not see the documents of the first.
pub(crate) fn check(links: &[Link]) -> Result<()> {
    for link in links {
        match &link.kind {
            Kind::Decided(_, gate) => gate.check()?,
            Kind::Substrings(gate, _) => gate.check()?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_keep_is_parsed_and_written_back() {
        for text in ["first", "longest", "max:score", "min:metadata.rank", "max:a:b"] {
            let keep = Keep::parse(text).unwrap();
            assert_eq!(serde_json::to_value(&keep).unwrap(), text);
        }
        for text in ["", "last", "max", "max:", "min:a..b", "Longest", "mid:x"] {
            assert!(Keep::parse(text).is_err(), "{text}");
        }
    }
}
