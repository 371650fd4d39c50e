//! What is not content by its name: hidden boxes, navigation, consent banners, sharing buttons.
//!
//! Names are compared word by word (`main-nav`, `mainNav` and `main_nav` hold the word `nav`, `navy` does not), so
//! that a list of words is the whole rule. A name alone never removes much: see `page.rs` for the shares.

use super::dom::Tag;

/// Words in a class or id that name page furniture.
const FURNITURE: &[&str] = &[
    "ad",
    "ads",
    "adsense",
    "advert",
    "advertisement",
    "advertising",
    "banner",
    "breadcrumb",
    "breadcrumbs",
    "captcha",
    "consent",
    "cookie",
    "cookies",
    "copyright",
    "disqus",
    "dropdown",
    "flyout",
    "footer",
    "gdpr",
    "jumplinks",
    "login",
    "masthead",
    "megamenu",
    "menu",
    "menubar",
    "modal",
    "nav",
    "navbar",
    "navbox",
    "navigation",
    "navlinks",
    "newsletter",
    "offcanvas",
    "overlay",
    "pager",
    "pagination",
    "paywall",
    "popover",
    "popup",
    "printonly",
    "promo",
    "promos",
    "recommend",
    "recommendations",
    "recommended",
    "related",
    "share",
    "sharethis",
    "sharing",
    "sidebar",
    "sidenav",
    "signin",
    "signup",
    "skip",
    "skiplink",
    "social",
    "socials",
    "sponsor",
    "sponsored",
    "subscribe",
    "subscription",
    "toolbar",
    "tooltip",
    "topbar",
    "upsell",
];

/// Classes that hide a box from sight in the style sheets that most sites share.
const HIDING_CLASSES: &[&str] = &[
    "d-none",
    "element-invisible",
    "hidden",
    "hide",
    "invisible",
    "mw-editsection",
    "noprint",
    "screen-reader-only",
    "screen-reader-text",
    "sr-only",
    "visually-hidden",
    "visuallyhidden",
    "wp-block-screen-reader-text",
];

/// Whether a class or id holds a word of page furniture.
pub(crate) fn names_furniture(value: &str) -> bool {
    words(value).any(|word| {
        let mut lower = [0u8; 16];
        let Some(lower) = lower.get_mut(..word.len()) else { return false };
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        FURNITURE.binary_search_by(|candidate| candidate.as_bytes().cmp(lower)).is_ok()
    })
}

/// The words of a name: letters, cut at other characters and where lower case turns to upper.
fn words(value: &str) -> impl Iterator<Item = &[u8]> {
    let bytes = value.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        let from = at;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            at += 1;
            if at < bytes.len() && bytes[at - 1].is_ascii_lowercase() && bytes[at].is_ascii_uppercase() {
                break;
            }
        }
        (from < at).then(|| &bytes[from..at])
    })
}

pub(crate) fn class_hides(value: &str) -> bool {
    value.split_ascii_whitespace().any(|class| HIDING_CLASSES.binary_search(&class).is_ok())
}

/// Whether an inline style takes the box off the page.
pub(crate) fn style_hides(value: &str) -> bool {
    value.split(';').any(|declaration| {
        let Some((property, value)) = declaration.split_once(':') else { return false };
        let (property, value) = (property.trim(), value.trim());
        let value = value.split_ascii_whitespace().next().unwrap_or_default();
        (property.eq_ignore_ascii_case("display") && value.eq_ignore_ascii_case("none"))
            || (property.eq_ignore_ascii_case("visibility") && value.eq_ignore_ascii_case("hidden"))
    })
}

pub(crate) fn role_is_furniture(value: &str) -> bool {
    const ROLES: &[&str] = &[
        "alert",
        "alertdialog",
        "banner",
        "contentinfo",
        "dialog",
        "menu",
        "menubar",
        "navigation",
        "search",
        "tooltip",
    ];
    ROLES.contains(&value)
}

/// Elements that are never removed by their name: a page's own boxes carry names like `has-sidebar`.
pub(crate) fn is_protected(tag: Tag) -> bool {
    matches!(tag, Tag::Html | Tag::Body | Tag::Main | Tag::Article | Tag::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_for_the_search() {
        assert!(FURNITURE.is_sorted() && HIDING_CLASSES.is_sorted());
        assert!(FURNITURE.iter().all(|word| word.len() <= 16));
    }

    #[test]
    fn names_are_compared_word_by_word() {
        for name in ["nav", "main-nav", "mainNav", "top_NAV x", "x sidebar2", "cookie-banner", "breadcrumbs"]
        {
            assert!(names_furniture(name), "{name}");
        }
        for name in
            ["", "navy", "content", "article-body", "header-image", "address", "é", "averyveryverylongword"]
        {
            assert!(!names_furniture(name), "{name}");
        }
    }

    #[test]
    fn styles_that_hide() {
        for style in ["display:none", "color:red; DISPLAY : none !important", "visibility:hidden"] {
            assert!(style_hides(style), "{style}");
        }
        for style in ["", "display:block", "background:url(none)", "display", "no-display:none"] {
            assert!(!style_hides(style), "{style}");
        }
        assert!(class_hides("a sr-only") && !class_hides("hidden-lg"));
    }
}
