//! The one place that writes to the terminal: messages, errors, progress and tables, all on stderr.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use curate_train::Error;
use curate_train::eval::{Evaluation, Score};
use curate_train::metrics::Speed;
use curate_train::train::{EvalRecord, Monitor, SampleRecord, SkipRecord, StepRecord};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Fine,
    /// The data or the numbers are bad.
    Data,
    /// It could not run.
    CouldNotRun,
    /// One rank of several: another one ended.
    Peer,
    /// The user interrupted; what was done is saved.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Data => 1,
            Exit::CouldNotRun => 2,
            Exit::Peer => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// Prints an error with its causes and its remedy, and says how the program should end.
pub(crate) fn report(error: &Error) -> Exit {
    match error {
        Error::Interrupted => return Exit::Interrupted,
        // A reader that has seen enough closes the pipe; that is no error.
        Error::Io { error, .. } if error.kind() == std::io::ErrorKind::BrokenPipe => return Exit::Fine,
        _ => {}
    }
    let mut said = error.to_string();
    line(&format!("error: {said}"));
    let mut next = error.source();
    while let Some(cause) = next {
        next = cause.source();
        let text = cause.to_string();
        // Some libraries put the cause into their own message too; once is enough.
        if !said.contains(&text) {
            line(&format!("caused by: {text}"));
        }
        said = text;
    }
    if let Some(hint) = error.hint() {
        line(&format!("hint: {hint}"));
    }
    match error {
        Error::NotFinite { .. }
        | Error::Spikes { .. }
        | Error::NotFiniteModel { .. }
        | Error::NothingThere { .. }
        | Error::TokenOutOfRange { .. } => Exit::Data,
        Error::Collective { .. } => Exit::Peer,
        _ => Exit::CouldNotRun,
    }
}

/// Prints a warning.
pub(crate) fn warn(text: &str) {
    line(&format!("warning: {text}"));
}

/// Prints a line.
pub(crate) fn line(text: &str) {
    // If stderr is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Shows a line on a terminal that the next one overwrites.
pub(crate) fn live(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush());
}

/// An integer with its thousands set apart.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds as a person says them.
fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{}:{:02} min", s / 60, s % 60),
        _ => format!("{}:{:02} h", s / 3600, s % 3600 / 60),
    }
}

/// Rows of two columns, the first one aligned.
pub(crate) fn table(rows: &[(&str, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        line(&format!("{name:width$}  {value}"));
    }
}

/// Prints an evaluation with its protocol.
pub(crate) fn evaluation(evaluation: &Evaluation) {
    let (p, total) = (&evaluation.protocol, &evaluation.total);
    let eod_mean = total.eod_nats / total.documents.max(1) as f64;
    let mut rows = vec![
        (
            "protocol",
            format!("{}, window {}, stride {}, prefix {}", p.boundary, p.window, p.stride, p.prefix),
        ),
        ("scored", format!("{}; excluded: {}", p.scored, p.excluded)),
        ("arithmetic", p.arithmetic.clone()),
        (
            "split",
            format!(
                "{}: {} tokens, {} documents, {} bytes (hash {})",
                p.split,
                thousands(total.tokens),
                thousands(total.documents),
                thousands(total.bytes),
                p.split_hash
            ),
        ),
        ("ends", format!("{:.1} nats on end-of-document ids, {eod_mean:.4} each", total.eod_nats)),
        ("", String::new()),
        ("", score_header().to_owned()),
        ("model", score_row(total)),
    ];
    if let Some(unigram) = &evaluation.unigram {
        rows.push(("unigram", score_row(unigram)));
    }
    if let Some(gap) = &evaluation.gap {
        rows.push(("train", score_row(&gap.train)));
        let text = format!(
            "{:+.4} nats/token, {:+.4} bits/byte: held out less train",
            gap.nats_per_token, gap.bits_per_byte
        );
        rows.push(("gap", text));
    }
    rows.push((
        "words",
        format!(
            "word perplexity {:.3} over {} words, byte perplexity {:.4}, both without ends",
            total.word_perplexity,
            thousands(total.words),
            total.byte_perplexity
        ),
    ));
    if let Some(i) = &evaluation.interval {
        let ([a, b], [c, d], [e, f]) = (i.nats_per_token, i.perplexity, i.bits_per_byte);
        rows.push(("95 %", format!(
            "{a:.4} to {b:.4} nats/token, perplexity {c:.3} to {d:.3}, {e:.4} to {f:.4} bits/byte over other draws of documents"
        )));
    }
    if let Some(m) = &evaluation.macro_average {
        rows.push((
            "macro",
            format!(
                "{:.4} nats/token, {:.4} bits/byte: mean of the domains",
                m.nats_per_token, m.bits_per_byte
            ),
        ));
    }
    let domains: Vec<_> =
        evaluation.domains.iter().map(|d| (format!("domain {}", d.domain), score_row(&d.score))).collect();
    rows.extend(domains.iter().map(|(name, row)| (name.as_str(), row.clone())));
    table(&rows);
}

/// Prints how fast a call was.
pub(crate) fn speed(speed: &Speed) {
    let share = match (&speed.peak, speed.mfu) {
        (Some(peak), Some(mfu)) => {
            format!(", {:.1} % of {} TFLOP/s ({})", 100.0 * mfu, peak.tflops, peak.source)
        }
        _ => String::new(),
    };
    let on_gpu = speed
        .cuda_peak_bytes
        .map_or(String::new(), |bytes| format!(", {} MB of the GPU's", thousands(bytes / 1_000_000)));
    line(&format!(
        "speed: {} tokens/s over {} steps after {} of warm-up, {:.4} TFLOP/s ({}){share}; {:.2} % of it waiting for \
         data; {} MB of memory at most{on_gpu}",
        thousands(speed.tokens_per_s.round() as u64),
        thousands(speed.steps),
        speed.warm_up_steps,
        speed.teraflop_per_s,
        speed.formula,
        100.0 * speed.data_wait_share,
        thousands(speed.peak_memory_bytes / 1_000_000),
    ));
}

/// Prints how much of each source a run has seen.
pub(crate) fn sources(targets: &BTreeMap<String, u64>) {
    let all: u64 = targets.values().sum();
    let mut sources: Vec<_> = targets.iter().collect();
    sources.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let source = |(name, count): (&String, &u64)| {
        let name = if name.is_empty() { "(no domain)" } else { name };
        format!("{name} {} ({:.1} %)", thousands(*count), 100.0 * *count as f64 / all.max(1) as f64)
    };
    let sources: Vec<String> = sources.into_iter().map(source).collect();
    line(&format!("targets by source: {}", sources.join(", ")));
}

fn score_header() -> &'static str {
    "nats/token  perplexity  bits/byte  (without ends)        tokens  documents"
}

fn score_row(score: &Score) -> String {
    format!(
        "{:10.4}  {:10.3}  {:9.4}  {:14.4}  {:>12}  {:>9}",
        score.nats_per_token,
        score.perplexity,
        score.bits_per_byte,
        score.text_bits_per_byte,
        thousands(score.tokens),
        thousands(score.documents)
    )
}

/// Progress of a training run on stderr: a line every so many steps and, on a terminal, a live one between them.
pub(crate) struct Console {
    quiet: bool,
    live: bool,
    first: bool,
    log_every: u64,
    steps: u64,
    /// Smoothed seconds of a step.
    step_seconds: Option<f64>,
    last_seconds: f64,
}

impl Console {
    /// Progress towards `steps`, a line every `log_every` of them.
    pub(crate) fn new(quiet: bool, log_every: u64, steps: u64) -> Console {
        let live = !quiet && std::io::stderr().is_terminal();
        Console { quiet, live, first: true, log_every, steps, step_seconds: None, last_seconds: f64::NAN }
    }

    /// Shows a line that the next one overwrites.
    fn show_live(&self, text: &str) {
        if self.live {
            live(text);
        }
    }

    fn print(&self, text: &str) {
        if !self.quiet {
            self.show_live("");
            line(text);
        }
    }

    fn smoothed_step(&mut self, record: &StepRecord) -> f64 {
        let seconds = record.seconds - self.last_seconds;
        self.last_seconds = record.seconds;
        let known = self.step_seconds.unwrap_or(seconds);
        // Until two records were seen there is no difference to take; NaN must not stick.
        let smooth =
            if seconds.is_finite() && known.is_finite() { 0.9 * known + 0.1 * seconds } else { seconds };
        self.step_seconds = Some(smooth);
        smooth
    }
}

impl Monitor for Console {
    fn step(&mut self, record: &StepRecord) {
        let left = self.smoothed_step(record) * self.steps.saturating_sub(record.step) as f64;
        let eta = if left.is_finite() { format!("  {} left", duration(left)) } else { String::new() };
        let mfu = record.mfu.map_or(String::new(), |mfu| format!("  MFU {:.1} %", 100.0 * mfu));
        let text = format!(
            "step {:>5}/{}  loss {:.4} nats  grad norm {:.3}  lr {:.2e}  {:>7} tokens/s{mfu}{eta}",
            record.step,
            self.steps,
            record.loss_nats,
            record.grad_norm,
            record.lr,
            thousands(record.tokens_per_s.round() as u64)
        );
        let is_printed =
            self.first || record.step.is_multiple_of(self.log_every) || record.step == self.steps;
        self.first = false;
        if is_printed {
            self.print(&text);
        } else {
            self.show_live(&text);
        }
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        self.print(&format!(
            "step {:>5}/{}  {}{} {:.4} nats/token, perplexity {:.3}, {:.4} bits/byte over {} tokens",
            record.step,
            self.steps,
            record.split,
            if record.whole_split { "" } else { " (part)" },
            record.nats_per_token,
            record.perplexity,
            record.bits_per_byte,
            thousands(record.tokens)
        ));
    }

    fn evaluating(&mut self, done: u64, total: u64) {
        if self.live {
            self.show_live(&format!("evaluating {} of {} tokens", thousands(done), thousands(total)));
        }
    }

    fn skipped(&mut self, record: &SkipRecord) {
        /// The log has more.
        const SHOWN: usize = 3;
        self.show_live("");
        warn(&format!("step {}: update skipped: {}", record.step, record.cause));
        for suspect in record.documents.iter().take(SHOWN) {
            line(&format!("  {suspect}"));
        }
        let rest = record.documents_in_batch.saturating_sub(SHOWN as u64);
        if rest > 0 {
            line(&format!("  and {rest} more documents in the batch; log.jsonl has the worst"));
        }
    }

    fn sampled(&mut self, record: &SampleRecord) {
        self.print(&format!("step {:>5}/{}  sample: {:?}", record.step, self.steps, record.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let check = |n, expected: &str| assert_eq!(thousands(n), expected);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(61.0), "1:01 min");
        assert_eq!(duration(7384.0), "2:03 h");
    }

    #[test]
    fn exit_codes_separate_data_from_everything_else() {
        let check = |error: Error, expected| assert_eq!(report(&error), expected);
        check(Error::NotFinite { quantity: "loss".into(), step: 3 }, Exit::Data);
        check(Error::NoCheckpoint { run: "run".into() }, Exit::CouldNotRun);
        check(Error::Interrupted, Exit::Interrupted);
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        check(Error::Io { path: "stdout".into(), error: broken }, Exit::Fine);
    }
}
