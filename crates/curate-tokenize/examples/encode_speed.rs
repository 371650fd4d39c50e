//! Speed of encoding, and ids against the `tokenizers` crate.
//!
//! `speed` prints CPU seconds of each pass, tokens, and the SHA-256 of all ids as little-endian u32.
//!
//! usage: encode_speed speed TOKENIZER.json FILE.jsonl [PASSES] [best|avx2|portable]
//!        encode_speed check TOKENIZER.json FILE.jsonl...
//!        encode_speed sweep TOKENIZER.json
//!        encode_speed fuzz TOKENIZER.json STRINGS [SEED]
//!        encode_speed hard TOKENIZER.json

use std::io::{BufRead, BufReader, Write};

use curate_tokenize::{EncodeScratch, Instructions, LoadOptions, TokenId, Tokenizer};
use sha2::{Digest, Sha256};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = std::io::stdout();
    match args[..] {
        ["speed", tokenizer, file, ref rest @ ..] => speed(tokenizer, file, rest, &mut out),
        ["check", tokenizer, ref files @ ..] => check(tokenizer, files, &mut out),
        ["sweep", tokenizer] => sweep(tokenizer, &mut out),
        ["fuzz", tokenizer, strings, ref seed @ ..] => {
            let seed = seed.first().map_or(Ok(1), |seed| seed.parse())?;
            fuzz(tokenizer, strings.parse()?, seed, &mut out)
        }
        ["hard", tokenizer] => hard(tokenizer, &mut out),
        _ => Err("usage: see the top of examples/encode_speed.rs".into()),
    }
}

fn texts(file: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for line in BufReader::new(std::fs::File::open(file)?).lines() {
        let record: serde_json::Value = serde_json::from_str(&line?)?;
        texts.push(record["text"].as_str().ok_or("a record without text")?.to_owned());
    }
    Ok(texts)
}

fn load(tokenizer: &str, instructions: Instructions) -> Result<Tokenizer, Failure> {
    let loaded = Tokenizer::load(tokenizer, &LoadOptions { instructions, ..LoadOptions::default() })?;
    if loaded.is_fast() { Ok(loaded) } else { Err("not on the fast path".into()) }
}

fn speed(tokenizer: &str, file: &str, rest: &[&str], out: &mut impl Write) -> Result<(), Failure> {
    let texts = texts(file)?;
    let instructions = match rest.get(1) {
        Some(&"avx2") => Instructions::Avx2,
        Some(&"portable") => Instructions::Portable,
        _ => Instructions::Best,
    };
    let tokenizer = load(tokenizer, instructions)?;
    let passes: usize = rest.first().map_or(Ok(3), |passes| passes.parse())?;
    let mut scratch = EncodeScratch::default();
    let mut ids = Vec::new();
    for _ in 0..passes.max(1) {
        let start = cpu_seconds();
        for text in &texts {
            ids.clear();
            tokenizer.encode(text, &mut scratch, &mut ids)?;
        }
        write!(out, "{:.6} ", cpu_seconds() - start)?;
    }
    let (mut tokens, mut hash) = (0, Sha256::new());
    for text in &texts {
        ids.clear();
        tokenizer.encode(text, &mut scratch, &mut ids)?;
        tokens += ids.len();
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "{tokens} {hash}")?;
    Ok(())
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Ours and theirs of one tokenizer.
struct Both {
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
    scratch: EncodeScratch,
    ids: Vec<TokenId>,
    texts: u64,
    tokens: u64,
}

impl Both {
    fn load(tokenizer: &str) -> Result<Self, Failure> {
        let ours = load(tokenizer, Instructions::Best)?;
        let mut theirs = tokenizers::Tokenizer::from_file(tokenizer).map_err(|error| error.to_string())?;
        theirs.set_encode_special_tokens(true);
        Ok(Self { ours, theirs, scratch: EncodeScratch::default(), ids: Vec::new(), texts: 0, tokens: 0 })
    }

    fn compare(&mut self, text: &str) -> Result<(), Failure> {
        self.ids.clear();
        self.ours.encode(text, &mut self.scratch, &mut self.ids)?;
        let theirs = self.theirs.encode_fast(text, false).map_err(|error| error.to_string())?;
        self.texts += 1;
        self.tokens += self.ids.len() as u64;
        if theirs.get_ids() == self.ids {
            return Ok(());
        }
        let at = theirs.get_ids().iter().zip(&self.ids).take_while(|(a, b)| a == b).count();
        let shown: String = text.chars().take(300).collect();
        Err(format!(
            "ids differ from token {at} on in {shown:?}: ours {:?}, theirs {:?}",
            &self.ids[at..self.ids.len().min(at + 5)],
            &theirs.get_ids()[at..theirs.get_ids().len().min(at + 5)]
        )
        .into())
    }

    fn report(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(out, "{} texts, {} tokens, 0 ids differ", self.texts, self.tokens)?;
        Ok(())
    }
}

fn check(tokenizer: &str, files: &[&str], out: &mut impl Write) -> Result<(), Failure> {
    let mut both = Both::load(tokenizer)?;
    for file in files {
        for text in texts(file)? {
            both.compare(&text)?;
        }
    }
    both.report(out)
}

/// Each code point alone, between letters, spaces, digits and marks.
fn sweep(tokenizer: &str, out: &mut impl Write) -> Result<(), Failure> {
    let mut both = Both::load(tokenizer)?;
    for c in '\0'..=char::MAX {
        both.compare(&format!("{c}a {c}{c} 1{c}!{c}B\n{c}\u{301}'s{c}中{c}"))?;
    }
    both.report(out)
}

fn fuzz(tokenizer: &str, strings: u64, seed: u64, out: &mut impl Write) -> Result<(), Failure> {
    const PARTS: [&str; 48] = [
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{2003}",
        "\u{3000}",
        "\u{85}",
        "'",
        "'s",
        "'T",
        "'ll",
        "'RE",
        "'ſ",
        "a",
        "b",
        "the",
        "Don",
        "XY",
        "É",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{fe0f}",
        "❤",
        "ǅ",
        "ʰ",
        "中",
        "文字",
        "か",
        "カ",
        "・",
        "한",
        "हिन्दी",
        "1",
        "23",
        "4567",
        "½",
        "٣",
        "!",
        "/",
        "<|",
        ".",
        "\0",
        "\u{ad}",
    ];
    let mut both = Both::load(tokenizer)?;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut text = String::new();
    for _ in 0..strings {
        text.clear();
        for _ in 0..1 + random(24) {
            match random(12) {
                0 => text.push(char::from_u32(random(0x3000) as u32).unwrap_or(' ')),
                1 => text.push(char::from_u32(random(0x11_0000) as u32).unwrap_or('x')),
                2 => text.push((b' ' + random(95) as u8) as char),
                _ => text.push_str(PARTS[random(PARTS.len() as u64) as usize]),
            }
        }
        both.compare(&text)?;
    }
    both.report(out)
}

/// Inputs that are hard for merging.
fn hard(tokenizer: &str, out: &mut impl Write) -> Result<(), Failure> {
    let tokenizer = load(tokenizer, Instructions::Best)?;
    let (mut scratch, mut ids) = (EncodeScratch::default(), Vec::new());
    tokenizer.encode("warm", &mut scratch, &mut ids)?;
    let cjk: String = (0..3_333_333u32)
        .filter_map(|n| char::from_u32(0x4E00 + n.wrapping_mul(2_654_435_761) % 20_000))
        .collect();
    let letters: String = (0..10_000_000u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .collect();
    for (name, text) in [
        ("one letter", "a".repeat(10_000_000)),
        ("spaces", " ".repeat(10_000_000)),
        ("newlines", "\n".repeat(10_000_000)),
        ("one CJK run", cjk),
        ("one CJK character", "中".repeat(3_333_333)),
        ("one random word", letters),
        ("digits", "7".repeat(10_000_000)),
        ("symbols", "-".repeat(10_000_000)),
    ] {
        ids.clear();
        let start = cpu_seconds();
        tokenizer.encode(&text, &mut scratch, &mut ids)?;
        let seconds = cpu_seconds() - start;
        writeln!(out, "{name}: {:.1} MB/s, {} tokens", text.len() as f64 / 1e6 / seconds, ids.len())?;
    }
    Ok(())
}
