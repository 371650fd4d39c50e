//! Speed of reading rows from the page cache, to be compared with other readers (`benches/loader/run.py`).
//!
//! ```text
//! loader_speed make DIR u16|i32 TOKENS      writes a set of random documents with a view of each policy
//! loader_speed read DIR ROUNDS              reads every row a number of times, in each order
//! loader_speed cold DIR ROWS                reads some rows in shuffled order from the disk
//! ```
//! `make` draws lengths from a log-normal distribution with median 400 (mean 680, as web text has), ids evenly. `read`
//! prints a line of JSON for each policy, order and kind of work: `fill` is [`View::fill_each`] into one row, `batch` copies inputs and targets of 32 rows besides, as a trainer does. Bytes are those of tokens in `.bin`,
//! without padding; seconds are of the process's CPU time, of the fastest round; the first round also maps the pages.
//! `cold` takes the files out of the page cache first (Linux), and reads with the system's defaults, with the advice that
//! reads come in no order, and with rows asked for two batches ahead besides; it prints what was read from the disk.

#![allow(clippy::print_stdout)] // an example talks to its caller

use std::error::Error;
use std::path::Path;

use curate_shards::{
    BatchPlan, PackPolicy, Row, ShardSet, ShardSetWriter, Split, TokenDocument, TokenizerInfo, View,
    ViewOptions, Width, WriterOptions,
};

/// Views of one split differ in their length.
const CONCAT: u32 = 1024;
const BEST_FIT: u32 = 1032;
const BATCH: u32 = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", dir, width, tokens] => make(Path::new(dir), width, tokens.parse()?),
        ["read", dir, rounds] => read(Path::new(dir), rounds.parse()?),
        ["cold", dir, rows] => cold(Path::new(dir), rows.parse()?),
        _ => Err("make DIR u16|i32 TOKENS, read DIR ROUNDS, or cold DIR ROWS".into()),
    }
}

fn make(dir: &Path, width: &str, tokens: u64) -> Result<(), Box<dyn Error>> {
    let vocab_size = if width == "u16" { 50_257 } else { 151_936 };
    let tokenizer =
        TokenizerInfo { name: "random".into(), sha256: String::new(), vocab_size, eod: vocab_size - 1 };
    std::fs::create_dir_all(dir)?;
    let mut writer = ShardSetWriter::create(dir, WriterOptions::new(tokenizer))?;
    let mut random = Random(7);
    let (mut written, mut document) = (0, Vec::new());
    while written < tokens {
        let normal = (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        let length = (400.0 * (1.03 * normal).exp()).clamp(2.0, 100_000.0) as usize;
        document.clear();
        document.extend((1..length).map(|_| (random.uniform() * f64::from(vocab_size - 1)) as u32));
        document.push(vocab_size - 1);
        writer.push(&TokenDocument {
            tokens: &document,
            n_bytes: 4 * length as u32,
            domain: "d",
            key: written,
        })?;
        written += length as u64;
    }
    writer.finish(&[
        ViewOptions { seq_len: CONCAT, policy: PackPolicy::Concat },
        ViewOptions { seq_len: BEST_FIT, policy: PackPolicy::BestFit },
    ])?;
    Ok(())
}

fn read(dir: &Path, rounds: u32) -> Result<(), Box<dyn Error>> {
    let set = ShardSet::open(dir)?;
    let split = set.split("train")?;
    let width = set.manifest().token_width;
    for seq_len in [CONCAT, BEST_FIT] {
        let view = set.view("train", seq_len)?;
        for shuffled in [false, true] {
            for work in ["fill", "batch"] {
                let mut seconds = Vec::new();
                let mut pass = Pass::default();
                for _ in 0..rounds.max(1) {
                    let before = cpu_seconds();
                    pass = one_pass(split, &view, shuffled, work == "batch")?;
                    seconds.push(cpu_seconds() - before);
                }
                print(&view, width, shuffled, work, &pass, &seconds);
            }
        }
    }
    Ok(())
}

fn cold(dir: &Path, rows: u64) -> Result<(), Box<dyn Error>> {
    for advice in ["none", "random", "random, ahead"] {
        for entry in std::fs::read_dir(dir)? {
            forget(&entry?.path())?;
        }
        let set = ShardSet::open(dir)?;
        let (split, view) = (set.split("train")?, set.view("train", CONCAT)?);
        if advice != "none" {
            split.expect_random_reads();
        }
        let plan = BatchPlan::new(1, view.num_rows(), BATCH)?;
        let mut row = Row::new(view.seq_len());
        let (mut bytes, before, began) = (0, read_bytes()?, std::time::Instant::now());
        for step in 0..rows / u64::from(BATCH) {
            if advice == "random, ahead" {
                plan.step(step + 2).try_for_each(|number| view.will_need(split, number))?;
            }
            for number in plan.step(step) {
                view.try_fill(split, number, &mut row)?;
                bytes += row.len as u64 * set.manifest().token_width.bytes();
            }
        }
        let (seconds, read) = (began.elapsed().as_secs_f64(), read_bytes()? - before);
        println!(
            "{{\"advice\":\"{advice}\",\"row_bytes\":{bytes},\"read_bytes\":{read},\"seconds\":{seconds:.3},\"read_per_row_byte\":{:.1}}}",
            read as f64 / bytes as f64
        );
    }
    Ok(())
}

/// Takes a file out of the page cache.
fn forget(path: &Path) -> Result<(), Box<dyn Error>> {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    // SAFETY: a call with an open descriptor and numbers.
    let status = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if status == 0 { Ok(()) } else { Err(format!("{}: error {status}", path.display()).into()) }
}

/// Bytes that this process has caused to be read from a disk.
fn read_bytes() -> Result<u64, Box<dyn Error>> {
    let counts = std::fs::read_to_string("/proc/self/io")?;
    let line = counts.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.ok_or("no read_bytes in /proc/self/io")?.parse()?)
}

#[derive(Default)]
struct Pass {
    tokens: u64,
    /// Keeps the work from being optimised away.
    sum: i64,
}

/// Reads all whole batches of an epoch.
fn one_pass(split: &Split, view: &View, shuffled: bool, batches: bool) -> Result<Pass, Box<dyn Error>> {
    let plan = BatchPlan::new(1, view.num_rows(), BATCH)?;
    let seq_len = view.seq_len() as usize;
    let mut row = Row::new(view.seq_len());
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    let mut pass = Pass::default();
    let mut rows = Vec::new();
    for step in 0..view.num_rows() / u64::from(BATCH) {
        inputs.clear();
        targets.clear();
        rows.clear();
        let first = step * u64::from(BATCH);
        match shuffled {
            true => rows.extend(plan.step(step)),
            false => rows.extend(first..first + u64::from(BATCH)),
        }
        view.fill_each(split, &rows, &mut row, |_, row| {
            pass.tokens += row.len as u64;
            pass.sum = pass.sum.wrapping_add(row.tokens[row.len - 1]);
            if batches {
                inputs.extend_from_slice(&row.tokens[..seq_len]);
                targets.extend_from_slice(&row.tokens[1..]);
            }
            Ok::<_, curate_shards::Error>(())
        })?;
        pass.sum =
            pass.sum.wrapping_add(inputs.last().copied().unwrap_or(0) + targets.last().copied().unwrap_or(0));
    }
    Ok(pass)
}

fn print(view: &View, width: Width, shuffled: bool, work: &str, pass: &Pass, seconds: &[f64]) {
    let bytes = (pass.tokens * width.bytes()) as f64;
    let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "{{\"reader\":\"curate\",\"width\":{},\"policy\":\"{}\",\"order\":\"{}\",\"work\":\"{work}\",\"tokens\":{},\
         \"cpu_s\":{best:.4},\"first_cpu_s\":{:.4},\"gb_per_cpu_s\":{:.3},\"sum\":{}}}",
        width.bytes(),
        view.policy(),
        if shuffled { "shuffled" } else { "sequential" },
        pass.tokens,
        seconds[0],
        bytes / best / 1e9,
        pass.sum
    );
}

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable for an rusage.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + 1e-6 * t.tv_usec as f64;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}
