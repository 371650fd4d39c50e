//! The only module that prints. stdout is data, and only [`print`] writes it; the rest goes to stderr: as text, or
//! with `--log json` as one JSON object a line.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::ValueEnum;
use curate_io::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Result};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line, with `level` and `message` or `event`; no progress line
    Json,
}

/// Set once, before anything is said: messages come from places that no option reaches.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Chooses how this process writes its messages.
pub(crate) fn set_log(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Writes a line to stderr. If nobody reads it there is nobody to tell either.
fn line(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Prints a failure as `error`, its causes and a `hint`; a closed pipe is silent success.
pub(crate) fn report_failure(failure: &Failure) -> Exit {
    if failure.is_closed_pipe() {
        return Exit::Done;
    }
    if is_json() {
        line(&failure_json(failure).to_string());
        return failure.exit;
    }
    line(&format!("error: {}", failure.error));
    for cause in causes(failure) {
        line(&format!("caused by: {cause}"));
    }
    if let Some(hint) = &failure.hint {
        line(&format!("hint: {hint}"));
    }
    failure.exit
}

/// What caused a failure, outermost first.
pub(crate) fn causes(failure: &Failure) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = failure.error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}

fn failure_json(failure: &Failure) -> Value {
    json!({
        "level": "error",
        "message": failure.error.to_string(),
        "causes": causes(failure),
        "hint": failure.hint,
        "exit_code": failure.exit as u8,
    })
}

/// Says how things stand.
pub(crate) fn say(message: &str) {
    match is_json() {
        true => line(&json!({ "level": "info", "message": message }).to_string()),
        false => line(message),
    }
}

/// Says something that the user should know although the work goes on.
pub(crate) fn warn(message: &str) {
    match is_json() {
        true => line(&json!({ "level": "warning", "message": message }).to_string()),
        false => line(&format!("warning: {message}")),
    }
}

/// Writes the answer of a command whose data is for reading, to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(written.map_err(|e| curate_core::Error::io("cannot write stdout", e))?)
}

/// Prints a finished report: its table, or the same facts as the event `summary`.
pub(crate) fn summary(table: &str, report: &Value) {
    match is_json() {
        true => line(&summary_json(report).to_string()),
        false => line(table),
    }
}

fn summary_json(report: &Value) -> Value {
    json!({ "level": "info", "event": "summary", "command": report["command"], "report": report })
}

/// When to draw progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressWhen {
    /// On a terminal.
    Auto,
    Always,
    Never,
}

/// A progress line, drawn by a thread of its own until dropped.
pub(crate) struct ProgressLine {
    done: Arc<AtomicBool>,
    drawer: Option<JoinHandle<()>>,
}

const REDRAW: Duration = Duration::from_millis(100);

impl ProgressLine {
    /// Starts drawing, if it is to be drawn at all.
    pub(crate) fn start(
        when: ProgressWhen,
        quiet: bool,
        label: &str,
        progress: Arc<Progress>,
    ) -> Option<Self> {
        let wanted = match when {
            ProgressWhen::Auto => !quiet && stderr().is_terminal(),
            ProgressWhen::Always => true,
            ProgressWhen::Never => false,
        };
        (wanted && !is_json()).then(|| {
            let done = Arc::new(AtomicBool::new(false));
            let bar = bar(label, progress.total_bytes());
            let stop = Arc::clone(&done);
            let drawer = thread::spawn(move || {
                // What is done before the first look needs no line.
                thread::park_timeout(REDRAW);
                while !stop.load(Ordering::Relaxed) {
                    bar.set_position(progress.read_bytes());
                    thread::park_timeout(REDRAW);
                }
                bar.finish_and_clear();
            });
            Self { done, drawer: Some(drawer) }
        })
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            // A drawer that panicked has only spoiled its own line.
            let _ = drawer.join();
        }
    }
}

fn bar(label: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {bytes_per_sec} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template above is valid");
    bar.with_style(style).with_prefix(label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_json_have_stable_fields() {
        let failure = Failure::new("No such file").context("cannot read a.jsonl").with_hint("check the path");
        assert_eq!(
            failure_json(&failure).to_string(),
            r#"{"level":"error","message":"cannot read a.jsonl","causes":["No such file"],"hint":"check the path","exit_code":2}"#
        );
        assert_eq!(
            summary_json(&json!({ "command": "pack", "seconds": 1.5 })).to_string(),
            r#"{"level":"info","event":"summary","command":"pack","report":{"command":"pack","seconds":1.5}}"#
        );
    }
}
