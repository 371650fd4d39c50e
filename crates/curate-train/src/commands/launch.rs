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
    ranks.wait(interrupted)
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
        Rank { child, status: None, said }
    }

    fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| !status.success())
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
    fn wait(mut self, interrupted: &AtomicBool) -> Result<Exit> {
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
            let unexpected = !passed_on && self.0.iter().any(Rank::has_failed);
            match failed_at {
                None if unexpected => {
                    failed_at = Some(Instant::now());
                    self.signal_all(libc::SIGTERM);
                }
                Some(at) if at.elapsed() > GRACE => self.signal_all(libc::SIGKILL),
                _ => std::thread::sleep(POLL),
            }
        }
        Ok(self.report())
    }

    fn signal_all(&self, signal: libc::c_int) {
        self.0.iter().for_each(|rank| rank.signal(signal));
    }

    /// Says which rank failed and how, and what exit code that makes.
    fn report(mut self) -> Exit {
        // Rank 0 has said its own error, unless it only noticed that another one had ended.
        let mut is_said =
            self.0[0].status.and_then(|status| status.code()).is_some_and(|code| code != 0 && code != PEER);
        let mut exit = Exit::Fine;
        for (number, rank) in std::mem::take(&mut self.0).into_iter().enumerate() {
            let said = rank.said.and_then(|thread| thread.join().ok()).unwrap_or_default();
            let Some(status) = rank.status.filter(|status| !status.success()) else { continue };
            if let Some(signal) = status.signal() {
                said.lines().for_each(|line| output::line(&format!("rank {number}: {line}")));
                output::line(&format!(
                    "error: rank {number} was killed by signal {signal}; the others were stopped"
                ));
                is_said = true;
            } else if !is_said && status.code() != Some(PEER) {
                said.lines().for_each(|line| output::line(&format!("rank {number}: {line}")));
                is_said = true;
            }
            exit = match (exit, status.code()) {
                (Exit::Fine | Exit::CouldNotRun, Some(1)) => Exit::Data,
                (Exit::Fine, Some(130)) => Exit::Interrupted,
                (Exit::Fine, _) => Exit::CouldNotRun,
                (known, _) => known,
            };
        }
        exit
    }
}

impl Drop for Ranks {
    /// If the launcher cannot go on, neither can they.
    fn drop(&mut self) {
        self.signal_all(libc::SIGKILL);
    }
}
