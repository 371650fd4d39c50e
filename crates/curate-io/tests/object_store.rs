//! Reading from an object store and a web server, both started here and bound to this machine.
#![cfg(feature = "object-store")]
#![allow(clippy::disallowed_methods)] // the test writes what it reads

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use curate_core::{Block, Source};
use curate_io::{InputOptions, Inputs, Resolved, resolve};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Serves the buckets in `root` until the runtime is dropped; returns the port.
fn serve_s3(runtime: &tokio::runtime::Runtime, root: &Path) -> u16 {
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = service.build();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    port
}

/// Answers requests for `body`; every body is cut after at most `part` bytes. Returns the port and how often it was
/// asked for.
fn serve_http(body: Vec<u8>, part: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for socket in listener.incoming() {
            answer(&mut socket.unwrap(), &body, part, &count);
        }
    });
    (port, asked)
}

fn answer(socket: &mut TcpStream, body: &[u8], part: usize, asked: &AtomicUsize) {
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let mut from = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next().unwrap().parse().unwrap();
        }
    }
    let head = "Connection: close\r\nETag: \"one\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    if !request.contains("/dir/a%20b.txt?sig=1 ") {
        let _ = write!(socket, "HTTP/1.1 404 Not Found\r\n{head}Content-Length: 0\r\n\r\n");
    } else if request.starts_with("HEAD") {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", body.len());
    } else {
        asked.fetch_add(1, Ordering::Relaxed);
        let (size, last) = (body.len(), body.len() - 1);
        let status = if from == 0 {
            "200 OK\r\n".to_owned()
        } else {
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{size}\r\n")
        };
        let _ = write!(socket, "HTTP/1.1 {status}{head}Content-Length: {}\r\n\r\n", size - from);
        let _ = socket.write_all(&body[from..size.min(from + part)]);
    }
}

fn find(url: &str) -> Resolved {
    resolve(&[url.into()], None).unwrap()
}

/// All records, each after its origin, and all damage.
fn read(resolved: Resolved) -> (Vec<String>, Vec<String>) {
    let mut inputs = Inputs::new(resolved.files, InputOptions::default());
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    let mut block = Block::default();
    while inputs.fill(&mut block).unwrap() {
        for i in 0..block.records.len() {
            let record = block.record(i);
            records.push(format!("{} {}", record.origin, String::from_utf8_lossy(record.bytes)));
        }
        damage.extend(block.damage.iter().map(ToString::to_string));
        block.clear();
    }
    (records, damage)
}

/// One test, because the environment is one.
#[test]
fn addresses_are_read_like_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join("bucket").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("in/b.jsonl.gz", &gzip(b"{\"b\":1}\n{\"b\":2}\n"));
    write("in/a.jsonl", b"{\"a\":1}\n");
    write("in/deep/c.txt", b"c");
    write("in/image.png", b"\x7fpng");
    write("in/.hidden.txt", b"no");
    write("inner.jsonl", b"not below in/");
    let long = "0123456789\n".repeat(500_000);
    write("long.txt", long.as_bytes());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let port = serve_s3(&runtime, dir.path());
    for (name, value) in [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}").as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ] {
        // SAFETY: this is the only test of its binary, and the server's threads do not look at the environment.
        unsafe { std::env::set_var(name, value) };
    }

    let one = find("s3://bucket/in/a.jsonl");
    assert_eq!((one.files[0].bytes(), one.roots.len()), (Some(8), 0));
    assert!(one.files[0].modified().is_some());
    assert_eq!(read(one).0, ["s3://bucket/in/a.jsonl {\"a\":1}"]);
    let (records, damage) = read(find("s3://bucket/long.txt"));
    assert_eq!((records[0].len(), damage.len()), (long.len() + "s3://bucket/long.txt ".len(), 0));

    let all = find("s3://bucket/in/");
    assert_eq!(all.roots, [Path::new("s3://bucket/in/")]);
    assert_eq!(all.skipped, [Path::new("s3://bucket/in/image.png")]);
    let expected = [
        "s3://bucket/in/a.jsonl {\"a\":1}",
        "s3://bucket/in/b.jsonl.gz {\"b\":1}",
        "s3://bucket/in/b.jsonl.gz {\"b\":2}",
        "s3://bucket/in/deep/c.txt c",
    ];
    assert_eq!(read(all), (expected.map(str::to_owned).to_vec(), vec![]));
    assert_eq!(read(find("s3://bucket/in/*.jsonl*")).0, expected[..3]);
    assert_eq!(read(find("s3://bucket/**/c.txt")).0, expected[3..]);

    let failed = |url: &str| {
        let error = resolve(&[url.into()], None).unwrap_err();
        (error.to_string(), error.hint().unwrap())
    };
    let (error, hint) = failed("s3://bucket/in/none.jsonl");
    assert_eq!(error, "cannot read s3://bucket/in/none.jsonl: there is no such object");
    assert!(hint.contains("AWS_ACCESS_KEY_ID") && hint.contains("AWS_ENDPOINT"), "{hint}");
    assert_eq!(failed("s3://bucket/none/").0, "s3://bucket/none/ matches no input file");
    assert!(failed("ftp://host/a").0.contains("expected s3://"));

    let gone = find("s3://bucket/in/a.jsonl");
    std::fs::remove_file(dir.path().join("bucket/in/a.jsonl")).unwrap();
    let (_, damage) = read(gone);
    assert!(damage.len() == 1 && damage[0].contains("there is no such object"), "{damage:?}");

    let (port, asked) = serve_http(long.clone().into_bytes(), 2_000_000);
    let url = format!("http://127.0.0.1:{port}/dir/a%20b.txt?sig=1");
    let (records, damage) = read(find(&url));
    assert!(damage.is_empty(), "{damage:?}");
    // A body that breaks off is read on from where it stopped.
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].len(), url.len() + 1 + long.len());
    assert!(records[0].ends_with(&long));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert!(failed(&format!("http://127.0.0.1:{port}/other")).0.ends_with("there is no such object"));
    assert!(failed(&format!("http://127.0.0.1:{port}/dir/")).0.starts_with("cannot list"));
    runtime.shutdown_background();
}
