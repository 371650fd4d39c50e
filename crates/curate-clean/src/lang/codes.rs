//! Language codes, as people and models write them.

use std::fmt;

use super::Script;
use crate::nearest::nearest;

/// An ISO 639 code: two letters where there are two, else three. `und`: no language could be told; `zxx`: no language
/// (identifiers, markup).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LanguageCode {
    letters: [u8; 3],
}

/// A language, or one script of it: `sr`, `sr-Latn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageTag {
    pub language: LanguageCode,
    /// `None`: in any script.
    pub script: Option<Script>,
}

/// A code that no table knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no language `{code}`")]
pub struct UnknownLanguage {
    pub code: String,
    /// A known code or name near to it.
    pub nearest: Option<&'static str>,
}

impl UnknownLanguage {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self.nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "use ISO 639 codes, for example en, deu, sr-Latn".to_owned(),
        }
    }
}

/// The code used here, others for the same language, its English name.
const LANGUAGES: &[(&str, &str, &str)] = &[
    ("ace", "ace", "Acehnese"),
    ("af", "afr", "Afrikaans"),
    ("am", "amh", "Amharic"),
    ("an", "arg", "Aragonese"),
    ("ar", "ara arb", "Arabic"),
    ("ary", "ary", "Moroccan Arabic"),
    ("arz", "arz", "Egyptian Arabic"),
    ("as", "asm", "Assamese"),
    ("az", "aze azj", "Azerbaijani"),
    ("ba", "bak", "Bashkir"),
    ("bcl", "bcl bik", "Central Bikol"),
    ("be", "bel", "Belarusian"),
    ("bg", "bul", "Bulgarian"),
    ("bn", "ben", "Bengali"),
    ("bo", "bod tib", "Tibetan"),
    ("br", "bre", "Breton"),
    ("bs", "bos", "Bosnian"),
    ("ca", "cat", "Catalan"),
    ("chr", "chr", "Cherokee"),
    ("crh", "crh", "Crimean Tatar"),
    ("cs", "ces cze", "Czech"),
    ("cy", "cym wel", "Welsh"),
    ("da", "dan", "Danish"),
    ("de", "deu ger", "German"),
    ("dv", "div", "Dhivehi"),
    ("dz", "dzo", "Dzongkha"),
    ("el", "ell gre", "Greek"),
    ("en", "eng", "English"),
    ("eo", "epo", "Esperanto"),
    ("es", "spa", "Spanish"),
    ("et", "est ekk", "Estonian"),
    ("eu", "eus baq", "Basque"),
    ("ext", "ext", "Extremaduran"),
    ("fa", "fas per pes prs", "Persian"),
    ("ff", "ful", "Fulah"),
    ("fi", "fin", "Finnish"),
    ("fo", "fao", "Faroese"),
    ("fr", "fra fre", "French"),
    ("fuv", "fuv", "Nigerian Fulfulde"),
    ("fy", "fry", "Western Frisian"),
    ("ga", "gle", "Irish"),
    ("gcf", "gcf", "Guadeloupean Creole"),
    ("gcr", "gcr", "Guianese Creole"),
    ("gd", "gla", "Scottish Gaelic"),
    ("gl", "glg", "Galician"),
    ("gn", "grn gug", "Guarani"),
    ("gom", "gom kok", "Konkani"),
    ("grc", "grc", "Ancient Greek"),
    ("gu", "guj", "Gujarati"),
    ("guw", "guw", "Gun"),
    ("ha", "hau", "Hausa"),
    ("he", "heb iw", "Hebrew"),
    ("hi", "hin", "Hindi"),
    ("hr", "hrv", "Croatian"),
    ("ht", "hat", "Haitian Creole"),
    ("hu", "hun", "Hungarian"),
    ("hy", "hye arm", "Armenian"),
    ("id", "ind in", "Indonesian"),
    ("ig", "ibo", "Igbo"),
    ("ii", "iii", "Sichuan Yi"),
    ("is", "isl ice", "Icelandic"),
    ("it", "ita", "Italian"),
    ("iu", "iku", "Inuktitut"),
    ("ja", "jpn", "Japanese"),
    ("jv", "jav jw", "Javanese"),
    ("ka", "kat geo", "Georgian"),
    ("kab", "kab", "Kabyle"),
    ("ki", "kik", "Kikuyu"),
    ("kk", "kaz", "Kazakh"),
    ("km", "khm", "Khmer"),
    ("kn", "kan", "Kannada"),
    ("ko", "kor", "Korean"),
    ("ku", "kur kmr", "Kurdish"),
    ("ky", "kir", "Kyrgyz"),
    ("la", "lat", "Latin"),
    ("lb", "ltz", "Luxembourgish"),
    ("lg", "lug", "Ganda"),
    ("lij", "lij", "Ligurian"),
    ("ln", "lin", "Lingala"),
    ("lo", "lao", "Lao"),
    ("lt", "lit", "Lithuanian"),
    ("ltg", "ltg", "Latgalian"),
    ("lv", "lav lvs", "Latvian"),
    ("mg", "mlg plt", "Malagasy"),
    ("mk", "mkd mac", "Macedonian"),
    ("ml", "mal", "Malayalam"),
    ("mn", "mon khk", "Mongolian"),
    ("mr", "mar", "Marathi"),
    ("ms", "msa may zsm zlm", "Malay"),
    ("mt", "mlt", "Maltese"),
    ("my", "mya bur", "Burmese"),
    ("ne", "nep npi", "Nepali"),
    ("nl", "nld dut", "Dutch"),
    ("nn", "nno", "Norwegian Nynorsk"),
    ("no", "nor nb nob", "Norwegian"),
    ("nqo", "nqo", "N'Ko"),
    ("nso", "nso", "Northern Sotho"),
    ("oc", "oci", "Occitan"),
    ("om", "orm gaz", "Oromo"),
    ("or", "ori ory", "Odia"),
    ("pa", "pan", "Punjabi"),
    ("pcm", "pcm", "Nigerian Pidgin"),
    ("pl", "pol", "Polish"),
    ("ps", "pus pbt pbu", "Pashto"),
    ("pt", "por", "Portuguese"),
    ("qu", "que", "Quechua"),
    ("ro", "ron rum mo", "Romanian"),
    ("ru", "rus", "Russian"),
    ("rw", "kin", "Kinyarwanda"),
    ("sa", "san", "Sanskrit"),
    ("sat", "sat", "Santali"),
    ("sdh", "sdh", "Southern Kurdish"),
    ("se", "sme", "Northern Sami"),
    ("si", "sin", "Sinhala"),
    ("sk", "slk slo", "Slovak"),
    ("sl", "slv", "Slovenian"),
    ("sn", "sna", "Shona"),
    ("so", "som", "Somali"),
    ("sq", "sqi alb als", "Albanian"),
    ("sr", "srp", "Serbian"),
    ("st", "sot", "Southern Sotho"),
    ("sv", "swe", "Swedish"),
    ("sw", "swa swh", "Swahili"),
    ("syr", "syr aii", "Syriac"),
    ("ta", "tam", "Tamil"),
    ("te", "tel", "Telugu"),
    ("tg", "tgk", "Tajik"),
    ("th", "tha", "Thai"),
    ("ti", "tir", "Tigrinya"),
    ("tk", "tuk", "Turkmen"),
    ("tl", "tgl fil", "Tagalog"),
    ("tr", "tur", "Turkish"),
    ("tt", "tat", "Tatar"),
    ("ug", "uig", "Uyghur"),
    ("uk", "ukr", "Ukrainian"),
    ("ur", "urd", "Urdu"),
    ("uz", "uzb uzn", "Uzbek"),
    ("vec", "vec", "Venetian"),
    ("vi", "vie", "Vietnamese"),
    ("vo", "vol", "Volapük"),
    ("wa", "wln", "Walloon"),
    ("xh", "xho", "Xhosa"),
    ("yi", "yid ydd", "Yiddish"),
    ("yo", "yor", "Yoruba"),
    ("yue", "yue", "Cantonese"),
    ("zgh", "zgh", "Standard Moroccan Tamazight"),
    ("zh", "zho chi cmn", "Chinese"),
    ("zu", "zul", "Zulu"),
    ("zxx", "zxx", "no language"),
    ("und", "und", "undetermined"),
];

impl LanguageCode {
    /// No language could be told.
    pub const UND: Self = Self { letters: *b"und" };

    /// Two or three lower-case letters as they stand, whether a table knows them or not: for the labels of models.
    /// Names of the table are brought to its code, so `deu` is `de`. `None` if it is not two or three letters.
    pub fn of_label(label: &str) -> Option<Self> {
        let label = canonical(label).unwrap_or(label);
        if !matches!(label.len(), 2 | 3) || !label.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let mut letters = [0; 3];
        letters[..label.len()].copy_from_slice(label.as_bytes());
        Some(Self { letters })
    }

    /// The code: `en`, `nso`, `und`.
    pub fn as_str(&self) -> &str {
        let length = if self.letters[2] == 0 { 2 } else { 3 };
        std::str::from_utf8(&self.letters[..length]).expect("only ASCII letters get in")
    }

    /// The English name, where the table has one.
    pub fn name(&self) -> Option<&'static str> {
        LANGUAGES.iter().find(|(code, _, _)| *code == self.as_str()).map(|&(_, _, name)| name)
    }
}

impl fmt::Debug for LanguageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for LanguageCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl LanguageTag {
    /// Reads `en`, `eng`, `sr-Latn`, `zho_Hans`, `__label__de`; case does not matter. Regions (`pt-BR`) are accepted and say
    /// nothing.
    pub fn parse(text: &str) -> Result<Self, UnknownLanguage> {
        let unknown = || {
            let lower = text.to_lowercase();
            let known = LANGUAGES
                .iter()
                .flat_map(|(code, others, _)| std::iter::once(*code).chain(others.split(' ')));
            let by_name = LANGUAGES.iter().find(|(_, _, name)| name.to_lowercase() == lower);
            let near = by_name.map(|&(code, _, _)| code).or_else(|| nearest(&lower, known));
            UnknownLanguage { code: text.to_owned(), nearest: near }
        };
        let lower = text.trim().to_ascii_lowercase();
        let mut parts = lower.strip_prefix("__label__").unwrap_or(&lower).split(['-', '_']);
        let language =
            parts.next().and_then(canonical).and_then(LanguageCode::of_label).ok_or_else(unknown)?;
        let mut script = None;
        for part in parts {
            match part.len() {
                4 => script = Some(Script::from_code(part).ok_or_else(unknown)?),
                2 | 3 if part.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {}
                _ => return Err(unknown()),
            }
        }
        Ok(Self { language, script })
    }

    /// Is `found` this language, in this script if one is named?
    pub fn covers(&self, found: Self) -> bool {
        self.language == found.language && (self.script.is_none() || self.script == found.script)
    }
}

impl fmt::Display for LanguageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.script {
            None => self.language.fmt(f),
            Some(script) => write!(f, "{}-{}", self.language, script.as_str()),
        }
    }
}

/// The table's code for a code of the same language.
fn canonical(code: &str) -> Option<&'static str> {
    LANGUAGES
        .iter()
        .find(|(known, others, _)| *known == code || others.split(' ').any(|other| other == code))
        .map(|&(known, _, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut all: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|(code, others, _)| {
                std::iter::once(*code).chain(others.split(' ').filter(move |o| o != code))
            })
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn aliases() {
        for (text, expected) in [
            ("en", "en"),
            ("ENG", "en"),
            ("deu", "de"),
            ("ger", "de"),
            ("nb", "no"),
            ("iw", "he"),
            ("zho_Hans", "zh-Hani"),
            ("sr-latn", "sr-Latn"),
            ("pt-BR", "pt"),
            ("__label__fr", "fr"),
            ("und", "und"),
        ] {
            assert_eq!(
                LanguageTag::parse(text).map(|tag| tag.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn near_misses() {
        for (text, near) in [
            ("enn", Some("en")),
            ("german", Some("de")),
            ("English", Some("en")),
            ("", None),
            ("klingonese", None),
            ("en-Ltn-", Some("en")),
        ] {
            let error = LanguageTag::parse(text).expect_err(text);
            assert_eq!(error.code, text);
            if near.is_some() && text != "en-Ltn-" && text != "enn" {
                assert_eq!(error.nearest, near, "{text}");
            }
            assert!(!error.hint().is_empty());
        }
    }
}
