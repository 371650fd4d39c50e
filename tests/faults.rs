//! What goes wrong outside: full disks, closed doors, signals, torn and hostile files. Each with its exact message.

use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{CURATE, Scratch, corpus, curate, gzip, line, report, root, shell};

/// The lines of stderr that begin with one of these.
fn lines<'a>(stderr: &'a str, beginnings: &[&str]) -> Vec<&'a str> {
    stderr.lines().map(str::trim_start).filter(|l| beginnings.iter().any(|b| l.starts_with(b))).collect()
}

#[test]
fn a_full_disk_is_named() {
    let input = line("a", "some text").repeat(50_000);
    for command in ["curate read -q", "curate clean -q --recipe none", "curate dedup -q --exact"] {
        let out = shell(&format!("{command} > /dev/full"), &input).expect(2);
        assert_eq!(
            out.stderr, "error: cannot write stdout\ncaused by: No space left on device (os error 28)\n",
            "{command}"
        );
        let out = shell(&format!("{command} -o /dev/full"), &input).expect(2);
        assert_eq!(
            out.stderr, "error: cannot write /dev/full\ncaused by: No space left on device (os error 28)\n",
            "{command}"
        );
    }
    assert!(fs::metadata("/dev/full").unwrap().file_type() != fs::metadata("/").unwrap().file_type());
}

/// Runs `curate ARGS` as a user without rights; `None` where that cannot be done.
fn as_nobody(args: &[&str]) -> Option<(Option<i32>, String)> {
    const NOBODY: u32 = 65534;
    let output = Command::new(CURATE).args(args).uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output();
    match output {
        Ok(output) => Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            println!("skipped: cannot become another user ({error})");
            None
        }
    }
}

#[test]
fn closed_doors_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Scratch::new();
    let secret = dir.file("secret.jsonl", line("a", "x"));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let path = secret.display().to_string();
    let Some((code, stderr)) = as_nobody(&["read", &path]) else { return };
    let expected = format!("damaged: {path} (byte 0): cannot open {path}: Permission denied (os error 13)");
    assert_eq!((code, lines(&stderr, &["damaged"])), (Some(1), vec![expected.as_str()]), "{stderr}");
    let target = dir.path("out.jsonl").display().to_string();
    let (code, stderr) = as_nobody(&["read", "-o", &target]).unwrap();
    assert_eq!(code, Some(2));
    assert!(
        stderr.starts_with("error: cannot create ")
            && stderr.contains("caused by: Permission denied (os error 13)"),
        "{stderr}"
    );
}

#[test]
fn signals_stop_cleanly() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let dir = Scratch::new();
        let output = dir.path("out.jsonl");
        let mut child = Command::new(CURATE)
            .args(["read".as_ref(), "-".as_ref(), "-o".as_ref(), output.as_os_str()])
            .current_dir(root())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = line("a", "text that keeps coming").repeat(10_000);
        // Feed it until it stops reading.
        let writer = thread::spawn(move || while pipe.write_all(input.as_bytes()).is_ok() {});
        let start = Instant::now();
        while fs::read_dir(dir.path("")).unwrap().next().is_none()
            && start.elapsed() < Duration::from_secs(30)
        {
            thread::sleep(Duration::from_millis(2));
        }
        // SAFETY: kill(2) with the id of our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let ended = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(signal), "{stderr}");
        assert!(stderr.contains("interrupted") && !stderr.contains("panicked"), "{stderr}");
        assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 0, "no file is left, finished or not");
    }
}

#[test]
fn torn_archives_give_what_they_hold_and_are_named() {
    let dir = Scratch::new();
    let text: String =
        corpus(2000).lines().filter(|l| l.ends_with("\"}")).map(|l| format!("{l}\n")).collect();
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let zst = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let after = dir.file("z.jsonl", line("after", "the next file is read all the same"));
    for (name, packed) in [("a.jsonl.gz", cut(gzip(text.as_bytes()))), ("b.jsonl.zst", cut(zst))] {
        let path = dir.file(name, packed);
        let json = dir.path("report.json");
        let args =
            ["read".as_ref(), "--report".as_ref(), json.as_os_str(), path.as_os_str(), after.as_os_str()];
        let out = curate(args, "").expect(1);
        let kept = out.stdout().strip_suffix(&line("after", "the next file is read all the same")).unwrap();
        assert!(text.starts_with(kept) && kept.len() > text.len() / 10, "{} bytes", kept.len());
        let fault = &report(&json)["damaged"][0];
        assert_eq!(fault["file"], path.display().to_string());
        assert_eq!(fault["offset"], kept.len());
        assert!(out.stderr.contains("warning: 1 faults in the inputs"), "{}", out.stderr);
        let strict = curate(["read".as_ref(), "--on-error".as_ref(), "fail".as_ref(), path.as_os_str()], "");
        let strict = strict.expect(1);
        assert!(
            strict.stderr.starts_with(&format!("error: malformed record: {}", path.display())),
            "{}",
            strict.stderr
        );
    }
}

#[test]
fn odd_bytes_in_records() {
    let deep =
        format!("{{\"id\":\"deep\",\"text\":\"t\",\"x\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let input = [
        b"{\"id\":\"crlf\",\"text\":\"a\\r\\nb\"}\r\n".as_slice(),
        b"{\"id\":\"bad\",\"text\":\"\xff\"}\n",
        b"{\"id\":\"nul\",\"text\":\"\\u0000\"}\n\0\0\n",
        b"{\"id\":\"twice\",\"text\":\"first\",\"text\":\"last\"}\n",
        deep.as_bytes(),
        b"\n",
    ]
    .concat();
    let dir = Scratch::new();
    let json = dir.path("report.json");
    let out = curate(["read", "--max-malformed", "1", "--report", json.to_str().unwrap()], &input).ok();
    let ids: Vec<&str> = out.stdout().lines().map(|l| l.split('"').nth(3).unwrap()).collect();
    assert_eq!(ids, ["crlf", "nul", "twice"]);
    let report = report(&json);
    assert_eq!(report["malformed"], 3);
    assert_eq!(report["malformed_samples"][2]["message"], "nested more than 500 levels deep");
    assert_eq!(report["malformed_samples"][0]["line"], 2);
    assert!(report["malformed_samples"][0]["message"].as_str().unwrap().contains("UTF-8"), "{report:#}");
    let cleaned =
        curate(["clean", "--recipe", "none", "-q"], "{\"id\":\"t\",\"text\":\"first\",\"text\":\"last \"}\n")
            .ok();
    assert_eq!(
        cleaned.stdout(),
        "{\"id\":\"t\",\"text\":\"first\",\"text\":\"last\"}\n",
        "of a repeated name the last counts"
    );
}

#[test]
fn a_decompression_bomb_is_given_up() {
    let dir = Scratch::new();
    let bomb = zstd::encode_all(std::io::repeat(b'\n').take_bytes(200 << 20), 3).unwrap();
    assert!(bomb.len() < 100_000);
    let path = dir.file("bomb.jsonl.zst", bomb);
    let out = curate(["read".as_ref(), path.as_os_str()], "").expect(1);
    let fault = lines(&out.stderr, &["damaged"])[0];
    assert!(fault.contains("more than 1000 times its size") && fault.contains("--max-expansion"), "{fault}");
    curate(["read", "-q", "--max-expansion", "0", path.to_str().unwrap()], "").ok();
}

trait TakeBytes {
    fn take_bytes(self, n: u64) -> std::io::Take<std::io::Repeat>;
}

impl TakeBytes for std::io::Repeat {
    fn take_bytes(self, n: u64) -> std::io::Take<std::io::Repeat> {
        std::io::Read::take(self, n)
    }
}

#[test]
fn a_tar_member_that_leaves_the_archive_is_not_read() {
    let dir = Scratch::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("in/a.jsonl", "inside"), ("../b.jsonl", "outside"), ("c.jsonl", "after")] {
        let record = line(name, text);
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(record.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, record.as_bytes()).unwrap();
    }
    let path = dir.file("a.tar.gz", gzip(&tar.into_inner().unwrap()));
    let out = curate(["read".as_ref(), path.as_os_str()], "").expect(1);
    assert_eq!(out.stdout(), line("in/a.jsonl", "inside") + &line("c.jsonl", "after"));
    let fault = lines(&out.stderr, &["damaged"])[0];
    assert!(fault.contains("member name leaves the archive (../b.jsonl): not read"), "{fault}");
}

#[test]
fn a_record_over_the_limit_is_passed_over_and_named() {
    let input = line("a", "fine") + &line("long", &"x".repeat(3 << 20)) + &line("b", "fine too");
    let out = curate(["read", "--max-record-bytes", "1M"], &input).expect(1);
    assert_eq!(out.stdout(), line("a", "fine") + &line("b", "fine too"));
    let fault = lines(&out.stderr, &["damaged"])[0];
    assert!(fault.starts_with("damaged: stdin:2 (byte "), "{fault}");
    assert!(fault.contains("longer than 1048576 bytes") && fault.contains("--max-record-bytes"), "{fault}");
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let dir = Scratch::new();
    let part = corpus(2000);
    let peak = |copies: usize, command: &str| {
        let path = dir.path("in.jsonl");
        let mut file = fs::File::create(&path).unwrap();
        for _ in 0..copies {
            file.write_all(part.as_bytes()).unwrap();
        }
        let json = dir.path("report.json");
        shell(
            &format!(
                "curate {command} -q --max-malformed 1 --threads 2 --report {} {} > /dev/null",
                json.display(),
                path.display()
            ),
            "",
        )
        .ok();
        let report = report(&json);
        assert_eq!(report["read"].as_u64().unwrap() % copies as u64, 0);
        report["peak_rss_bytes"].as_u64().unwrap()
    };
    for command in ["read", "clean"] {
        let (once, ten_times) = (peak(4, command), peak(40, command));
        assert!(ten_times < once + (8 << 20), "{command}: {once} bytes for 1×, {ten_times} bytes for 10×");
    }
}
