//! What the tests of several modules need.

#![allow(clippy::disallowed_methods)] // tests make files as they need them

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::{BpeTrainerOptions, CountScratch, LoadOptions, Tokenizer, WordCounter, train};

/// Text with several scripts, white space of all kinds, contractions, numbers and code.
pub(crate) const TEXT: &str = "The cat sat on the mat, and the hat sat on the cat. It's the cat's hat; they'll say so.\n\n\
    In 1984 there were 1,024 cats  and   2,048 hats.\r\n\tif (cat == hat) { return \"mat\"; }\n\
    Die Katze saß auf der Matte. Кошка сидела на коврике. 猫坐在垫子上。猫は帽子。 고양이 🐱🐱 é e\u{301} \u{a0}\u{3000} <|endoftext|>\n";

/// A small byte-level tokenizer, trained on [`TEXT`].
pub(crate) static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let counter = WordCounter::default();
    counter.count(TEXT, &mut CountScratch::default());
    train(counter, &BpeTrainerOptions { vocab_size: 320, min_frequency: 2 }).unwrap()
});

/// [`SMALL`] as JSON, for tests that change it.
pub(crate) fn small_json() -> Value {
    serde_json::from_slice(&SMALL).unwrap()
}

pub(crate) fn tokenizer(json: &Value, options: &LoadOptions) -> crate::Result<Tokenizer> {
    Tokenizer::from_json("test", json.to_string().as_bytes(), options)
}

/// An added token of a `tokenizer.json`.
pub(crate) fn added(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": !special,
    })
}

/// A directory that is gone when the test is.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("curate-tokenize-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
