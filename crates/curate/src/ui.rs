//! The only module that prints. stdout is data; everything here goes to stderr.

#![allow(clippy::print_stderr)]

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::ValueEnum;
use curate_io::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Exit, Failure};

/// Prints a failure as `error`, its causes and a `hint`; a closed pipe is silent success.
pub(crate) fn report_failure(failure: &Failure) -> Exit {
    if failure.is_closed_pipe() {
        return Exit::Done;
    }
    eprintln!("error: {}", failure.error);
    let mut cause = failure.error.source();
    while let Some(error) = cause {
        eprintln!("caused by: {error}");
        cause = error.source();
    }
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
    failure.exit
}

/// Says something that the user should know although the work goes on.
pub(crate) fn warn(message: &str) {
    eprintln!("warning: {message}");
}

/// Prints finished lines, such as the closing table.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
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
        wanted.then(|| {
            let done = Arc::new(AtomicBool::new(false));
            let bar = bar(label, progress.total_bytes());
            let stop = Arc::clone(&done);
            let drawer = thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    bar.set_position(progress.read_bytes());
                    thread::sleep(REDRAW);
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
