//! Reading documents without writing any: what `stats`, `inspect` and `verify` share.

use curate_core::{Gate, Mapper, OnError, Report, RunOptions, Stage};
use curate_io::{DocumentSink, Inputs, Records};

use crate::chain::{default_threads, find_inputs};
use crate::cli::{StreamOptions, VoiceOptions};
use crate::commands::read::ReadOptions;
use crate::failure::Result;
use crate::signals::Watched;
use crate::ui::ProgressLine;

/// Documents about to be read.
pub(crate) struct Scan<'s> {
    /// What the progress line is called.
    pub(crate) label: &'s str,
    pub(crate) inputs: Inputs,
    pub(crate) codec: Records,
    pub(crate) threads: Option<u16>,
    pub(crate) on_error: OnError,
    pub(crate) voice: VoiceOptions,
}

impl<'s> Scan<'s> {
    /// The documents that a command's input options name.
    pub(crate) fn of(label: &'s str, stream: &'s StreamOptions) -> Result<Self> {
        let read = ReadOptions::default();
        Ok(Self {
            label,
            inputs: Inputs::new(find_inputs(stream)?.files, read.input_options(stream)?),
            codec: read.codec(stream, false)?,
            threads: stream.threads,
            on_error: stream.on_error.into(),
            voice: stream.voice.clone(),
        })
    }

    /// Runs `mapper` on any thread and `gate` in input order over all documents.
    pub(crate) fn run<M, G>(self, mapper: M, gate: &mut G) -> Result<Report>
    where
        M: Mapper,
        G: Gate<Work = M::Work>,
    {
        let threads = self.threads.map_or_else(default_threads, usize::from);
        let options = RunOptions { on_error: self.on_error, ..RunOptions::new(threads) };
        let line =
            ProgressLine::start(self.voice.progress, self.voice.quiet, self.label, self.inputs.progress());
        let mut inputs = Watched::new(self.inputs);
        let stages = vec![Stage::gated(self.label, mapper, gate)];
        let mut sink = DocumentSink::nowhere();
        let report = curate_core::run(&mut inputs, &self.codec, stages, &mut sink, &options)?;
        drop(line);
        Ok(report)
    }
}
