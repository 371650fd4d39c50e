//! `--nproc N`: starts the ranks of a run on this machine, passes signals on, and ends all when one fails.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use curate_train::distributed::LISTEN_FD;
use curate_train::{Error, Result};

use crate::output::{self, Exit};

/// Time for a rank to end by itself after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// The exit code of a rank that ends because another one has.
const PEER: i32 = 3;
/// The exit code of a rank that was asked to end.
const INTERRUPTED: i32 = 130;
const POLL: Duration = Duration::from_millis(10);

/// Runs this program with its own arguments as ranks 0 to `nproc` - 1, and returns when all have ended.
///
/// Rank 0 has the terminal. What the others say is shown if they fail.
pub(crate) fn run(nproc: u32, interrupted: &AtomicBool) -> Result<Exit> {
    let io = |error| Error::Io { path: "a rank's process".into(), error };
    // The launcher listens and rank 0 inherits the socket: nobody can take the port in between.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io)?;
    let port = listener.local_addr().map_err(io)?.port();
    let socket = OwnedFd::from(listener);
    let mut ranks = Ranks(Vec::new());
    for rank in 0..nproc {
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.args(std::env::args_os().skip(1));
        for (name, value) in
            [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", nproc), ("LOCAL_WORLD_SIZE", nproc)]
        {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.env_remove("TORCHELASTIC_USE_AGENT_STORE");
        // A group of its own: a Ctrl-C on the terminal reaches the launcher alone, which passes it on once.
        command.process_group(0);
        let inherited = (rank == 0).then(|| socket.as_raw_fd());
        if let Some(fd) = inherited {
            command.env(LISTEN_FD, fd.to_string());
        } else {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        }
        // SAFETY: prctl and fcntl may be called between fork and exec, and nothing is allocated.
        unsafe { command.pre_exec(move || prepare(inherited)) };
        ranks.0.push(Rank::new(command.spawn().map_err(io)?));
    }
    drop(socket);
    ranks.wait(interrupted, GRACE)?;
    let (lines, exit) = ranks.report();
    lines.iter().for_each(|line| output::line(line));
    Ok(exit)
}

/// In the child: ends with the launcher even if that is killed, and keeps the socket.
fn prepare(inherited: Option<i32>) -> std::io::Result<()> {
    let checked = |status| if status < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: a call with numbers only.
    #[cfg(target_os = "linux")]
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    match inherited {
        // SAFETY: as above; the flags of the socket lose "close on exec", the only one there is.
        Some(fd) => checked(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }),
        None => Ok(()),
    }
}

struct Rank {
    child: Child,
    status: Option<ExitStatus>,
    /// Whether the launcher has killed it, as another one had failed and it did not end.
    killed: bool,
    /// Reads what the rank says; rank 0 says it itself.
    said: Option<JoinHandle<String>>,
}

impl Rank {
    fn new(mut child: Child) -> Rank {
        let read = |mut stderr: std::process::ChildStderr| {
            let mut text = Vec::new();
            // What was said until the pipe broke is as much as there is.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || read(stderr)));
        Rank { child, status: None, killed: false, said }
    }

    fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| !status.success())
    }

    /// Whether it ended because another one had, or because it was asked to.
    fn gave_way(&self) -> bool {
        self.killed || self.status.is_some_and(|status| matches!(status.code(), Some(PEER | INTERRUPTED)))
    }

    fn signal(&self, signal: libc::c_int) {
        if self.status.is_none() {
            // SAFETY: the child has not been waited for, so the number is still its own.
            unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        }
    }
}

struct Ranks(Vec<Rank>);

impl Ranks {
    /// Waits until all have ended; when one fails, the others have `grace` for it.
    fn wait(&mut self, interrupted: &AtomicBool, grace: Duration) -> Result<()> {
        let mut passed_on = false;
        let mut failed_at: Option<Instant> = None;
        while self.0.iter().any(|rank| rank.status.is_none()) {
            for rank in self.0.iter_mut().filter(|rank| rank.status.is_none()) {
                let status = rank.child.try_wait();
                rank.status = status.map_err(|error| Error::Io { path: "a rank's process".into(), error })?;
            }
            if interrupted.load(Ordering::Relaxed) && !passed_on {
                passed_on = true;
                self.signal_all(libc::SIGTERM);
            }
            match failed_at {
                None if !passed_on && self.0.iter().any(Rank::has_failed) => {
                    failed_at = Some(Instant::now());
                    self.signal_all(libc::SIGTERM);
                }
                Some(at) if at.elapsed() > grace => self.kill_all(),
                _ => {}
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn signal_all(&self, signal: libc::c_int) {
        self.0.iter().for_each(|rank| rank.signal(signal));
    }

    fn kill_all(&mut self) {
        for rank in self.0.iter_mut().filter(|rank| rank.status.is_none()) {
            rank.killed = true;
            rank.signal(libc::SIGKILL);
        }
    }

    /// What is to be said of the ranks when all have ended, and what exit code that makes: which failed and how. Those that
    /// only gave way to it are passed over.
    fn report(mut self) -> (Vec<String>, Exit) {
        let ranks = std::mem::take(&mut self.0);
        let has_failed = ranks.iter().any(|rank| rank.has_failed() && !rank.gave_way());
        // Rank 0 says its own error.
        let mut is_said = ranks[0].has_failed() && !ranks[0].gave_way();
        let (mut lines, mut exit) = (Vec::new(), Exit::Fine);
        for (number, rank) in ranks.into_iter().enumerate() {
            let is_passed_over = rank.gave_way() && has_failed;
            let said = rank.said.and_then(|thread| thread.join().ok()).unwrap_or_default();
            let Some(status) = rank.status.filter(|status| !status.success() && !is_passed_over) else {
                continue;
            };
            let signal = status.signal();
            if signal.is_some() || !is_said && !matches!(status.code(), Some(PEER | INTERRUPTED)) {
                lines.extend(said.lines().map(|line| format!("rank {number}: {line}")));
                is_said = true;
            }
            if let Some(signal) = signal {
                lines.push(format!(
                    "error: rank {number} was killed by signal {signal}; the others were stopped"
                ));
            }
            exit = match (exit, status.code()) {
                (Exit::Fine | Exit::CouldNotRun, Some(1)) => Exit::Data,
                (Exit::Fine, Some(INTERRUPTED)) => Exit::Interrupted,
                (Exit::Fine, _) => Exit::CouldNotRun,
                (known, _) => known,
            };
        }
        (lines, exit)
    }
}

impl Drop for Ranks {
    /// If the launcher cannot go on, neither can they.
    fn drop(&mut self) {
        self.signal_all(libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of ranks that run these shell scripts, and the exit code. Rank 0 says its own errors.
    ///
    /// `$READY` is a directory that is empty at first.
    fn outcome(scripts: &[&str]) -> (Vec<String>, Exit) {
        let ready = std::env::temp_dir().join(format!("curate-launch-{}", std::process::id()));
        std::fs::create_dir_all(&ready).unwrap();
        let start = |script: &&str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("READY", &ready).stderr(Stdio::piped());
            Rank::new(command.spawn().unwrap())
        };
        let mut ranks = Ranks(scripts.iter().map(start).collect());
        ranks.wait(&AtomicBool::new(false), Duration::from_millis(300)).unwrap();
        std::fs::remove_dir_all(&ready).unwrap();
        ranks.report()
    }

    #[test]
    fn the_rank_that_failed_has_the_word() {
        const DEAF: &str = "trap '' TERM; touch $READY/0; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";
        const GIVES_WAY: &str = "trap 'exit 130' TERM; touch $READY/0; while true; do sleep 0.1; done";
        const SEES: &str = "trap 'exit 3' TERM; touch $READY/0; while true; do sleep 0.1; done";
        // Not before the other one has set its trap.
        let then = |what: &str| format!("until [ -e $READY/0 ]; do sleep 0.05; done; {what}");
        let check = |scripts: &[&str], expected: &[&str], code: Exit| {
            let (lines, exit) = outcome(scripts);
            assert_eq!(
                (lines.iter().map(String::as_str).collect(), exit),
                (expected.to_vec(), code),
                "{scripts:?}"
            );
        };
        let fails = &*then("echo why >&2; exit 2");
        check(&[fails, DEAF], &[], Exit::CouldNotRun);
        check(&[DEAF, fails], &["rank 1: why"], Exit::CouldNotRun);
        check(&[GIVES_WAY, fails], &["rank 1: why"], Exit::CouldNotRun);
        check(&[SEES, fails], &["rank 1: why"], Exit::CouldNotRun);
        check(&[SEES, &then("exit 1")], &[], Exit::Data);
        let killed = "error: rank 1 was killed by signal 9; the others were stopped";
        check(&[GIVES_WAY, &then("kill -9 $$")], &[killed], Exit::CouldNotRun);
        check(&[GIVES_WAY, &then("exit 130")], &[], Exit::Interrupted);
        check(&["exit 0", "exit 0"], &[], Exit::Fine);
    }
}
