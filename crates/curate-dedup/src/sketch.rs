//! The half of the stage that any thread may run: from a text to all that the gate needs to judge it.

use curate_core::{Counters, Document, Mapper, Work, content_key};

use crate::banding::Banding;
use crate::datatrove::DatatroveHasher;
use crate::error::Result;
use crate::minhash::MinHasher;
use crate::options::MinHashOptions;
use crate::shingle::{ShingleBuffers, Shingler};
use crate::words::Profile;

/// What MinHash deduplication knows of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// One key for each band; none for a text that is too short for the `datatrove` profile, which shares no band
    /// with anything.
    pub band_keys: Box<[u64]>,
    /// The shingle set: ascending, each once; empty only where there are no keys.
    pub shingles: Box<[u64]>,
}

/// Makes sketches; the sketch depends on the text and the options alone.
#[derive(Debug, Clone)]
pub struct Sketcher {
    shingler: Shingler,
    hasher: Hasher,
}

/// Whose permutations.
#[derive(Debug, Clone)]
enum Hasher {
    Own(MinHasher),
    Datatrove(DatatroveHasher),
}

/// Buffers of [`Sketcher::sketch`], to be reused from text to text.
#[derive(Debug, Default)]
pub struct SketchBuffers {
    shingles: ShingleBuffers,
    signature: Vec<u32>,
    signature_64: Vec<u64>,
    keys: Vec<u64>,
}

impl Sketcher {
    /// An error if the options are out of range.
    pub fn new(options: &MinHashOptions) -> Result<Self> {
        options.validate()?;
        let banding = options.banding()?;
        let hasher = match options.profile {
            Profile::Datatrove => {
                Hasher::Datatrove(DatatroveHasher::new(banding, options.ngram, options.seed)?)
            }
            Profile::Curate1 | Profile::Raw => Hasher::Own(MinHasher::new(banding, options.seed)),
        };
        Ok(Self { shingler: Shingler::new(options.profile, options.ngram), hasher })
    }

    pub fn banding(&self) -> Banding {
        match &self.hasher {
            Hasher::Own(hasher) => hasher.banding(),
            Hasher::Datatrove(hasher) => hasher.banding(),
        }
    }

    pub fn sketch(&self, text: &str, buffers: &mut SketchBuffers) -> Sketch {
        let (band_keys, shingles) = self.read(text, buffers);
        Sketch { band_keys: band_keys.into(), shingles: shingles.into() }
    }

    /// The band keys alone, for engines that compare no shingles: nothing is sorted, since repeats and order do not
    /// change a minimum.
    pub fn band_keys<'b>(&self, text: &str, buffers: &'b mut SketchBuffers) -> &'b [u64] {
        self.read_with(text, buffers, Shingler::unsorted).0
    }

    /// The band keys and the shingles of a text, for a caller who does not keep both.
    pub fn read<'b>(&self, text: &str, buffers: &'b mut SketchBuffers) -> (&'b [u64], &'b [u64]) {
        self.read_with(text, buffers, Shingler::shingles)
    }

    fn read_with<'b>(
        &self,
        text: &str,
        buffers: &'b mut SketchBuffers,
        shingles_of: impl for<'s> Fn(&Shingler, &str, &'s mut ShingleBuffers) -> &'s [u64],
    ) -> (&'b [u64], &'b [u64]) {
        let SketchBuffers { shingles, signature, signature_64, keys } = buffers;
        let shingles = shingles_of(&self.shingler, text, shingles);
        keys.clear();
        signature_64.clear();
        match &self.hasher {
            Hasher::Own(hasher) => {
                hasher.sign(shingles, signature);
                hasher.band_keys(signature, keys);
            }
            Hasher::Datatrove(_) if shingles.is_empty() => {}
            Hasher::Datatrove(hasher) => {
                hasher.sign(shingles, signature_64);
                hasher.band_keys(signature_64, keys);
            }
        }
        (keys, shingles)
    }
}

impl SketchBuffers {
    /// The minima of the text that was read last with the `datatrove` profile, for
    /// [`Representative::UnionBySize`](crate::Representative::UnionBySize); empty where it has none.
    pub fn datatrove_signature(&self) -> &[u64] {
        &self.signature_64
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
