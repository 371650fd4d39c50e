//! Documents out of formats that are one long run of ids: cut at the end-of-document id.

use std::path::Path;

use super::Importer;
use super::numbers::Number;
use crate::TokenId;
use crate::error::{Error, Result};

/// Which end of a document the end-of-document id marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EodPlace {
    /// The id comes before the document, as in llm.c's files.
    First,
    /// The id comes after the document, as in nanoGPT's.
    Last,
}

/// Ids taken from a file at once.
const BLOCK_TOKENS: usize = 1 << 16;

/// No document is this long: a wrong id or a wrong width is more likely, and its memory would have no bound.
const MAX_DOCUMENT_TOKENS: usize = 1 << 28;

/// Cuts the runs of ids of one split into documents. A document may go on in the next file.
pub(super) struct Cutter {
    place: EodPlace,
    pending: Vec<TokenId>,
    /// Whether a document was begun, perhaps an empty one.
    begun: bool,
    block: Vec<TokenId>,
}

impl Cutter {
    pub(super) fn new(place: EodPlace) -> Cutter {
        Cutter { place, pending: Vec::new(), begun: false, block: Vec::new() }
    }

    /// Takes the ids in `bytes`, which lie at byte `offset` of the file.
    pub(super) fn feed(
        &mut self,
        path: &Path,
        bytes: &[u8],
        offset: u64,
        number: Number,
        importer: &mut Importer<'_>,
    ) -> Result<()> {
        let vocab_size = importer.tokenizer().vocab_size;
        let mut at = offset;
        for piece in bytes.chunks(BLOCK_TOKENS * number.bytes()) {
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            number.read(path, piece, at, vocab_size, &mut block)?;
            self.take(path, &block, importer)?;
            self.block = block;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, mut tokens: &[TokenId], importer: &mut Importer<'_>) -> Result<()> {
        let eod = importer.tokenizer().eod;
        while let Some(at) = tokens.iter().position(|&id| id == eod) {
            self.pending.extend_from_slice(&tokens[..at]);
            self.begun |= at > 0;
            if self.begun || self.place == EodPlace::Last {
                self.emit(eod, importer)?;
            }
            self.begun = self.place == EodPlace::First;
            tokens = &tokens[at + 1..];
        }
        self.pending.extend_from_slice(tokens);
        self.begun |= !tokens.is_empty();
        if self.pending.len() > MAX_DOCUMENT_TOKENS {
            let problem = format!(
                "{MAX_DOCUMENT_TOKENS} ids without the end-of-document id {eod}: the wrong id, or the wrong width?"
            );
            return Err(Error::damaged(path, problem));
        }
        Ok(())
    }

    fn emit(&mut self, eod: TokenId, importer: &mut Importer<'_>) -> Result<()> {
        self.pending.push(eod);
        importer.document(&mut self.pending)?;
        self.pending.clear();
        self.begun = false;
        Ok(())
    }

    /// Hands over what is left: the last document of a stream whose documents begin with the id, or one that was not
    /// ended.
    pub(super) fn finish(mut self, importer: &mut Importer<'_>) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        importer.eod_added += u64::from(self.place == EodPlace::Last);
        let eod = importer.tokenizer().eod;
        self.emit(eod, importer)
    }
}
