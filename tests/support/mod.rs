//! Driving the binary, and corpora made to measure.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The binary under test.
pub(crate) const CURATE: &str = env!("CARGO_BIN_EXE_curate");

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A directory of its own for a test, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run of the binary left.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    command: String,
}

impl Ran {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Asserts the exit code; a failure shows the command and what it said.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n--- stderr\n{}", self.command, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}\n{}", self.command, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.expect(0)
    }
}

/// Runs `curate ARGS` in the repository's root with `stdin`.
pub(crate) fn curate<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, stdin: impl AsRef<[u8]>) -> Ran {
    let mut command = Command::new(CURATE);
    command.args(args).current_dir(root());
    feed(command, stdin.as_ref())
}

/// Runs a shell command line with `curate` on its PATH.
pub(crate) fn shell(line: &str, stdin: impl AsRef<[u8]>) -> Ran {
    let mut path = Path::new(CURATE).parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", line]).env("PATH", path).current_dir(root());
    feed(command, stdin.as_ref())
}

fn feed(mut command: Command, stdin: &[u8]) -> Ran {
    let shown = format!("{command:?}");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output: Output = thread::scope(|scope| {
        // The child may stop reading early: that is its business.
        scope.spawn(move || pipe.write_all(stdin));
        child.wait_with_output().unwrap()
    });
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: shown,
    }
}

/// The bytes of all files below `dir`, by their path in it.
pub(crate) fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => files.extend(tree(&path).into_iter().map(|(inner, b)| (format!("{name}/{inner}"), b))),
            false => files.push((name, fs::read(&path).unwrap())),
        }
    }
    files
}

/// The report that a command wrote.
pub(crate) fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A JSON line.
pub(crate) fn line(id: &str, text: &str) -> String {
    serde_json::json!({ "id": id, "text": text }).to_string() + "\n"
}

/// A corpus of `n` documents in JSON Lines: prose of varied length, some near-duplicates (a few words changed),
/// some exact ones, some poor ones that `clean` drops, some that it edits, some malformed rows and blank lines.
/// The same for the same `n`.
pub(crate) fn corpus(n: usize) -> String {
    let mut random = Random(42);
    let mut lines = String::new();
    let mut earlier: Vec<String> = Vec::new();
    for i in 0..n {
        let text = match random.below(10) {
            0 | 1 if !earlier.is_empty() => change_words(&earlier[random.below(earlier.len())], &mut random),
            2 if !earlier.is_empty() => earlier[random.below(earlier.len())].clone(),
            3 => "short and poor".to_owned(),
            4 => prose(80, &mut random).replace(' ', "  \u{200b} ").replace('.', ".\r\n\r\n\r\n\r\n"),
            _ => {
                let words = 60 + random.below(400);
                prose(words, &mut random)
            }
        };
        lines += &line(&format!("doc-{i}"), &text);
        earlier.push(text);
        if i % 97 == 50 {
            lines += "{\"id\": \"broken\", \"text\": 17}\n\n";
        }
    }
    lines
}

const WORDS: &str = "the of and to in a is that for it as was with be by on not he his but at are this have from or \
    had an they which one you were all her she there would their we him been has when who will no more if out so up \
    said what its about than into them can only other time new some could these two may first then do any like my \
    now over such our man me even most made after also well many must through years where much your way down should \
    river stone garden window letter morning winter summer machine paper history music island journey market";

pub(crate) fn prose(words: usize, random: &mut Random) -> String {
    let vocabulary: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::new();
    for i in 0..words {
        let at = random.below(vocabulary.len()).min(random.below(vocabulary.len()));
        text += vocabulary[at];
        text += match (random.below(12), i + 1 == words) {
            (_, true) => ".",
            (0, _) => ". ",
            (1, _) => ".\n\n",
            _ => " ",
        };
    }
    text
}

fn change_words(text: &str, random: &mut Random) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let at = random.below(words.len());
    let mut changed: Vec<&str> = words.clone();
    changed[at] = "altered";
    changed.join(" ")
}

/// A small fixed generator (splitmix64): tests must not depend on a library's.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A page with navigation, a heading and `text` as its article.
pub(crate) fn page(title: &str, text: &str) -> String {
    let paragraphs: String = text.split("\n\n").map(|p| format!("<p>{p}</p>\n")).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head><body>\
         <nav><ul><li><a href=\"/\">Home</a></li><li><a href=\"/about\">About us</a></li></ul></nav>\
         <main><article><h1>{title}</h1>\n{paragraphs}</article></main>\
         <footer><a href=\"/imprint\">Imprint</a></footer></body></html>"
    )
}

/// One WARC record of a kind and a content block.
pub(crate) fn warc_record(kind: &str, id: usize, url: &str, block: &[u8]) -> Vec<u8> {
    let mut record = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{id:08}-0000-4000-8000-000000000000>\r\n\
         WARC-Date: 2024-02-03T04:05:06Z\r\nWARC-Target-URI: {url}\r\n\
         Content-Type: application/http; msgtype={kind}\r\nContent-Length: {}\r\n\r\n",
        block.len()
    )
    .into_bytes();
    record.extend_from_slice(block);
    record.extend_from_slice(b"\r\n\r\n");
    record
}

/// A web archive of `pages` pages of prose, numbered from `first`, each record in a gzip member of its own: a request
/// and its response for each page.
pub(crate) fn crawl(first: usize, pages: usize) -> Vec<u8> {
    let mut random = Random(first as u64 + 7);
    let mut archive = Vec::new();
    for i in first..first + pages {
        let url = format!("http://example.org/{i}");
        // Every fifth page is the one before it with a word changed.
        let mut drawn = Random(i as u64 - u64::from(i % 5 == 4));
        let words = 120 + drawn.below(200);
        let mut text = prose(words, &mut drawn);
        if i % 5 == 4 {
            text = change_words(&text, &mut random);
        }
        let html = page(&format!("Page {i}"), &text);
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{html}",
            html.len()
        );
        let request = format!("GET /{i} HTTP/1.1\r\nHost: example.org\r\n\r\n");
        archive.extend(gzip(&warc_record("request", 2 * i, &url, request.as_bytes())));
        archive.extend(gzip(&warc_record("response", 2 * i + 1, &url, response.as_bytes())));
    }
    archive
}
