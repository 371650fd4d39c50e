use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curate_shards::ShardSet;
use curate_train::data::{Batch, Loader};
use curate_train::train::{Record, StepRecord};

use crate::support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_curate-train");
const STEPS: u64 = 12;

/// Flags of a small run that evaluates and saves on its way.
fn flags(shards: &ShardSet, run: &Path, more: &str) -> Vec<String> {
    let fixed = format!(
        "train {} -o {} --preset char-tiny --layers 2 --batch-size 8 --micro-batch 4 --steps {STEPS} --eval-every 5 \
         --keep-last 9 --threads 1 --quiet {more}",
        text(shards.dir()),
        text(run)
    );
    fixed.split_whitespace().map(str::to_owned).collect()
}

fn run(flags: &[String]) {
    succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Largest difference between two files of fp32 numbers, their headers left out.
fn difference(a: &[u8], b: &[u8]) -> f32 {
    let values = |bytes: &[u8]| -> Vec<f32> {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    };
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// All but the mean loss must be the same: one process adds up its micro-batches in fp32, several add theirs in fp64.
fn assert_logs_agree(a: &Path, b: &Path) {
    let (ours, theirs) = (logged(a), logged(b));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        match (ours, theirs) {
            (Record::Step(ours), Record::Step(theirs)) => {
                assert!((ours.loss_nats - theirs.loss_nats).abs() < 1e-6, "{ours:?} and {theirs:?}");
                assert_eq!(ours, StepRecord { loss_nats: ours.loss_nats, ..theirs });
            }
            (ours, theirs) => assert_eq!(ours, theirs),
        }
    }
}

fn losses(run: &Path) -> Vec<f64> {
    let loss = |record| if let Record::Step(step) = record { Some(step.loss_nats) } else { None };
    logged(run).into_iter().filter_map(loss).collect()
}

#[test]
fn shares_of_a_step_are_the_step() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let data = small_options(&shards, 1).data;
    for world_size in [1, 2, 3, 8] {
        let mut whole = Loader::start(&shards, &data, 3, 60).unwrap();
        let start = |rank| Loader::start_share(&shards, &data, (rank, world_size), 3, 60).unwrap();
        let mut shares: Vec<Loader> = (0..world_size).map(start).collect();
        for _ in 3..60 {
            let step = whole.next_batch().unwrap();
            let mut joined = Batch { seq_len: step.seq_len, ..Batch::default() };
            for share in &mut shares {
                let part = share.next_batch().unwrap();
                joined.rows += part.rows;
                joined.inputs.extend(&part.inputs);
                joined.targets.extend(&part.targets);
                joined.row_numbers.extend(&part.row_numbers);
                joined.source_targets.resize(part.source_targets.len(), 0);
                joined.source_targets.iter_mut().zip(&part.source_targets).for_each(|(sum, n)| *sum += n);
                share.give_back(part); // used again: nothing of it may show
            }
            assert_eq!(step, joined);
            assert_eq!(step.source_targets.iter().sum::<u64>(), step.num_targets());
            whole.give_back(step);
        }
    }
    let few = Loader::start_share(&shards, &data, (0, 9), 0, 1).unwrap_err().to_string();
    assert_eq!(few, "--batch-size: 8 rows cannot be shared by 9 processes");
}

#[test]
fn two_processes_are_one_with_twice_the_accumulation() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let (one, two) = (dir.join("one"), dir.join("two"));
    // With equally many targets in both shares the sums have the same terms in the same order.
    let data = small_options(&shards, 1).data;
    let counts = |rank| -> Vec<u64> {
        let mut loader = Loader::start_share(&shards, &data, (rank, 2), 0, STEPS).unwrap();
        (0..STEPS).map(|_| loader.next_batch().unwrap().num_targets()).collect()
    };
    assert_eq!(counts(0), counts(1), "another seed is needed");
    run(&flags(&shards, &one, "--engine reference"));
    run(&flags(&shards, &two, "--engine reference --nproc 2"));
    assert_logs_agree(&one, &two);
    assert!(tensors_of(&one, STEPS) == tensors_of(&two, STEPS), "weights or moments differ");
    let (muon, two_muons) = (dir.join("muon"), dir.join("two-muons"));
    run(&flags(&shards, &muon, "--engine reference --optimizer muon --sample-every 4"));
    run(&flags(&shards, &two_muons, "--engine reference --optimizer muon --sample-every 4 --nproc 2"));
    assert_logs_agree(&muon, &two_muons);
    assert!(tensors_of(&muon, STEPS) == tensors_of(&two_muons, STEPS), "Muon: weights or moments differ");
    let names = |run: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&one), names(&two));
}

#[test]
fn the_fused_engine_and_uneven_shares_differ_by_rounding() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let one = dir.join("one");
    run(&flags(&shards, &one, "--engine fused"));
    for (name, more) in [("two", "--engine fused --nproc 2"), ("three", "--engine reference --nproc 3")] {
        let other = dir.join(name);
        run(&flags(&shards, &other, more));
        let [ours, theirs] = [&one, &other].map(|run| tensors_of(run, STEPS));
        let found = difference(&ours[0], &theirs[0]);
        // AdamW's first updates are nearly the sign of the gradient times 0.005: rounding that turns a tiny one shows.
        assert!(found < 1e-4, "{name}: weights differ by {found}");
        for (ours, theirs) in losses(&one).into_iter().zip(losses(&other)) {
            assert!((ours - theirs).abs() < 1e-5, "{name}: losses {ours} and {theirs}");
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let whole = dir.join("whole");
    run(&flags(&shards, &whole, "--engine reference"));
    for (name, first, then) in [("grows", "1", "2"), ("shrinks", "2", "1")] {
        let parts = dir.join(name);
        run(&flags(&shards, &parts, &format!("--engine reference --stop-after 7 --nproc {first}")));
        let stderr = succeed(&["train", "-o", text(&parts), "--resume", "--quiet", "--nproc", then]).1;
        if then == "1" {
            let expected =
                "warning: --nproc changed: the result will differ from an uninterrupted run's by rounding\n";
            assert_eq!(stderr, expected);
        }
        assert_logs_agree(&whole, &parts);
        assert!(tensors_of(&whole, STEPS) == tensors_of(&parts, STEPS), "{name}: weights or moments differ");
    }
}

/// A port that nobody listens on, of those that the system gives to no outgoing connection in the meantime.
fn free_port() -> u16 {
    let from = 20_000 + std::process::id() % 10_000;
    let mut ports = (from..from + 1_000).map(|port| u16::try_from(port).unwrap());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[test]
fn torchruns_variables_are_enough() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let (launched, by_hand) = (dir.join("launched"), dir.join("by-hand"));
    run(&flags(&shards, &launched, "--nproc 2"));
    let port = free_port().to_string();
    let start = |rank: &str| {
        let variables = [
            ("RANK", rank),
            ("LOCAL_RANK", rank),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "localhost"),
            ("MASTER_PORT", &port),
        ];
        Command::new(PROGRAM).args(flags(&shards, &by_hand, "")).envs(variables).spawn().unwrap()
    };
    // The second comes first and waits.
    let mut ranks = [start("1"), start("0")];
    assert!(ranks.iter_mut().all(|rank| rank.wait().unwrap().success()));
    assert!(tensors_of(&launched, STEPS) == tensors_of(&by_hand, STEPS));
}

#[test]
fn what_cannot_be_started_is_told_once() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let flags = flags(&shards, &dir.join("run"), "--nproc 9");
    let stderr = fail(2, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let line = "error: --batch-size: 8 rows cannot be shared by 9 processes";
    assert_eq!(stderr.lines().filter(|said| said.contains("cannot be shared")).collect::<Vec<_>>(), [line]);
    let output = Command::new(PROGRAM).args(["train", "x", "--quiet"]).env("RANK", "3").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("error: WORLD_SIZE is not set\nhint: start the ranks with torchrun"),
        "{stderr}"
    );
}

#[test]
fn what_only_the_first_process_is_refused_is_told_at_once_and_alone() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    let mut first = create(&run, &shards, &small_options(&shards, 4));
    train(&mut first, Some(1));
    let began = Instant::now();
    let stderr = fail(2, &["train", "-o", text(&run), "--resume", "--nproc", "2"]);
    let said: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(said, [format!("error: {} is in use by another process", text(&run))]);
    assert!(began.elapsed() < Duration::from_secs(10), "the second process waited for the first: {stderr}");
}

/// Starts two processes on a run that would take minutes, and waits for its first checkpoint.
fn long_run(dir: &TestDir) -> (Child, std::path::PathBuf) {
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    let more = "--nproc 2 --steps 100000 --save-every 2 --keep-last 2";
    let mut flags = flags(&shards, &run, "");
    flags.retain(|flag| flag != "--keep-last" && flag != "9");
    let at = flags.iter().position(|flag| flag == "--steps").unwrap();
    flags.drain(at..at + 2);
    flags.extend(more.split(' ').map(str::to_owned));
    let child = Command::new(PROGRAM).args(flags).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while curate_train::checkpoint::list(&run).unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint in two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
    (child, run)
}

/// The processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let mut found: Vec<u32> =
        std::fs::read_to_string(path).unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect();
    found.sort_unstable();
    found
}

fn signal(process: u32, signal: libc::c_int) {
    // SAFETY: a process of this test that has not been waited for.
    assert_eq!(unsafe { libc::kill(process.cast_signed(), signal) }, 0);
}

fn is_gone(process: u32) -> bool {
    // Whatever has taken its number since then is not this program.
    let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    !String::from_utf8_lossy(&command).contains("curate-train")
}

#[test]
#[cfg(target_os = "linux")]
fn a_rank_that_dies_ends_all() {
    let dir = TestDir::new();
    let (child, run) = long_run(&dir);
    let ranks = children(child.id());
    assert_eq!(ranks.len(), 2);
    signal(ranks[1], libc::SIGKILL);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.ends_with("error: rank 1 was killed by signal 9; the others were stopped\n"), "{stderr}");
    assert!(ranks.iter().all(|rank| is_gone(*rank)));
    newest(&run); // is whole
}

/// The names of a process's threads, each with whether it lets SIGINT or SIGTERM through.
fn threads(process: u32) -> Vec<(String, bool)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    status
        .filter(|status| !status.contains("\nThreads:\t0\n")) // has just ended, and shows an empty mask
        .map(|status| {
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap();
            let both = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGTERM - 1);
            (field("Name:").to_owned(), blocked & both != both)
        })
        .collect()
}

/// A handler's frame on a thread that computes could lie in the heap: oneDNN's products borrow the stack pointer.
#[test]
#[cfg(target_os = "linux")]
fn no_thread_that_computes_is_interrupted() {
    let dir = TestDir::new();
    let (mut launcher, _) = long_run(&dir);
    for rank in children(launcher.id()) {
        let threads = threads(rank);
        assert!(threads.len() > 2, "{threads:?}");
        // `sigwait` takes what it waits for although it is blocked, and lets it through meanwhile.
        let open: Vec<_> = threads.iter().filter(|(name, open)| *open && name != "signals").collect();
        assert!(open.is_empty(), "{open:?} of {threads:?}");
    }
    launcher.kill().unwrap();
    launcher.wait().unwrap();
}

/// A process that has not come to listen for signals yet would be killed by one.
#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_before_the_processes_have_begun_is_no_failure() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    for moment in [0, 50, 100] {
        let flags = flags(&shards, &dir.join("run"), "--nproc 2");
        let child = Command::new(PROGRAM).args(flags).stderr(Stdio::piped()).spawn().unwrap();
        while children(child.id()).len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(moment));
        signal(child.id(), libc::SIGINT);
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(130), "{}", output.status);
        let _ = std::fs::remove_dir_all(dir.join("run"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_saves_and_a_killed_launcher_leaves_nobody() {
    let dir = TestDir::new();
    let (child, run) = long_run(&dir);
    signal(child.id(), libc::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let stopped = newest(&run).state.step;
    let again = Command::new(PROGRAM)
        .args(["train", "-o", text(&run), "--resume", "--nproc", "2", "--quiet"])
        .stderr(Stdio::inherit())
        .spawn();
    let mut again = again.unwrap();
    let began = Instant::now();
    while newest(&run).state.step <= stopped {
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ranks = children(again.id());
    again.kill().unwrap();
    again.wait().unwrap();
    let began = Instant::now();
    while !ranks.iter().all(|rank| is_gone(*rank)) {
        assert!(began.elapsed() < Duration::from_secs(20), "ranks live on without their launcher");
        std::thread::sleep(Duration::from_millis(10));
    }
}
