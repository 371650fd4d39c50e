//! Prints what documents share with evaluation items, as JSON Lines, for tuning: `ITEMS.jsonl DOCS.jsonl THRESHOLD`.
//! With no documents shared the seconds on stderr are those of a clean text.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::time::Instant;

use curate_clean::decontaminate::{IndexBuilder, Item, Scratch};
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [items, docs, threshold] = arguments.as_slice() else {
        eprintln!("usage: decontaminate_features ITEMS.jsonl DOCS.jsonl THRESHOLD");
        return;
    };
    let read = |path: &str| -> Vec<Value> {
        let text = fs::read_to_string(path).expect("a readable file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let mut builder = IndexBuilder::new(u64::MAX);
    for (i, item) in read(items).iter().enumerate() {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        let (question, answer) = (text("question"), text("answer"));
        builder.add(Item { id: &i.to_string(), question, answer }).expect("no limit");
    }
    let index = builder.build();
    eprintln!("{} items, {} seeds, {} bytes", index.len(), index.seeds(), index.bytes());
    let docs = read(docs);
    let threshold: f32 = threshold.parse().expect("a number");
    let mut scratch = Scratch::default();
    let start = Instant::now();
    let mut bytes = 0;
    for doc in &docs {
        let text = doc["text"].as_str().unwrap_or_default();
        bytes += text.len();
        for leak in index.find(text, threshold, &mut scratch) {
            let line = json!({
                "doc": doc["id"], "item": index.id_of(leak.item), "score": leak.score, "coverage": leak.coverage,
                "nats": leak.nats, "longest": leak.longest, "words": leak.words, "edits": leak.edits,
                "answer": leak.answer, "text": &text[leak.spans[0].clone()],
            });
            println!("{line}");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{bytes} bytes in {seconds:.3} s: {:.0} MB/s", bytes as f64 / seconds / 1e6);
}
