//! How fast documents become sketches: `sketch_speed FILE.jsonl PROFILE [BANDS ROWS [WHAT]]`.
//!
//! Reads all texts first, then sketches them on one thread and prints documents, shingles and nanoseconds a shingle, in
//! CPU time (Linux).
//! With `unverified` as a fifth argument it makes band keys alone.
//! With `signatures` as a fifth argument it writes, for every document, the `datatrove` signature as a JSON line and
//! then the representatives of the components, to compare with the goldens of `python/goldens/datatrove_minhash.py`.
#![allow(clippy::print_stdout)]

use curate_dedup::{
    Banding, Components, DatatroveBuffers, DatatroveHasher, MinHashOptions, Place, Representative,
    SketchBuffers, Sketcher, Storage,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |i: usize, default: &str| arguments.get(i).map_or(default.to_owned(), String::clone);
    let texts = texts(&argument(1, "docs.jsonl"))?;
    let (bands, rows) = (argument(3, "14").parse()?, argument(4, "8").parse()?);
    if argument(5, "") == "signatures" {
        return signatures(&texts, Banding::new(bands, rows)?);
    }
    let options = MinHashOptions {
        profile: argument(2, "curate-1").parse()?,
        bands: Some(bands),
        rows: Some(rows),
        ..MinHashOptions::default()
    };
    let (sketcher, mut buffers) = (Sketcher::new(&options)?, SketchBuffers::default());
    let unverified = argument(5, "") == "unverified";
    for round in 0..6 {
        let (start, mut shingles, mut digest) = (cpu_seconds(), 0, 0u64);
        for text in &texts {
            let keys = if unverified {
                sketcher.band_keys(text, &mut buffers)
            } else {
                let (keys, set) = sketcher.read(text, &mut buffers);
                shingles += set.len();
                keys
            };
            digest = keys.iter().fold(digest, |digest, key| digest.rotate_left(1) ^ key);
        }
        let seconds = cpu_seconds() - start;
        let rate = texts.len() as f64 / seconds;
        println!(
            "round {round}: {} documents, {shingles} shingles, {rate:.0} documents/s, {:.1} ns/shingle, {digest:016x}",
            texts.len(),
            1e9 * seconds / shingles as f64
        );
    }
    Ok(())
}

/// What this thread has run, which a busy machine does not stretch.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux counts the time of threads");
    let nanoseconds = stat.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.expect("the first number is the time on a processor") * 1e-9
}

fn texts(path: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let text_of = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line)?;
        Ok(record["text"].as_str().unwrap_or_default().to_owned())
    };
    std::fs::read_to_string(path)?.lines().map(text_of).collect()
}

fn signatures(texts: &[String], banding: Banding) -> Result<(), Box<dyn std::error::Error>> {
    let hasher = DatatroveHasher::new(banding, 5, 1)?;
    let (mut buffers, mut keys) = (DatatroveBuffers::default(), Vec::new());
    let storage =
        Storage { memory: Storage::DEFAULT_MEMORY, place: Place::TemporaryIn(std::env::temp_dir()) };
    let mut components = Components::new(banding, Representative::UnionBySize, &storage)?;
    for text in texts {
        let signature = hasher.signature(text, &mut buffers);
        println!("{}", serde_json::to_string(&signature)?);
        keys.clear();
        if let Some(signature) = signature {
            hasher.band_keys(signature, &mut keys);
        }
        components.add(&keys, signature.unwrap_or_default())?;
    }
    println!("{}", serde_json::to_string(&components.partition()?.representatives)?);
    Ok(())
}
