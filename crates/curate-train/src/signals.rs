//! Ctrl-C and SIGTERM ask the program to stop at the next good moment; a second one stops it at once, and so does the first
//! while it only waits.
//!
//! One thread waits for the signals and all others block them: no handler ever runs upon a thread that computes. oneDNN's
//! fp32 products, as libtorch 2.11 has them, let the stack pointer point into the heap while they run (uxlfoundation/oneDNN
//! issue 4845), and the kernel would put the handler's frame there: over weights, gradients or the allocator's own lists.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicBool = AtomicBool::new(false);

/// The exit code of a program that was interrupted.
const EXIT: i32 = 130;

/// Begins to listen, and returns the flag that is set when the user interrupts.
///
/// To be called before there are other threads: they take over what this one blocks. Where the thread that waits cannot
/// be started, the signals keep their default, which ends the process at once.
pub(crate) fn listen() -> &'static AtomicBool {
    let signals = both();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // A shell has its background jobs ignore SIGINT, and what is ignored cannot be waited for.
        // SAFETY: numbers only; no handler is replaced.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    block(libc::SIG_BLOCK, &signals);
    if thread::Builder::new().name("signals".to_owned()).spawn(move || wait_for(&signals)).is_err() {
        block(libc::SIG_UNBLOCK, &signals);
    }
    &INTERRUPTED
}

/// Does what may wait for long, for other processes, when there is nothing yet to be saved: an interrupt ends the program at
/// once, with the exit code of an interrupted one.
pub(crate) fn waiting<T>(work: impl FnOnce() -> T) -> T {
    // One of the two threads sees what the other has set.
    WAITS.store(true, Ordering::SeqCst);
    end_if(INTERRUPTED.load(Ordering::SeqCst));
    let done = work();
    WAITS.store(false, Ordering::SeqCst);
    done
}

fn end_if(interrupted: bool) {
    if interrupted {
        // SAFETY: a call with a number only. What runs at a regular exit, as destructors of libraries, must not meet
        // threads that are in the middle of something.
        unsafe { libc::_exit(EXIT) };
    }
}

/// SIGINT and SIGTERM.
fn both() -> libc::sigset_t {
    // SAFETY: a set of signals is plain numbers; it is initialised before anything is added to it.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        signals
    }
}

/// Blocks the signals for this thread, or lets them through.
fn block(how: libc::c_int, signals: &libc::sigset_t) {
    // SAFETY: an initialised set. The call fails for an unknown `how` only.
    unsafe { libc::pthread_sigmask(how, signals, std::ptr::null_mut()) };
}

fn wait_for(signals: &libc::sigset_t) {
    loop {
        let mut signal = 0;
        // SAFETY: an initialised set and a place for a number.
        if unsafe { libc::sigwait(signals, &raw mut signal) } != 0 {
            continue;
        }
        let is_second = INTERRUPTED.swap(true, Ordering::SeqCst);
        end_if(WAITS.load(Ordering::SeqCst));
        if is_second {
            block(libc::SIG_UNBLOCK, signals);
            // SAFETY: a call with a number only. Nothing handles the signal, so it ends the process.
            unsafe { libc::raise(signal) };
        }
    }
}
