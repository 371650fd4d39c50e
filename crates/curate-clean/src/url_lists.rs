//! Block lists of URLs: domains, whole addresses, and words in them.
//!
//! The kinds of list are those of datatrove's `URLFilter`. Differences, each of which blocks more: a domain blocks all that
//! is under it and not only the registered domain and the whole host; addresses are compared without scheme, default
//! port, fragment and final slash; words of an address are compared in lower case.

use std::borrow::Cow;
use std::collections::HashSet;

use aho_corasick::AhoCorasick;

/// Texts of lists, one entry a line; `#` begins a comment, and blank lines do not count. An empty list blocks nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct UrlListTexts<'l> {
    /// Hosts and all that is under them; `*.a.org`, `.a.org` and the lines of hosts files (`0.0.0.0 a.org`) do too.
    pub domains: &'l str,
    /// Addresses, with or without a scheme.
    pub urls: &'l str,
    /// Words one of which is enough.
    pub hard_words: &'l str,
    /// Words several of which are enough.
    pub soft_words: &'l str,
    /// Letters and digits that must not occur in an address even within words or across them.
    pub subwords: &'l str,
}

/// Why a URL is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedUrl {
    /// `url_domain`, `url_listed`, `url_hard_word`, `url_soft_words` or `url_subword`.
    pub reason: &'static str,
    /// The entry, or the entries, of the list.
    pub proof: String,
}

/// Lists, ready to be asked; shared by threads.
#[derive(Debug)]
pub struct UrlLists {
    domains: HashSet<String>,
    urls: HashSet<String>,
    hard_words: HashSet<String>,
    soft_words: HashSet<String>,
    subwords: Option<AhoCorasick>,
    min_soft_words: usize,
}

impl UrlLists {
    /// `min_soft_words` different soft words block an address; datatrove's default is 2.
    ///
    /// Fails only if there are too many subwords to search for at once.
    pub fn new(lists: UrlListTexts<'_>, min_soft_words: usize) -> Result<Self, aho_corasick::BuildError> {
        let words = |list| entries(list).map(only_letters_and_digits).filter(|word| !word.is_empty());
        let subwords: Vec<String> = words(lists.subwords).collect();
        Ok(Self {
            domains: entries(lists.domains).filter_map(domain_of_entry).collect(),
            urls: entries(lists.urls).filter_map(address).collect(),
            hard_words: words(lists.hard_words).collect(),
            soft_words: words(lists.soft_words).collect(),
            subwords: (!subwords.is_empty()).then(|| AhoCorasick::new(&subwords)).transpose()?,
            min_soft_words: min_soft_words.max(1),
        })
    }

    /// Why `url` is blocked, if it is; domains are asked first, then addresses, hard words, soft words, subwords.
    pub fn check(&self, url: &str) -> Option<BlockedUrl> {
        let blocked = |reason, proof: &str| Some(BlockedUrl { reason, proof: proof.to_owned() });
        if !self.domains.is_empty()
            && let Some(host) = host(url)
            && let Some(domain) = parents(&host).find(|domain| self.domains.contains(*domain))
        {
            return blocked("url_domain", domain);
        }
        if !self.urls.is_empty()
            && let Some(address) = address(url)
            && self.urls.contains(&address)
        {
            return blocked("url_listed", &address);
        }
        if !self.hard_words.is_empty() || !self.soft_words.is_empty() {
            let lower = url.to_ascii_lowercase();
            let words = || lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            if let Some(word) = words().find(|word| self.hard_words.contains(*word)) {
                return blocked("url_hard_word", word);
            }
            let mut soft: Vec<&str> = words().filter(|word| self.soft_words.contains(*word)).collect();
            soft.sort_unstable();
            soft.dedup();
            if soft.len() >= self.min_soft_words {
                return blocked("url_soft_words", &soft.join(" "));
            }
        }
        let squeezed = only_letters_and_digits(url);
        let hit = self.subwords.as_ref()?.find(&squeezed)?;
        blocked("url_subword", &squeezed[hit.range()])
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn only_letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn domain_of_entry(entry: &str) -> Option<String> {
    let entry = entry.split('#').next()?.split_whitespace().next_back()?;
    let entry = entry.strip_prefix("*.").unwrap_or(entry).trim_start_matches('.');
    host(entry).map(Cow::into_owned)
}

/// `a.b.org`, `b.org`, `org`.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |host| host.split_once('.').map(|(_, parent)| parent))
}

/// The host of a URL in lower case, in ASCII (`xn--…`), without credentials, port and final dot.
///
/// A text without scheme is taken for one that begins with the host. `None` if there is no host: `mailto:x`, `/path`.
pub fn host(url: &str) -> Option<Cow<'_, str>> {
    let (host, _) = split_url(url)?;
    let host = host.trim_end_matches('.');
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    if !host.is_ascii() {
        return idna::domain_to_ascii(host).ok().filter(|host| !host.is_empty()).map(Cow::Owned);
    }
    Some(match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    })
}

/// What is compared of an address: host, port unless it is the usual one, path and query.
fn address(url: &str) -> Option<String> {
    let host = host(url)?;
    let (_, rest) = split_url(url)?;
    let (port, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let path = path.split('#').next().unwrap_or_default().trim_end_matches('/');
    let port = if matches!(port, ":" | ":80" | ":443") { "" } else { port };
    Some(format!("{host}{port}{path}"))
}

/// The host as written, and all that follows it.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let url = url.trim();
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => match url.strip_prefix("//") {
            Some(rest) => rest,
            None if is_without_host(url) => return None,
            None => url,
        },
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let authority = &rest[start..end];
    let host_bytes = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    Some(rest[start..].split_at(host_bytes))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// `mailto:x@y.org`, `data:,`, but not `a.org:80/x`.
fn is_without_host(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, rest)| {
        is_scheme(scheme) && !scheme.contains('.') && !rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        for (url, expected) in [
            ("http://www.web.de/x", Some("www.web.de")),
            ("https://joe:p@ss@WWW.Web.de:8080?q", Some("www.web.de")),
            ("//a.org./", Some("a.org")),
            ("a.org:80/x", Some("a.org")),
            ("https://bücher.example#x", Some("xn--bcher-kva.example")),
            ("http://[2001:db8::1]:80/", Some("[2001:db8::1]")),
            ("https://a.org\\@b.org", Some("a.org")),
            ("http://a.org?x=http://b.org/@c.org", Some("a.org")),
            ("mailto:joe@a.org", None),
            ("http:///x", None),
            ("/path/only", None),
            ("", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }

    fn lists() -> UrlLists {
        let texts = UrlListTexts {
            domains: "# bad\nbad.org\n0.0.0.0 hosts.net # x\n*.bücher.de\n",
            urls: "https://good.org/page/\ngood.org/other?q=1",
            hard_words: "Hard!\n",
            soft_words: "soft\nmild\n",
            subwords: "wors-t",
        };
        UrlLists::new(texts, 2).expect("short lists compile")
    }

    #[test]
    fn blocks() {
        let lists = lists();
        for (url, expected) in [
            ("https://bad.org/", Some(("url_domain", "bad.org"))),
            ("https://x.y.BAD.org:1/", Some(("url_domain", "bad.org"))),
            ("http://hosts.net", Some(("url_domain", "hosts.net"))),
            ("http://a.xn--bcher-kva.de/", Some(("url_domain", "xn--bcher-kva.de"))),
            ("http://good.org:80/page#top", Some(("url_listed", "good.org/page"))),
            ("https://good.org/other?q=1", Some(("url_listed", "good.org/other?q=1"))),
            ("https://good.org/a-HARD-b", Some(("url_hard_word", "hard"))),
            ("https://soft.org/mild/soft", Some(("url_soft_words", "mild soft"))),
            ("https://good.org/xwo-rst", Some(("url_subword", "worst"))),
            ("https://notbad.org/", None),
            ("https://bad.org.uk/", None),
            ("https://good.org/page/2", None),
            ("https://soft.org/soft", None),
            ("https://good.org/hardly", None),
        ] {
            let found = lists.check(url);
            assert_eq!(found.as_ref().map(|b| (b.reason, b.proof.as_str())), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(url in "(https?:)?(//)?[a-zü.@:\\[\\]%/?#\\\\]{0,16}|\\PC{0,24}") {
            lists().check(&url);
            if let Some(host) = host(&url) {
                prop_assert!(host.is_ascii() && !host.is_empty());
            }
        }
    }
}
