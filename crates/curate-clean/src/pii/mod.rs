//! Personal data and secrets: found by shape, verified by context or checksum, replaced or reason to drop.
//!
//! A scan looks for what every finding must contain (`@`, a dot between digits, a colon between hexadecimal digits, the
//! prefix of a key) and only there is a look taken around. What is found depends on the text alone and what replaces
//! it on the value alone, so a document comes out the same whatever was scrubbed before it and on which thread.
//!
//! A dotted number is an address only where it reads like one: `Section 4.1.2.4` and `Chrome/4.1.249.1` stay. Names
//! reserved for examples (`example.com`, RFC 2606) and addresses reserved for documentation are nobody's and stay too.

mod address;
mod email;
mod mask;
mod number;
mod secret;

use std::borrow::Cow;
use std::ops::Range;

use curate_core::Counters;
use memchr::memchr3_iter;
use serde::{Deserialize, Serialize};

use address::Addresses;
use secret::Secrets;

/// What a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PiiKind {
    Email,
    Ipv4,
    Ipv6,
    Phone,
    Iban,
    Card,
    Secret,
}

impl PiiKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 7] =
        [Self::Email, Self::Ipv4, Self::Ipv6, Self::Phone, Self::Iban, Self::Card, Self::Secret];

    /// As options and proofs spell it: `email`.
    pub fn name(self) -> &'static str {
        ["email", "ipv4", "ipv6", "phone", "iban", "card", "secret"][self as usize]
    }

    /// What replaces a finding in mode `token`: `<EMAIL>`.
    pub fn token(self) -> &'static str {
        ["<EMAIL>", "<IPV4>", "<IPV6>", "<PHONE>", "<IBAN>", "<CARD>", "<SECRET>"][self as usize]
    }

    /// The name of the counter of findings, and the reason of a drop: `pii_email`.
    pub fn reason(self) -> &'static str {
        ["pii_email", "pii_ipv4", "pii_ipv6", "pii_phone", "pii_iban", "pii_card", "pii_secret"]
            [self as usize]
    }
}

/// What to do with the findings of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PiiMode {
    /// Do not look for it.
    #[default]
    Off,
    /// Replace it by its kind: `<EMAIL>`.
    Token,
    /// Replace it by something of its shape that is nobody's and is a function of the value.
    Mask,
    /// Drop the document.
    Drop,
}

/// A mode for each kind. By default e-mail, addresses and secrets become tokens and the rest is not looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PiiOptions {
    pub email: PiiMode,
    pub ipv4: PiiMode,
    pub ipv6: PiiMode,
    pub phone: PiiMode,
    pub iban: PiiMode,
    pub card: PiiMode,
    pub secret: PiiMode,
    /// Addresses that are not public (private networks, loopback, documentation) count as findings too.
    pub private_addresses: bool,
}

impl Default for PiiOptions {
    fn default() -> Self {
        Self::all_in(PiiMode::Token)
    }
}

impl PiiOptions {
    /// The kinds that are on by default, all in one mode.
    pub fn all_in(mode: PiiMode) -> Self {
        Self {
            email: mode,
            ipv4: mode,
            ipv6: mode,
            phone: PiiMode::Off,
            iban: PiiMode::Off,
            card: PiiMode::Off,
            secret: mode,
            private_addresses: false,
        }
    }

    /// The mode of a kind.
    pub fn mode(&self, kind: PiiKind) -> PiiMode {
        match kind {
            PiiKind::Email => self.email,
            PiiKind::Ipv4 => self.ipv4,
            PiiKind::Ipv6 => self.ipv6,
            PiiKind::Phone => self.phone,
            PiiKind::Iban => self.iban,
            PiiKind::Card => self.card,
            PiiKind::Secret => self.secret,
        }
    }

    /// The place of the mode of a kind, to change it.
    pub fn mode_mut(&mut self, kind: PiiKind) -> &mut PiiMode {
        match kind {
            PiiKind::Email => &mut self.email,
            PiiKind::Ipv4 => &mut self.ipv4,
            PiiKind::Ipv6 => &mut self.ipv6,
            PiiKind::Phone => &mut self.phone,
            PiiKind::Iban => &mut self.iban,
            PiiKind::Card => &mut self.card,
            PiiKind::Secret => &mut self.secret,
        }
    }
}

/// One finding: bytes of the text and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PiiSpan {
    pub range: Range<usize>,
    pub kind: PiiKind,
    /// The finer kind where there is one: `aws_access_key`, `visa`; else the name of the kind.
    pub label: &'static str,
}

/// How many findings there were of each kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PiiCounts([u32; PiiKind::ALL.len()]);

impl PiiCounts {
    pub fn of(&self, kind: PiiKind) -> u32 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Adds the findings to a stage's counters: `pii_email` and so on.
    pub fn count(&self, counters: &mut Counters) {
        for kind in PiiKind::ALL {
            if self.of(kind) > 0 {
                counters.add(kind.reason(), u64::from(self.of(kind)));
            }
        }
    }
}

/// What scrubbing did to a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PiiOutcome<'t> {
    /// The text without its findings, borrowed if there were none. The text as it was if the document is to be dropped.
    pub text: Cow<'t, str>,
    pub counts: PiiCounts,
    /// The kind of the first finding whose mode is `drop`; with `counts.of(kind)` it is the proof, never the value.
    pub drop: Option<PiiKind>,
}

/// Buffers that one thread uses for text after text.
#[derive(Debug, Default)]
pub struct PiiScratch {
    spans: Vec<PiiSpan>,
}

/// Finds and scrubs; built once, shared by threads.
#[derive(Debug)]
pub struct Pii {
    options: PiiOptions,
    addresses: Addresses,
    secrets: Secrets,
}

impl Pii {
    pub fn new(options: PiiOptions) -> Self {
        let addresses = Addresses::new(options.private_addresses);
        Self { options, addresses, secrets: Secrets::new() }
    }

    pub fn options(&self) -> &PiiOptions {
        &self.options
    }

    /// The findings of all kinds that are not off, in order, none overlapping another.
    pub fn find(&self, text: &str) -> Vec<PiiSpan> {
        let mut spans = Vec::new();
        self.collect(text, &mut spans);
        spans
    }

    /// Replaces each finding by its mode. A text without findings is borrowed and costs no allocation.
    pub fn scrub<'t>(&self, text: &'t str, scratch: &mut PiiScratch) -> PiiOutcome<'t> {
        let spans = &mut scratch.spans;
        spans.clear();
        self.collect(text, spans);
        let mut counts = PiiCounts::default();
        for span in spans.iter() {
            counts.0[span.kind as usize] += 1;
        }
        let drop = spans.iter().map(|s| s.kind).find(|kind| self.options.mode(*kind) == PiiMode::Drop);
        let text = match spans.is_empty() || drop.is_some() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(self.replace(text, spans)),
        };
        PiiOutcome { text, counts, drop }
    }

    fn replace(&self, text: &str, spans: &[PiiSpan]) -> String {
        let mut scrubbed = String::with_capacity(text.len());
        let mut done = 0;
        for span in spans {
            scrubbed.push_str(&text[done..span.range.start]);
            let value = &text[span.range.clone()];
            match self.options.mode(span.kind) {
                PiiMode::Mask => mask::push_mask(&mut scrubbed, value, span.kind),
                _ => scrubbed.push_str(span.kind.token()),
            }
            done = span.range.end;
        }
        scrubbed.push_str(&text[done..]);
        scrubbed
    }

    fn is_on(&self, kind: PiiKind) -> bool {
        self.options.mode(kind) != PiiMode::Off
    }

    fn collect(&self, text: &str, spans: &mut Vec<PiiSpan>) {
        if [PiiKind::Email, PiiKind::Ipv4, PiiKind::Ipv6].into_iter().any(|kind| self.is_on(kind)) {
            self.collect_by_marks(text, spans);
        }
        let is_marked_only = spans.len();
        if self.is_on(PiiKind::Secret) {
            self.secrets.collect(text, spans);
        }
        if [PiiKind::Phone, PiiKind::Iban, PiiKind::Card].into_iter().any(|kind| self.is_on(kind)) {
            number::collect(text, |kind| self.is_on(kind), spans);
        }
        if spans.len() > is_marked_only {
            settle_overlaps(spans);
        }
    }

    /// E-mail and addresses, by the marks within them; the spans come in order and apart.
    fn collect_by_marks(&self, text: &str, spans: &mut Vec<PiiSpan>) {
        let bytes = text.as_bytes();
        let [email, ipv4, ipv6] = [PiiKind::Email, PiiKind::Ipv4, PiiKind::Ipv6].map(|kind| self.is_on(kind));
        let (mut done, mut email_end) = (0, 0);
        let mut context = address::Context::default();
        for at in memchr3_iter(b'.', b'@', b':', bytes) {
            if at < done {
                continue;
            }
            let (found, end) = match bytes[at] {
                b'@' if email => match email::around(text, at, email_end) {
                    Some(range) => (Some((range, PiiKind::Email)), at + 1),
                    None => continue,
                },
                b'.' if ipv4 => match self.addresses.ipv4_around(text, at, &mut context) {
                    Some((range, is_found)) => (is_found.then(|| (range.clone(), PiiKind::Ipv4)), range.end),
                    None => continue,
                },
                b':' if ipv6 => match self.addresses.ipv6_around(text, at) {
                    Some((range, is_found)) => (is_found.then(|| (range.clone(), PiiKind::Ipv6)), range.end),
                    None => continue,
                },
                _ => continue,
            };
            done = end;
            let Some((range, kind)) = found else { continue };
            done = done.max(range.end);
            if kind == PiiKind::Email {
                email_end = range.end;
            }
            // A local part such as 1.2.3.4 may already have been taken for something else.
            while spans.last().is_some_and(|last| last.range.end > range.start) {
                spans.pop();
            }
            spans.push(PiiSpan { range, kind, label: kind.name() });
        }
    }
}

/// Of findings that overlap, keeps the one that begins first, then the longer, then the earlier kind.
fn settle_overlaps(spans: &mut Vec<PiiSpan>) {
    spans.sort_by_key(|span| (span.range.start, std::cmp::Reverse(span.range.end), span.kind));
    let mut end = 0;
    spans.retain(|span| {
        let is_apart = span.range.start >= end;
        if is_apart {
            end = span.range.end;
        }
        is_apart
    });
}

#[cfg(test)]
mod tests;
