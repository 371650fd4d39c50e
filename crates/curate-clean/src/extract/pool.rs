//! Threads that pages are extracted on, so that a page can be given up.
//!
//! The parsers and engines are other people's code: one page may take minutes, overflow an ordinary stack or
//! panic. Each page runs on a helper thread with a large stack (address space only: memory is used as it is
//! touched). A helper that overruns its time is abandoned: it ends when its page does, and a new one takes its
//! place. At most [`MAX_ABANDONED`] may be running out at once; after that callers wait for one to end, so that a
//! run of bad pages cannot fill the machine.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Stack of a helper in bytes.
const STACK_BYTES: usize = 256 << 20;
/// Helpers that may still be at work on pages nobody waits for.
const MAX_ABANDONED: usize = 4;

/// Why a job gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It took longer than allowed.
    Overrun,
    /// It panicked, or no thread could be started.
    Failed,
}

type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Helper threads, kept for the next page while idle.
pub(crate) struct Pool<T> {
    name: &'static str,
    idle: Mutex<Vec<Helper<T>>>,
    abandoned: Arc<Abandoned>,
}

struct Helper<T> {
    jobs: SyncSender<Job<T>>,
    results: Receiver<std::thread::Result<T>>,
}

/// The number of helpers that overran and have not ended yet.
#[derive(Default)]
struct Abandoned {
    count: Mutex<usize>,
    ended: Condvar,
}

impl<T: Send + 'static> Pool<T> {
    pub(crate) fn new(name: &'static str) -> Self {
        Pool { name, idle: Mutex::default(), abandoned: Arc::default() }
    }

    /// Runs a job on a helper and waits for its result; no longer than `limit` if there is one.
    pub(crate) fn run(
        &self,
        limit: Option<Duration>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let idle = lock(&self.idle).pop();
        let helper = match idle {
            Some(helper) => helper,
            None => {
                self.abandoned.wait_for_room();
                self.start_helper().map_err(|_| Failure::Failed)?
            }
        };
        helper.jobs.send(Box::new(job)).map_err(|_| Failure::Failed)?;
        let result = match limit {
            Some(limit) => helper.results.recv_timeout(limit),
            None => helper.results.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match result {
            Ok(Ok(value)) => {
                lock(&self.idle).push(helper);
                Ok(value)
            }
            // After a panic the helper's caches may be in any state: let it end.
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(Failure::Failed),
            Err(RecvTimeoutError::Timeout) => {
                self.abandoned.add();
                Err(Failure::Overrun)
            }
        }
    }

    fn start_helper(&self) -> std::io::Result<Helper<T>> {
        let (jobs, inbox) = sync_channel::<Job<T>>(1);
        // No room for a result: sending one fails exactly if nobody waits for it any more.
        let (outbox, results) = sync_channel(0);
        let abandoned = Arc::clone(&self.abandoned);
        std::thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
            while let Ok(job) = inbox.recv() {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                if outbox.send(result).is_err() {
                    abandoned.remove();
                    break;
                }
            }
        })?;
        Ok(Helper { jobs, results })
    }
}

impl Abandoned {
    fn wait_for_room(&self) {
        let mut count = lock(&self.count);
        while *count >= MAX_ABANDONED {
            count = self.ended.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self) {
        *lock(&self.count) += 1;
    }

    fn remove(&self) {
        let mut count = lock(&self.count);
        *count = count.saturating_sub(1);
        self.ended.notify_one();
    }
}

/// The values behind these locks are valid at every step, so a panic elsewhere does not spoil them.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_job_is_given_up_and_its_helper_replaced() {
        let pool: Pool<u32> = Pool::new("test");
        let (release, gate) = sync_channel::<()>(0);
        let overrun = pool.run(Some(Duration::from_millis(1)), move || {
            let _ = gate.recv();
            1
        });
        assert_eq!(overrun, Err(Failure::Overrun));
        assert_eq!(pool.run(None, || 2), Ok(2), "another helper works meanwhile");
        assert_eq!(*lock(&pool.abandoned.count), 1);
        drop(release);
        let mut count = lock(&pool.abandoned.count);
        while *count > 0 {
            count = pool.abandoned.ended.wait(count).expect("no panic under the lock");
        }
        drop(count);
        assert_eq!(pool.run(None, || 3), Ok(3));
    }

    #[test]
    fn callers_wait_while_too_many_jobs_run_out() {
        let pool: Arc<Pool<u32>> = Arc::new(Pool::new("test"));
        let (release, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..MAX_ABANDONED {
            let gate = Arc::clone(&gate);
            let overrun = pool.run(Some(Duration::from_millis(1)), move || {
                let _ = lock(&gate).recv();
                0
            });
            assert_eq!(overrun, Err(Failure::Overrun));
        }
        let waiting = Arc::clone(&pool);
        let next = std::thread::spawn(move || waiting.run(None, || 7));
        assert!(!next.is_finished());
        drop(release);
        assert_eq!(next.join().expect("no panic"), Ok(7));
    }

    #[test]
    fn a_panic_is_a_failure_of_its_job_alone() {
        let pool: Pool<u32> = Pool::new("test");
        assert_eq!(pool.run(None, || panic!("on purpose")), Err(Failure::Failed));
        assert_eq!(pool.run(None, || 4), Ok(4));
    }

    #[test]
    fn the_stack_is_large() {
        fn depth(n: u32) -> u64 {
            let ballast = std::hint::black_box([u64::from(n); 64]);
            if n == 0 { ballast[0] } else { 1 + depth(n - 1) + ballast[63] - u64::from(n) }
        }
        assert_eq!(Pool::new("test").run(None, || depth(100_000)), Ok(100_000));
    }
}
