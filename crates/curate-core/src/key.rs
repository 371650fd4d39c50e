//! The key under which two texts count as the same.

use xxhash_rust::xxh3::Xxh3;

/// The 128-bit key of a text up to white space: xxh3-128 of its words joined by single spaces.
///
/// Exact deduplication compares it, and held-out splits are drawn from it, so that two copies of one text always
/// fall on the same side. 128 bits: among 10^10 texts an accidental collision has a chance of about 10^-19.
pub fn content_key(text: &str) -> u128 {
    let mut hasher = Xxh3::new();
    for (i, word) in text.split_whitespace().enumerate() {
        if i > 0 {
            hasher.update(b" ");
        }
        hasher.update(word.as_bytes());
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_count() {
        assert_eq!(content_key("a b"), content_key("  a\n\n b\t"));
        assert_eq!(content_key(""), content_key(" \n"));
        assert_ne!(content_key("a b"), content_key("ab"));
        assert_ne!(content_key("a b"), content_key("A b"));
    }
}
