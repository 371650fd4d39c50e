//! The half of the stage that any thread may run: from a text to all that the gate needs to judge it.

use curate_core::{Counters, Document, Mapper, Work, content_key};

use crate::banding::Banding;
use crate::error::Result;
use crate::minhash::MinHasher;
use crate::options::MinHashOptions;
use crate::shingle::{ShingleBuffers, Shingler};

/// What MinHash deduplication knows of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// One key for each band.
    pub band_keys: Box<[u64]>,
    /// The shingle set: ascending, each once, never empty.
    pub shingles: Box<[u64]>,
}

/// Makes sketches; the sketch depends on the text and the options alone.
#[derive(Debug, Clone)]
pub struct Sketcher {
    shingler: Shingler,
    hasher: MinHasher,
}

/// Buffers of [`Sketcher::sketch`], to be reused from text to text.
#[derive(Debug, Default)]
pub struct SketchBuffers {
    shingles: ShingleBuffers,
    signature: Vec<u32>,
    keys: Vec<u64>,
}

impl Sketcher {
    /// An error if the options are out of range.
    pub fn new(options: &MinHashOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            shingler: Shingler::new(options.profile, options.ngram),
            hasher: MinHasher::new(options.banding()?, options.seed),
        })
    }

    pub fn banding(&self) -> Banding {
        self.hasher.banding()
    }

    pub fn sketch(&self, text: &str, buffers: &mut SketchBuffers) -> Sketch {
        let SketchBuffers { shingles, signature, keys } = buffers;
        let shingles = self.shingler.shingles(text, shingles);
        self.hasher.sign(shingles, signature);
        keys.clear();
        self.hasher.band_keys(signature, keys);
        Sketch { band_keys: keys.as_slice().into(), shingles: shingles.into() }
    }
}

/// The mapper of a deduplication; made by [`Deduplicator`](crate::Deduplicator).
#[derive(Debug)]
pub struct DedupMapper {
    pub(crate) sketcher: Option<Sketcher>,
}

/// What the mapper tells the gate about a document.
#[derive(Debug)]
pub struct DedupWork {
    pub(crate) key: u128,
    pub(crate) sketch: Option<Sketch>,
}

impl Mapper for DedupMapper {
    type Work = DedupWork;
    type Scratch = SketchBuffers;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut SketchBuffers,
        _counters: &mut Counters,
    ) -> Work<DedupWork> {
        let sketch = self.sketcher.as_ref().map(|sketcher| sketcher.sketch(doc.text(), scratch));
        Work::Pending(DedupWork { key: content_key(doc.text()), sketch })
    }
}
