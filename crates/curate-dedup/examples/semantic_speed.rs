//! How fast is `--semantic`? `semantic_speed FILE.npy [THRESHOLD] [CLUSTERS] [THREADS]`; says what it found as JSON.

use std::io::Write;
use std::path::Path;

use curate_dedup::{NpyFile, SemanticOptions, semantic_dedup};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args.first().ok_or("semantic_speed FILE.npy [THRESHOLD] [CLUSTERS] [THREADS]")?;
    let mut options = SemanticOptions::default();
    if let Some(threshold) = args.get(1) {
        options.threshold = threshold.parse()?;
    }
    options.clusters = args.get(2).map(|clusters| clusters.parse()).transpose()?;
    let threads = args.get(3).map_or(Ok(1), |threads| threads.parse())?;
    let result = semantic_dedup(&NpyFile::open(Path::new(path))?, &options, threads, &|| true)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&result.summary)?)?;
    Ok(())
}
