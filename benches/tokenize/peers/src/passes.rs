//! Passes of an encoder over the texts of a file.

use sha2::{Digest, Sha256};

pub type Failure = Box<dyn std::error::Error>;
pub type Encoder = Box<dyn FnMut(&str, &mut Vec<u32>)>;

/// Prints CPU seconds of each pass over the texts, the number of tokens, and the SHA-256 of all ids as little-endian u32.
pub fn run(mut encode: Encoder, file: &str, count: usize) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        texts.push(record["text"].as_str().ok_or("no text")?.to_owned());
    }
    let mut ids = Vec::new();
    for _ in 0..count {
        let start = cpu_seconds();
        for text in &texts {
            ids.clear();
            encode(text, &mut ids);
        }
        print!("{:.6} ", cpu_seconds() - start);
    }
    let (mut tokens, mut hash) = (0, Sha256::new());
    for text in &texts {
        ids.clear();
        encode(text, &mut ids);
        tokens += ids.len();
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    println!("{tokens} {}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Ok(())
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
