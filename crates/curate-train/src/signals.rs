//! Ctrl-C and SIGTERM ask the program to stop at the next good moment; a second one stops it at once.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen, and returns the flag that is set when the user interrupts.
pub(crate) fn listen() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: all zeroes is a valid sigaction (empty mask, no flags).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        // After the first signal the default comes back, so that the second kills.
        action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
        // SAFETY: `action` is initialised and its handler only stores to an atomic, which is allowed in a handler.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
    &INTERRUPTED
}

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}
