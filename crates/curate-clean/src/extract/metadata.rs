//! What a page says of itself: title, date of publication, language.
//!
//! One set of rules for every engine, so that a change of engine changes the text and nothing else. Dates are only
//! taken where a page declares them; the words "updated yesterday" in a text are not read, because they would make
//! the result depend on today.

use dom_query::Element;

/// Collects declarations while the page is walked.
#[derive(Debug, Default)]
pub(crate) struct PageFacts {
    title: Option<String>,
    meta_title: Option<String>,
    lang: Option<String>,
    meta_lang: Option<String>,
    date: Option<String>,
    structured_date: Option<String>,
    time_date: Option<String>,
}

/// Names and properties of `meta` elements that hold the date of publication.
const DATE_NAMES: &[&str] = &[
    "article:published_time",
    "article.published",
    "bt:pubdate",
    "citation_publication_date",
    "citation_date",
    "cxenseparse:recs:publishtime",
    "date",
    "dc.date",
    "dc.date.created",
    "dc.date.issued",
    "dcterms.created",
    "dcterms.date",
    "dcterms.issued",
    "datepublished",
    "og:article:published_time",
    "og:published_time",
    "parsely-pub-date",
    "pubdate",
    "publish-date",
    "publish_date",
    "publication_date",
    "publishdate",
    "sailthru.date",
];

impl PageFacts {
    pub(crate) fn see(&mut self, element: &Element) {
        match element.name.local.as_ref() {
            "html" => self.lang = self.lang.take().or_else(|| attribute(element, "lang").and_then(language)),
            "meta" => self.see_meta(element),
            "time" if self.time_date.is_none() => {
                self.time_date = attribute(element, "datetime").and_then(date);
            }
            _ => {}
        }
    }

    fn see_meta(&mut self, element: &Element) {
        let Some(content) = attribute(element, "content") else { return };
        for key in ["property", "name", "itemprop", "http-equiv"] {
            let Some(name) = attribute(element, key) else { continue };
            let name = name.trim().to_ascii_lowercase();
            match name.as_str() {
                "og:title" | "twitter:title" => set(&mut self.meta_title, || title(content)),
                "content-language" | "og:locale" => set(&mut self.meta_lang, || language(content)),
                name if DATE_NAMES.contains(&name) => set(&mut self.date, || date(content)),
                _ => {}
            }
        }
    }

    /// Whether the text of this unseen element is of interest.
    pub(crate) fn wants_text_of(&self, element: &Element) -> bool {
        match element.name.local.as_ref() {
            "title" => self.title.is_none(),
            "script" => {
                self.structured_date.is_none()
                    && attribute(element, "type")
                        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/ld+json"))
            }
            _ => false,
        }
    }

    /// Takes the text of a `title` element or of a JSON-LD script.
    pub(crate) fn take_text(&mut self, is_title: bool, text: &str) {
        if is_title {
            set(&mut self.title, || title(text));
        } else {
            set(&mut self.structured_date, || structured_date(text));
        }
    }

    /// The declared title, else the shared one, else the first heading of the text.
    pub(crate) fn title(&self) -> Option<String> {
        self.meta_title.clone().or_else(|| self.title.clone())
    }

    /// Date of publication as `YYYY-MM-DD`: `meta` elements, then structured data, then the first `time` element.
    pub(crate) fn date(&self) -> Option<String> {
        self.date.clone().or_else(|| self.structured_date.clone()).or_else(|| self.time_date.clone())
    }

    pub(crate) fn lang(&self) -> Option<String> {
        self.lang.clone().or_else(|| self.meta_lang.clone())
    }
}

fn set(slot: &mut Option<String>, value: impl FnOnce() -> Option<String>) {
    if slot.is_none() {
        *slot = value();
    }
}

fn attribute<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    let found = element.attrs.iter().find(|attribute| &*attribute.name.local == name)?;
    Some(&found.value)
}

/// White space collapsed; at most 1 000 characters, because a forgotten end tag makes the page its own title.
fn title(text: &str) -> Option<String> {
    let mut title = String::new();
    for word in text.split_whitespace() {
        if !title.is_empty() {
            title.push(' ');
        }
        title.push_str(word);
        if title.len() > 4_000 {
            break;
        }
    }
    let title: String = title.chars().take(1_000).collect();
    (!title.is_empty()).then_some(title)
}

/// A language tag as declared, with hyphens: `en`, `de-CH`, `zh-Hant-TW`.
fn language(text: &str) -> Option<String> {
    let tag = text.split([',', ';']).next().unwrap_or_default().trim().replace('_', "-");
    let primary = tag.split('-').next().unwrap_or_default();
    let fits = (2..=8).contains(&primary.len())
        && primary.bytes().all(|byte| byte.is_ascii_alphabetic())
        && tag.len() <= 35
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    fits.then_some(tag)
}

/// `2024-03-09T…`, `2024/03/09`, `20240309…` as `2024-03-09`; years 1970 to 2099, since others are typing errors.
fn date(text: &str) -> Option<String> {
    let bytes = text.trim().as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0')))
    };
    let (year, month, day) = match bytes.get(4)? {
        separator @ (b'-' | b'/' | b'.') => {
            (bytes.get(7)? == separator).then_some(())?;
            (number(0..4)?, number(5..7)?, number(8..10)?)
        }
        _ => (number(0..4)?, number(4..6)?, number(6..8)?),
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = *days.get((month as usize).checked_sub(1)?)?;
    ((1970..2100).contains(&year) && (1..=last).contains(&day))
        .then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// The first `"datePublished": "…"` of a JSON-LD script, found as text: such scripts are often not valid JSON.
fn structured_date(script: &str) -> Option<String> {
    let rest = script.split_once("\"datePublished\"")?.1.trim_start();
    let rest = rest.strip_prefix(':')?.trim_start().strip_prefix('"')?;
    date(rest.split('"').next()?)
}

#[cfg(test)]
mod tests {
    use super::super::dom::Dom;
    use super::*;
    use dom_query::Document;

    fn check(html: &str, expected: (Option<&str>, Option<&str>, Option<&str>)) {
        let (_, facts) = Dom::of_page(&Document::from(html));
        let found = (facts.title(), facts.date(), facts.lang());
        assert_eq!((found.0.as_deref(), found.1.as_deref(), found.2.as_deref()), expected, "{html}");
    }

    #[test]
    fn a_page_says_what_it_is() {
        check("", (None, None, None));
        check("<html lang=de-CH><title> A\n B </title>", (Some("A B"), None, Some("de-CH")));
        check("<title>t</title><meta property=og:title content='T &amp; U'>", (Some("T & U"), None, None));
        check("<meta http-equiv=Content-Language content='fr, en'>", (None, None, Some("fr")));
        check("<meta property=og:locale content=pt_BR>", (None, None, Some("pt-BR")));
        check("<html lang='{{ lang }}'><body>x", (None, None, None));
        check("<meta name=Date content='2024-02-29T10:00:00Z'>", (None, Some("2024-02-29"), None));
        check(
            "<body><p><time datetime=2023-01-05>x</time><time datetime=2024-01-05>y</time>",
            (None, Some("2023-01-05"), None),
        );
        check(
            "<script type='application/ld+json'>{\"datePublished\" : \"2021-12-31T23:59\",}</script><time datetime=2020-01-01>",
            (None, Some("2021-12-31"), None),
        );
        check("<svg><title>icon</title></svg>", (None, None, None));
    }

    #[test]
    fn dates_that_exist() {
        for (text, expected) in [
            ("2024-03-09", Some("2024-03-09")),
            ("2024/03/09 10:00", Some("2024-03-09")),
            ("20240309", Some("2024-03-09")),
            (" 1999.12.31", Some("1999-12-31")),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-00-10", None),
            ("2024-01-00", None),
            ("0001-01-01", None),
            ("2024-3-9", None),
            ("yesterday", None),
            ("2024", None),
            ("日本日本日本", None),
        ] {
            assert_eq!(date(text).as_deref(), expected, "{text}");
        }
    }
}
