//! Time to pack many documents, from their lengths alone.
//!
//!     cargo run --release -p curate-shards --example pack_speed -- [DOCUMENTS] [SEQ_LEN] [REPEATS]
//!
//! Lengths are log-normal like those of web text (median 1,131 tokens, mean about 1,950), from a fixed seed. Prints CPU
//! seconds of this process, which a busy machine does not change much.

#![allow(clippy::print_stdout)] // an example is a program of its own

use curate_shards::{LongDocuments, PackPolicy, ViewOptions, pack_lengths};

fn main() {
    let arguments: Vec<u32> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("DOCUMENTS SEQ_LEN REPEATS are numbers"))
        .collect();
    let argument = |i: usize, default| arguments.get(i).copied().unwrap_or(default);
    let (documents, seq_len, repeats) = (argument(0, 10_000_000), argument(1, 2048), argument(2, 3));
    let lengths = lengths(documents);
    let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    println!("{documents} documents, {tokens} tokens, T = {seq_len}");
    for policy in [PackPolicy::BestFit, PackPolicy::Concat] {
        let mut best = f64::INFINITY;
        let mut said = String::new();
        for _ in 0..repeats {
            let start = cpu_seconds();
            let tally = pack_lengths(&lengths, ViewOptions { seq_len, policy }, LongDocuments::Split)
                .expect("the books balance");
            best = best.min(cpu_seconds() - start);
            let padding =
                100.0 * tally.padding(seq_len) as f64 / (tally.padding(seq_len) + tally.tokens) as f64;
            said =
                format!("{} rows, {padding:.3} % padding, {} documents cut", tally.rows, tally.documents_cut);
        }
        println!("{:<9} {best:.3} CPU-s   {said}", policy.name());
    }
}

/// Log-normal, mu = ln 1131, sigma = 1.044, at least 2: normals by the sum of twelve uniforms.
fn lengths(documents: u32) -> Vec<u32> {
    let mut state = 42u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut length = || {
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        (1131f64.ln() + 1.044 * normal).exp().clamp(2.0, 2e6) as u32
    };
    (0..documents).map(|_| length()).collect()
}

/// CPU seconds of this process so far: user and system ticks of /proc, of 10 ms each.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells a process its times");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / 100.0
}
