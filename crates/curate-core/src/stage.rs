//! A stage: a half that any thread may run, and a half that sees the results in input order.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Document, Result};

/// What a stage decides about a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Keep,
    Drop(Dropped),
}

impl Verdict {
    /// A drop for `reason`, with nothing to prove.
    pub fn drop(reason: impl Into<Arc<str>>) -> Self {
        Self::Drop(Dropped { reason: reason.into(), proof: Vec::new() })
    }
}

/// Why a document was dropped, and the facts that prove it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// A snake_case phrase that is true of the document: `too_few_words`.
    pub reason: Arc<str>,
    /// Named facts: the value and the threshold, or the older document and the similarity.
    pub proof: Vec<(&'static str, Value)>,
}

/// One fact of a proof.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
    Count(u64),
}

/// What a mapper hands on: a verdict, or something that its gate must judge in input order.
#[derive(Debug)]
pub enum Work<T> {
    Decided(Verdict),
    Pending(T),
}

impl<T> Work<T> {
    pub fn keep() -> Self {
        Self::Decided(Verdict::Keep)
    }
}

/// The half of a stage that looks at one document at a time, on any thread and in any order.
///
/// It may edit the document. What it returns must depend on the document alone, or the output would depend on the
/// number of threads. `scratch` is reused from document to document: clear its buffers, do not rebuild them.
pub trait Mapper: Sync {
    /// What the gate needs to know of a document; [`Never`] for a stage without a gate.
    type Work: Send + 'static;
    /// Buffers that a worker keeps between documents.
    type Scratch: Default + Send + 'static;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut Self::Scratch,
        counters: &mut Counters,
    ) -> Work<Self::Work>;
}

/// A mapper lent to a run.
impl<M: Mapper> Mapper for &M {
    type Work = M::Work;
    type Scratch = M::Scratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut Self::Scratch,
        counters: &mut Counters,
    ) -> Work<Self::Work> {
        (**self).map(doc, scratch, counters)
    }
}

/// The half of a stage that sees documents in input order, one at a time.
///
/// Called only for documents whose mapper returned [`Work::Pending`]; it may edit them. Whatever state it keeps grows as its own
/// documentation says. An error ends the run.
pub trait Gate: Send {
    type Work: 'static;

    fn admit(&mut self, doc: &mut Document<'_>, work: Self::Work) -> Result<Verdict>;
}

/// A gate lent to a run: its owner can ask it afterwards what it saw.
impl<G: Gate + ?Sized> Gate for &mut G {
    type Work = G::Work;

    fn admit(&mut self, doc: &mut Document<'_>, work: Self::Work) -> Result<Verdict> {
        (**self).admit(doc, work)
    }
}

/// The work of a mapper that always decides: it has no value.
#[derive(Debug)]
pub enum Never {}

/// The gate of a stage that has none.
#[derive(Debug)]
pub struct NoGate;

impl Gate for NoGate {
    type Work = Never;

    fn admit(&mut self, _doc: &mut Document<'_>, work: Never) -> Result<Verdict> {
        match work {}
    }
}

/// Named counts of what a mapper did, summed over all documents.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// Adds `n` to the count called `name`.
    pub fn add(&mut self, name: &'static str, n: u64) {
        *self.0.entry(name).or_default() += n;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            self.add(name, *n);
        }
    }

    pub(crate) fn into_map(self) -> BTreeMap<Cow<'static, str>, u64> {
        self.0.into_iter().map(|(name, n)| (Cow::Borrowed(name), n)).collect()
    }
}

/// A named stage of a chain: a mapper, and a gate if it needs one.
pub struct Stage<'s> {
    name: String,
    mapper: Box<dyn AnyMapper + 's>,
    gate: Option<Box<dyn AnyGate + 's>>,
}

impl<'s> Stage<'s> {
    /// A stage that decides document by document.
    pub fn filter<M>(name: impl Into<String>, mapper: M) -> Self
    where
        M: Mapper<Work = Never> + 's,
    {
        Self { name: name.into(), mapper: Box::new(mapper), gate: None }
    }

    /// A stage whose gate judges the mapper's work in input order.
    pub fn gated<M, G>(name: impl Into<String>, mapper: M, gate: G) -> Self
    where
        M: Mapper + 's,
        G: Gate<Work = M::Work> + 's,
    {
        Self { name: name.into(), mapper: Box::new(mapper), gate: Some(Box::new(gate)) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn into_parts(self) -> (String, Box<dyn AnyMapper + 's>, Option<Box<dyn AnyGate + 's>>) {
        (self.name, self.mapper, self.gate)
    }
}

/// Work or scratch of some mapper; only its own stage can open it.
pub(crate) type Opaque = Box<dyn Any + Send>;

/// A mapper whose types are erased, so that a chain can hold any of them.
pub(crate) trait AnyMapper: Sync {
    fn scratch(&self) -> Opaque;
    fn map(&self, doc: &mut Document<'_>, scratch: &mut Opaque, counters: &mut Counters) -> Work<Opaque>;
}

impl<M: Mapper> AnyMapper for M {
    fn scratch(&self) -> Opaque {
        Box::<M::Scratch>::default()
    }

    fn map(&self, doc: &mut Document<'_>, scratch: &mut Opaque, counters: &mut Counters) -> Work<Opaque> {
        let scratch = scratch.downcast_mut().expect("made by this mapper's scratch()");
        match Mapper::map(self, doc, scratch, counters) {
            Work::Decided(verdict) => Work::Decided(verdict),
            Work::Pending(work) => Work::Pending(Box::new(work)),
        }
    }
}

/// A gate whose types are erased.
pub(crate) trait AnyGate: Send {
    fn admit(&mut self, doc: &mut Document<'_>, work: Opaque) -> Result<Verdict>;
}

impl<G: Gate> AnyGate for G {
    fn admit(&mut self, doc: &mut Document<'_>, work: Opaque) -> Result<Verdict> {
        let work = work.downcast().expect("Stage::gated ties the gate's work to its mapper's");
        Gate::admit(self, doc, *work)
    }
}
