//! The obvious way to pass JSON Lines through: a `serde_json::Value` a line, parsed and written. The yardstick of
//! `benches/passthrough`.

use std::io::{self, BufRead, BufReader, BufWriter, Write};

fn main() -> io::Result<()> {
    let path =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: serde_json_loop FILE.jsonl"))?;
    let mut input = BufReader::with_capacity(1 << 20, std::fs::File::open(path)?);
    let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let value: serde_json::Value = serde_json::from_slice(&line)?;
        serde_json::to_writer(&mut output, &value)?;
        output.write_all(b"\n")?;
        line.clear();
    }
    output.flush()
}
