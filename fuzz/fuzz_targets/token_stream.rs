//! Any bytes read as a token stream: an error or tokens, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = curate_tokenize::TokenStreamReader::new(bytes) else { return };
    while let Ok(Some(batch)) = reader.next_batch() {
        for doc in batch.iter() {
            std::hint::black_box(doc.tokens.len());
        }
    }
});
