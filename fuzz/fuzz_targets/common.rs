//! What every reader must keep to, whatever the bytes.

use std::sync::Arc;

use curate_core::{Document, Dropped, Malformed, OnError, RunOptions, Sink};
use curate_io::{Extraction, Extractor, Format, InputFile, InputOptions, Inputs, MainText, Page, Records};

/// Counts what it is given.
#[derive(Default)]
struct Counting(u64);

impl Sink for Counting {
    fn keep(&mut self, encoded: &[u8]) -> curate_core::Result<()> {
        assert!(encoded.ends_with(b"\n"), "a kept document ends in a line end");
        self.0 += encoded.iter().filter(|b| **b == b'\n').count() as u64;
        Ok(())
    }

    fn dropped(&mut self, _: usize, _: &Document<'_>, _: &Dropped) -> curate_core::Result<()> {
        unreachable!("there is no stage")
    }

    fn malformed(&mut self, _: &[u8], _: &Malformed) -> curate_core::Result<()> {
        Ok(())
    }
}

/// Takes the whole page for its text: extraction has properties of its own.
struct Whole;

impl Extractor for Whole {
    fn extract(&self, page: Page<'_>) -> Extraction {
        Extraction::Text(MainText { text: page.html.to_owned(), ..MainText::default() })
    }
}

/// Reads `bytes` as an input of `format`, or of what they look like: every record is kept, set aside or malformed.
pub(crate) fn read(format: Option<Format>, bytes: &[u8]) {
    for block_bytes in [64, 1 << 16] {
        let options =
            InputOptions { format, block_bytes, max_record_bytes: 1 << 20, ..InputOptions::default() };
        let file = InputFile::in_memory("fuzz", bytes.into());
        let mut inputs = Inputs::new(vec![file], options);
        let codec =
            Records::new("text", "id").expect("both are paths").canonical().with_extractor(Arc::new(Whole));
        let mut sink = Counting::default();
        let options = RunOptions { on_error: OnError::Skip, ..RunOptions::new(1) };
        let report = curate_core::run(&mut inputs, &codec, Vec::new(), &mut sink, &options)
            .expect("no fault ends a run");
        let set_aside: u64 = report.set_aside.values().sum();
        assert_eq!(report.read, report.kept + report.malformed + set_aside);
        assert_eq!(sink.0, report.kept);
    }
}
