//! Scripts of letters, and the languages that a script gives away.

/// The writing system of a letter, by its ISO 15924 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Script(u8);

/// Ranges of letters, in order of code points, without the digits of a script. Marks and signs inside a block do no harm:
/// they are rare, and stand beside letters of the block.
const RANGES: &[(u32, u32, &str)] = &[
    (0x41, 0x5A, "Latn"),
    (0x61, 0x7A, "Latn"),
    (0xAA, 0xAA, "Latn"),
    (0xBA, 0xBA, "Latn"),
    (0xC0, 0xD6, "Latn"),
    (0xD8, 0xF6, "Latn"),
    (0xF8, 0x2AF, "Latn"),
    (0x370, 0x3FF, "Grek"),
    (0x400, 0x52F, "Cyrl"),
    (0x531, 0x587, "Armn"),
    (0x5D0, 0x5F4, "Hebr"),
    (0x620, 0x64A, "Arab"),
    (0x66E, 0x6D5, "Arab"),
    (0x6EE, 0x6EF, "Arab"),
    (0x6FA, 0x6FF, "Arab"),
    (0x700, 0x74F, "Syrc"),
    (0x750, 0x77F, "Arab"),
    (0x780, 0x7B1, "Thaa"),
    (0x7CA, 0x7F5, "Nkoo"),
    (0x8A0, 0x8C7, "Arab"),
    (0x900, 0x963, "Deva"),
    (0x971, 0x97F, "Deva"),
    (0x980, 0x9E3, "Beng"),
    (0x9F0, 0x9F1, "Beng"),
    (0xA01, 0xA5E, "Guru"),
    (0xA70, 0xA75, "Guru"),
    (0xA81, 0xAE3, "Gujr"),
    (0xB01, 0xB63, "Orya"),
    (0xB82, 0xBD7, "Taml"),
    (0xC00, 0xC63, "Telu"),
    (0xC80, 0xCE3, "Knda"),
    (0xD00, 0xD57, "Mlym"),
    (0xD5F, 0xD63, "Mlym"),
    (0xD81, 0xDDF, "Sinh"),
    (0xE01, 0xE4E, "Thai"),
    (0xE81, 0xECD, "Laoo"),
    (0xF40, 0xFBC, "Tibt"),
    (0x1000, 0x103F, "Mymr"),
    (0x1050, 0x108F, "Mymr"),
    (0x10A0, 0x10FF, "Geor"),
    (0x1100, 0x11FF, "Hang"),
    (0x1200, 0x135F, "Ethi"),
    (0x1380, 0x138F, "Ethi"),
    (0x13A0, 0x13FF, "Cher"),
    (0x1400, 0x167F, "Cans"),
    (0x1780, 0x17D3, "Khmr"),
    (0x1820, 0x18AA, "Mong"),
    (0x1C5A, 0x1C7D, "Olck"),
    (0x1C80, 0x1C8F, "Cyrl"),
    (0x1C90, 0x1CBF, "Geor"),
    (0x1E00, 0x1EFF, "Latn"),
    (0x1F00, 0x1FFF, "Grek"),
    (0x2C60, 0x2C7F, "Latn"),
    (0x2D30, 0x2D7F, "Tfng"),
    (0x2D80, 0x2DDF, "Ethi"),
    (0x3041, 0x309F, "Hira"),
    (0x30A1, 0x30FF, "Kana"),
    (0x3131, 0x318E, "Hang"),
    (0x3400, 0x4DBF, "Hani"),
    (0x4E00, 0x9FFF, "Hani"),
    (0xA000, 0xA4CF, "Yiii"),
    (0xA640, 0xA69F, "Cyrl"),
    (0xA722, 0xA7FF, "Latn"),
    (0xAB01, 0xAB2F, "Ethi"),
    (0xAC00, 0xD7A3, "Hang"),
    (0xF900, 0xFAFF, "Hani"),
    (0xFB1D, 0xFB4F, "Hebr"),
    (0xFB50, 0xFDFB, "Arab"),
    (0xFE70, 0xFEFC, "Arab"),
    (0xFF21, 0xFF3A, "Latn"),
    (0xFF41, 0xFF5A, "Latn"),
    (0xFF66, 0xFF9D, "Kana"),
    (0x1E900, 0x1E94B, "Adlm"),
    (0x20000, 0x323AF, "Hani"),
];

/// Codes by [`Script`] number; 0 is "no letters".
const NAMES: [&str; 40] = [
    "Zyyy", "Latn", "Grek", "Cyrl", "Armn", "Hebr", "Arab", "Syrc", "Thaa", "Nkoo", "Deva", "Beng", "Guru",
    "Gujr", "Orya", "Taml", "Telu", "Knda", "Mlym", "Sinh", "Thai", "Laoo", "Tibt", "Mymr", "Geor", "Hang",
    "Ethi", "Cher", "Cans", "Khmr", "Mong", "Olck", "Tfng", "Hira", "Kana", "Hani", "Yiii", "Adlm", "Jpan",
    "Zzzz",
];

/// Scripts that one living language of the table has to itself, or nearly: Burmese beside Shan and Mon, Gurmukhi is
/// Punjabi's, and so on. Scripts that several languages of the model share are not here.
const ALONE: &[(&str, &str)] = &[
    ("Armn", "hy"),
    ("Thaa", "dv"),
    ("Nkoo", "nqo"),
    ("Guru", "pa"),
    ("Gujr", "gu"),
    ("Orya", "or"),
    ("Taml", "ta"),
    ("Telu", "te"),
    ("Knda", "kn"),
    ("Mlym", "ml"),
    ("Sinh", "si"),
    ("Thai", "th"),
    ("Laoo", "lo"),
    ("Mymr", "my"),
    ("Geor", "ka"),
    ("Hang", "ko"),
    ("Cher", "chr"),
    ("Cans", "iu"),
    ("Khmr", "km"),
    ("Mong", "mn"),
    ("Olck", "sat"),
    ("Tfng", "zgh"),
    ("Yiii", "ii"),
    ("Adlm", "ff"),
    ("Syrc", "syr"),
    ("Jpan", "ja"),
];

impl Script {
    /// No letters at all.
    pub const NONE: Self = Self(0);

    /// ISO 15924: `Latn`, `Cyrl`; `Zyyy` where there are no letters.
    pub fn as_str(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// The script of that code, if it is one that is told apart here. Case does not matter.
    pub fn from_code(code: &str) -> Option<Self> {
        let code = match code.to_ascii_lowercase().as_str() {
            "hans" | "hant" => "Hani",
            "kore" => "Hang",
            _ => code,
        };
        NAMES.iter().position(|name| name.eq_ignore_ascii_case(code)).map(|at| Self(at as u8))
    }

    /// The language that has this script to itself.
    pub(super) fn only_language(self) -> Option<&'static str> {
        ALONE.iter().find(|(script, _)| *script == self.as_str()).map(|&(_, language)| language)
    }
}

/// Letters of a sample by script.
#[derive(Debug)]
pub(super) struct Letters {
    counts: [u32; NAMES.len()],
    pub(super) total: u32,
    pub(super) lower: u32,
    pub(super) upper: u32,
}

impl Default for Letters {
    fn default() -> Self {
        Self { counts: [0; NAMES.len()], total: 0, lower: 0, upper: 0 }
    }
}

impl Letters {
    pub(super) fn add(&mut self, text: &str) {
        let mut memory = Memory::default();
        for letter in text.chars() {
            let code = u32::from(letter);
            if code < 0x80 {
                self.lower += u32::from(letter.is_ascii_lowercase());
                self.upper += u32::from(letter.is_ascii_uppercase());
                self.counts[1] += u32::from(letter.is_ascii_alphabetic());
                continue;
            }
            self.counts[usize::from(memory.script_of(code))] += 1;
            // Only the scripts below have two cases, or are nearly never met: Georgian capitals, Cherokee, Adlam.
            if code < 0x590 || (0x1E00..0x2000).contains(&code) {
                self.lower += u32::from(letter.is_lowercase());
                self.upper += u32::from(letter.is_uppercase());
            }
        }
        self.counts[0] = 0;
        self.total = self.counts.iter().sum();
    }

    /// The script of most letters and its share of them, 0..=1. Japanese is kana and Han together.
    pub(super) fn main(&self) -> (Script, f32) {
        if self.total == 0 {
            return (Script::NONE, 0.0);
        }
        let of = |code: &str| self.counts[NAMES.iter().position(|name| *name == code).unwrap_or(0)];
        let kana = of("Hira") + of("Kana");
        let japanese = if kana * 10 >= kana + of("Hani") && kana > 0 { kana + of("Hani") } else { 0 };
        let (best, count) = (1..NAMES.len())
            .map(|script| (script, self.counts[script]))
            .chain((japanese > 0).then_some((38, japanese)))
            .max_by_key(|&(script, count)| (count, script == 38, usize::MAX - script))
            .expect("there are scripts");
        (Script(best as u8), count as f32 / self.total as f32)
    }
}

/// The range of the last letter: the next one is mostly in it too.
#[derive(Default)]
struct Memory {
    first: u32,
    last: u32,
    script: u8,
}

impl Memory {
    #[inline]
    fn script_of(&mut self, code: u32) -> u8 {
        if self.first <= code && code <= self.last {
            return self.script;
        }
        let at = RANGES.partition_point(|&(_, last, _)| last < code);
        match RANGES.get(at) {
            Some(&(first, last, name)) if first <= code => {
                let script =
                    NAMES.iter().position(|known| *known == name).expect("every range is named") as u8;
                *self = Self { first, last, script };
                script
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_consistent() {
        assert!(RANGES.is_sorted_by(|a, b| a.1 < b.0), "ranges overlap or are out of order");
        assert!(RANGES.iter().all(|(_, _, name)| NAMES.contains(name)));
        assert!(ALONE.iter().all(|(name, _)| NAMES.contains(name)));
        assert_eq!(NAMES[38], "Jpan");
    }

    #[test]
    fn digits_have_no_script() {
        let mut letters = Letters::default();
        for digit in (0..0x20000).filter_map(char::from_u32).filter(|letter| letter.is_numeric()) {
            if !digit.is_alphabetic() {
                letters.add(digit.encode_utf8(&mut [0; 4]));
                assert_eq!(letters.total, 0, "{digit:?} U+{:X}", u32::from(digit));
            }
        }
    }

    #[test]
    fn the_main_script() {
        for (text, script, share) in [
            ("", "Zyyy", 0.0),
            ("123 … 🙂", "Zyyy", 0.0),
            ("abc", "Latn", 1.0),
            ("ａｂｃ", "Latn", 1.0),
            ("aбвг", "Cyrl", 0.75),
            ("日本語です", "Jpan", 1.0),
            ("世界人权宣言", "Hani", 1.0),
            ("한국어", "Hang", 1.0),
            ("Ελλάδα", "Grek", 1.0),
            ("ひらがな abcd", "Jpan", 0.5),
        ] {
            let mut letters = Letters::default();
            letters.add(text);
            let (found, part) = letters.main();
            assert_eq!((found.as_str(), part), (script, share), "{text}");
        }
    }
}
