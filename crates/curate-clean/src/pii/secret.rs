//! Keys and tokens by the prefixes their issuers give them, with a look at whether the rest is random.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{PiiKind, PiiSpan};

/// A prefix, what follows it, and how random that must look.
struct Shape {
    prefix: &'static str,
    label: &'static str,
    /// Letters and digits are always part of the rest; these are too.
    others: &'static [u8],
    min_bytes: usize,
    max_bytes: usize,
    /// Least entropy of the rest, in bits per byte: placeholders such as `xxxx` stay.
    min_entropy: f64,
}

const fn shape(
    prefix: &'static str,
    label: &'static str,
    others: &'static [u8],
    [min_bytes, max_bytes]: [usize; 2],
    min_entropy: f64,
) -> Shape {
    Shape { prefix, label, others, min_bytes, max_bytes, min_entropy }
}

const SHAPES: &[Shape] = &[
    shape("AKIA", "aws_access_key", b"", [16, 16], 2.7),
    shape("ASIA", "aws_access_key", b"", [16, 16], 2.7),
    shape("ghp_", "github_token", b"", [36, 255], 3.3),
    shape("gho_", "github_token", b"", [36, 255], 3.3),
    shape("ghu_", "github_token", b"", [36, 255], 3.3),
    shape("ghs_", "github_token", b"", [36, 255], 3.3),
    shape("ghr_", "github_token", b"", [36, 255], 3.3),
    shape("github_pat_", "github_token", b"_", [40, 255], 3.3),
    shape("glpat-", "gitlab_token", b"_-.", [20, 255], 3.0),
    shape("xoxb-", "slack_token", b"-", [20, 255], 2.7),
    shape("xoxp-", "slack_token", b"-", [20, 255], 2.7),
    shape("xoxa-", "slack_token", b"-", [20, 255], 2.7),
    shape("xoxr-", "slack_token", b"-", [20, 255], 2.7),
    shape("xoxs-", "slack_token", b"-", [20, 255], 2.7),
    shape("hooks.slack.com/services/", "slack_webhook", b"/", [30, 255], 3.0),
    shape("sk_live_", "stripe_key", b"", [16, 255], 3.0),
    shape("sk_test_", "stripe_key", b"", [16, 255], 3.0),
    shape("rk_live_", "stripe_key", b"", [16, 255], 3.0),
    shape("rk_test_", "stripe_key", b"", [16, 255], 3.0),
    shape("AIza", "google_api_key", b"_-", [35, 35], 3.3),
    shape("GOCSPX-", "google_client_secret", b"_-", [28, 28], 3.0),
    shape("sk-", "openai_like_key", b"_-", [32, 255], 3.5),
    shape("npm_", "npm_token", b"", [36, 36], 3.3),
    shape("pypi-AgEIcHlwaS5vcmc", "pypi_token", b"_-", [50, 512], 3.3),
    shape("hf_", "hugging_face_token", b"", [34, 40], 3.3),
    shape("eyJ", "jwt", b"_-.=", [40, 8192], 3.5),
    shape("-----BEGIN ", "private_key", b"", [0, 0], 0.0),
];

/// Longest body of a private key that is taken together.
const MAX_KEY_BYTES: usize = 1 << 14;

#[derive(Debug)]
pub(super) struct Secrets {
    prefixes: AhoCorasick,
}

impl Secrets {
    pub(super) fn new() -> Self {
        let prefixes = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(SHAPES.iter().map(|shape| shape.prefix))
            .expect("a list of short prefixes compiles");
        Self { prefixes }
    }

    /// Adds the findings, in order; they do not overlap.
    pub(super) fn collect(&self, text: &str, spans: &mut Vec<PiiSpan>) {
        let mut done = 0;
        for hit in self.prefixes.find_iter(text) {
            let (start, behind) = (hit.start(), hit.end());
            let shape = &SHAPES[hit.pattern().as_usize()];
            if start < done || is_inside_word(text, start) {
                continue;
            }
            let end = match shape.label {
                "private_key" => private_key_end(text, behind),
                _ => rest_end(text, behind, shape),
            };
            if let Some(end) = end {
                done = end;
                spans.push(PiiSpan { range: start..end, kind: PiiKind::Secret, label: shape.label });
            }
        }
    }
}

/// Bytes of the prefix that a mask leaves; the whole first line of a private key.
pub(super) fn prefix_bytes(value: &str) -> usize {
    let longest = SHAPES
        .iter()
        .map(|s| s.prefix)
        .filter(|prefix| value.starts_with(prefix))
        .map(str::len)
        .max()
        .unwrap_or(0);
    match value.starts_with("-----BEGIN ") {
        true => value.find('\n').unwrap_or(value.len()),
        false => longest,
    }
}

fn is_inside_word(text: &str, at: usize) -> bool {
    at.checked_sub(1).is_some_and(|i| {
        let b = text.as_bytes()[i];
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
    })
}

/// Where the rest that begins at `start` ends, if it has the shape and looks random.
fn rest_end(text: &str, start: usize, shape: &Shape) -> Option<usize> {
    let rest = &text.as_bytes()[start..];
    let is_part = |b: &&u8| b.is_ascii_alphanumeric() || shape.others.contains(b);
    let mut length = rest.iter().take(shape.max_bytes + 1).take_while(is_part).count();
    while length > 0 && !rest[length - 1].is_ascii_alphanumeric() && matches!(rest[length - 1], b'.' | b'-') {
        length -= 1;
    }
    let body = &rest[..length];
    let fits = (shape.min_bytes..=shape.max_bytes).contains(&length);
    let has_form = match shape.label {
        "aws_access_key" => {
            body.iter().all(|b| !b.is_ascii_lowercase()) && !text[start..start + length].contains("EXAMPLE")
        }
        "openai_like_key" => body.iter().any(u8::is_ascii_digit) && body.iter().any(u8::is_ascii_uppercase),
        "jwt" => {
            body.iter().filter(|b| **b == b'.').count() == 2 && text[start..start + length].contains(".eyJ")
        }
        _ => true,
    };
    (fits && has_form && entropy(body) >= shape.min_entropy).then_some(start + length)
}

/// Where the key ends whose header goes on at `start`: behind its footer, or where its lines stop looking like one.
fn private_key_end(text: &str, start: usize) -> Option<usize> {
    let limit = text.floor_char_boundary(text.len().min(start + MAX_KEY_BYTES));
    let rest = &text[start..limit];
    let header = rest.find("-----")?;
    if header > 40 || !rest[..header].contains("PRIVATE KEY") {
        return None;
    }
    let body = header + 5;
    let is_body = |c: char| c.is_ascii_alphanumeric() || "+/=:,\\ \t\r\n-".contains(c);
    let stop = rest[body..].find(|c| !is_body(c)).map_or(rest.len(), |i| body + i);
    let end = match rest[body..].find("-----END ").map(|i| body + i) {
        Some(footer) if footer <= stop => {
            let close = rest[footer + 9..].find("-----").map_or(footer + 9, |i| footer + 9 + i + 5);
            return (footer - body >= 64).then_some(start + close);
        }
        _ => body + rest[body..stop].trim_end().len(),
    };
    // Prose about keys shows the header alone.
    let first_line = rest[body..end].trim_start().split([' ', '\n', '\\']).next().unwrap_or_default();
    (first_line.len() >= 40).then_some(start + end)
}

/// Shannon entropy of the bytes, in bits per byte.
fn entropy(body: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for b in body {
        counts[usize::from(*b)] += 1;
    }
    let n = body.len() as f64;
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum()
}
