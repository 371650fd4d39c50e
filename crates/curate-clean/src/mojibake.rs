//! Mojibake: UTF-8 that was once read as some single-byte encoding, `Ã©` for `é`.
//!
//! Repair is costly and nearly never due, so a gate comes first. UTF-8 mojibake is a character that a single-byte
//! encoding gives to a UTF-8 lead byte, followed by as many characters as the lead byte promises that the same
//! encoding gives to continuation bytes. [`Gate`] looks for that and for C1 controls, which are Windows-1252 read as
//! Latin-1; a text without either goes through untouched. Lines with either go to plsfix, which decides whether
//! they are mojibake at all.

use plsfix::TextFixerConfig;

/// What bytes 0x80 to 0xFF mean in the single-byte encodings that plsfix knows, besides Latin-1.
///
/// Unassigned bytes stand for the C1 control of the same number, as browsers have it.
const ENCODINGS: [&str; 8] = [
    // Windows-1252.
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶\
     ·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
    // Windows-1250.
    "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶\
     ·¸ąş»Ľ˝ľżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
    // Windows-1251.
    "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙК\
     ЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
    // Windows-1253.
    "€\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\
     \u{9e}\u{9f}\u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγ\
     δεζηθικλμνξοπρςστυφχψωϊϋόύώÿ",
    // Windows-1254.
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\u{a0}¡¢£¤¥¦§¨©ª«¬\
     \u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ",
    // ISO 8859-2.
    "\u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\
     \u{8f}\u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\
     \u{9e}\u{9f}\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâă\
     äĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
    // Mac Roman.
    "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘\
     ’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ",
    // code page 437.
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘\
     ┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
];

/// Bits of a character's roles: for each encoding, whether it stands for a lead byte of a sequence of two, three or
/// four bytes, or for a continuation byte.
type Roles = u64;

const LATIN_1: u32 = ENCODINGS.len() as u32;
const NUM_ENCODINGS: u32 = LATIN_1 + 1;
const ALL: Roles = (1 << NUM_ENCODINGS) - 1;
const LEAD_2: u32 = 0;
const LEAD_3: u32 = NUM_ENCODINGS;
const LEAD_4: u32 = 2 * NUM_ENCODINGS;
const CONTINUATION: u32 = 3 * NUM_ENCODINGS;

/// Longest piece handed to plsfix at once: its regular expressions give up (by a panic) somewhere above 10^6 steps.
const MAX_PIECE_BYTES: usize = 1 << 16;

/// Stands in for `&` while plsfix looks at a line, because plsfix 0.1.8 decodes HTML entities whatever it is told.
/// Being ASCII it is no part of any mojibake, and being a control it is on its way out anyway.
const AMPERSAND: char = '\u{1}';

/// Tells, cheaply, which text plsfix could want to change.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Roles of every character that has one, by code point.
    roles: Vec<(char, Roles)>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let latin_1 = ('\u{80}'..='\u{ff}').zip(0x80..=0xff).map(|(c, byte)| (c, byte, LATIN_1));
        let others = (0..).zip(ENCODINGS).flat_map(|(encoding, table)| {
            table.chars().zip(0x80..=0xff).map(move |(c, byte)| (c, byte, encoding))
        });
        let mut all: Vec<(char, Roles)> =
            latin_1.chain(others).map(|(c, byte, encoding)| (c, role_of(byte) << encoding)).collect();
        // What a lossy decoder left of a byte that it did not know; it can stand for any of them.
        all.push(('\u{fffd}', ALL << CONTINUATION));
        all.sort_unstable();
        let mut roles: Vec<(char, Roles)> = Vec::with_capacity(all.len());
        for (c, role) in all {
            match roles.last_mut() {
                Some((last, known)) if *last == c => *known |= role,
                _ => roles.push((c, role)),
            }
        }
        Self { roles }
    }

    /// True for a character that could begin mojibake, given what follows.
    pub(crate) fn may_start(&self, c: char) -> bool {
        is_c1(c) || self.roles(c) & !(ALL << CONTINUATION) != 0
    }

    /// True for a character that could stand right behind the first of some mojibake.
    pub(crate) fn may_continue(&self, c: char) -> bool {
        self.continuation(c) != 0
    }

    /// True if mojibake may begin here: `c` and, right behind it, `rest`.
    pub(crate) fn starts(&self, c: char, rest: &str) -> bool {
        if is_c1(c) {
            return true;
        }
        let lead = self.roles(c);
        let mut rest = rest.chars();
        let Some(second) = rest.next() else { return false };
        // A no-break space that became a plain one: only in sequences where that is not what any text looks like.
        if second == ' ' && matches!(c, 'Â' | 'Ã') {
            return true;
        }
        let second = self.continuation(second);
        if second & (lead | lead >> LEAD_3 | lead >> LEAD_4) & ALL == 0 {
            return false;
        }
        if lead >> LEAD_2 & second & ALL != 0 {
            return true;
        }
        let third = second & rest.next().map_or(0, |c| self.continuation(c));
        let fourth = third & rest.next().map_or(0, |c| self.continuation(c));
        (lead >> LEAD_3 & third | lead >> LEAD_4 & fourth) & ALL != 0
    }

    fn roles(&self, c: char) -> Roles {
        self.roles.binary_search_by_key(&c, |(c, _)| *c).map_or(0, |at| self.roles[at].1)
    }

    /// The encodings in which `c` is a continuation byte; a plain space is one that was a no-break space.
    fn continuation(&self, c: char) -> Roles {
        let c = if c == ' ' { '\u{a0}' } else { c };
        self.roles(c) >> CONTINUATION & ALL
    }

    /// True if mojibake may begin somewhere in `text`.
    fn finds(&self, text: &str) -> bool {
        text.char_indices().any(|(at, c)| !c.is_ascii() && self.starts(c, &text[at + c.len_utf8()..]))
    }

    /// Repairs the lines that need it; `None` if that changes nothing.
    pub(crate) fn repair(&self, text: &str) -> Option<String> {
        let mut repaired = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            match self.finds(line) {
                true => pieces(line).for_each(|piece| repaired.push_str(&fix(piece))),
                false => repaired.push_str(line),
            }
        }
        (repaired != text).then_some(repaired)
    }
}

/// The roles of `byte` in one encoding, as if it were the first.
fn role_of(byte: u8) -> Roles {
    match byte {
        0x80..=0xbf => 1 << CONTINUATION,
        0xc2..=0xdf => 1 << LEAD_2,
        0xe0..=0xef => 1 << LEAD_3,
        0xf0..=0xf4 => 1 << LEAD_4,
        _ => 0,
    }
}

/// A C1 control other than NEL, which is a line end unless the rest of its line is mojibake.
fn is_c1(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{84}' | '\u{86}'..='\u{9f}')
}

/// Cuts a line into pieces that plsfix can handle, after a space where there is one.
fn pieces(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if line.is_empty() {
            return None;
        }
        let limit = line.floor_char_boundary(MAX_PIECE_BYTES);
        let cut = match limit == line.len() {
            true => limit,
            false => line[..limit].rfind(' ').map_or(limit, |space| space + 1),
        };
        let (piece, rest) = line.split_at(cut);
        line = rest;
        Some(piece)
    })
}

/// Repairs the encoding of a piece of a line and nothing else about it.
fn fix(piece: &str) -> String {
    if !piece.contains('&') {
        return fix_encoding(piece);
    }
    let hidden: String =
        piece.chars().filter(|c| *c != AMPERSAND).map(|c| if c == '&' { AMPERSAND } else { c }).collect();
    fix_encoding(&hidden).replace(AMPERSAND, "&")
}

fn fix_encoding(piece: &str) -> String {
    let config = TextFixerConfig {
        fix_encoding: true,
        restore_byte_a0: true,
        replace_lossy_sequences: true,
        decode_inconsistent_utf8: true,
        // This one would turn any control into a character of Windows-1252; plsfix does so anyway where a whole line is
        // in Latin-1, and elsewhere a control is the rubble of some character of another script.
        fix_c1_controls: false,
        unescape_html: Some(false),
        remove_terminal_escapes: false,
        fix_latin_ligatures: false,
        fix_character_width: false,
        uncurl_quotes: false,
        fix_line_breaks: false,
        remove_control_chars: false,
        normalization: None,
        max_decode_length: i32::MAX,
    };
    plsfix::fix_text(piece, Some(&config))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static GATE: LazyLock<Gate> = LazyLock::new(Gate::new);

    fn check(mojibake: &str, expected: &str) {
        let repaired = GATE.repair(mojibake).unwrap_or_else(|| mojibake.to_owned());
        assert_eq!(repaired, expected, "{mojibake:?}");
    }

    /// `text` in UTF-8, read as the encoding of the number.
    fn misread(text: &str, encoding: usize) -> String {
        let table: Vec<char> = match ENCODINGS.get(encoding) {
            Some(table) => table.chars().collect(),
            None => ('\u{80}'..='\u{ff}').collect(),
        };
        text.bytes().map(|b| if b < 0x80 { char::from(b) } else { table[usize::from(b) - 0x80] }).collect()
    }

    #[test]
    fn tables_have_128_characters() {
        for table in ENCODINGS {
            assert_eq!(table.chars().count(), 128, "{table}");
        }
    }

    #[test]
    fn repairs() {
        check("cafÃ© au lait", "café au lait");
        check("â€œquotedâ€\u{9d}", "“quoted”");
        check("itâ€™s", "it’s");
        check("TiÃªÌ\u{81}ng", "Tiê\u{301}ng");
        check("voilÃ  tout", "voilà tout");
        check("\u{93}Windows\u{94} \u{96} as Latin-1", "“Windows” – as Latin-1");
        check("ÃƒÂ© twice", "é twice");
        check("ï»¿mark", "\u{feff}mark");
        check(&misread("Привет, мир", 0), "Привет, мир");
        check(&misread("г√¢teaux", 8), "г√¢teaux");
        check("one lineÃ©\nstays\nÃ© two", "one lineé\nstays\né two");
    }

    #[test]
    fn changes_nothing_but_the_encoding() {
        for text in [
            "plain",
            "“curly” ‘quotes’ — and … dots",
            "ｆｕｌｌ　ｗｉｄｔｈ ﬁ ligature",
            "&amp; &eacute; &#35; &lt;b&gt;",
            "Ünïcödé, naïve façade, Łódź, Ærøskøbing, ¿qué?",
            "passé\u{a0}» et «\u{a0}oui",
            "В России. СССР и ГДР — «Правда»",
            "пісня в її ґанку",
            "Ελληνικά κείμενα, ΑΒΓ",
            "mógł źle żółć",
            "汉字，かな。ไทย",
            "x ≤ y ± 2°, 3×4, §5, ½",
            "nel\u{85}alone",
        ] {
            check(text, text);
        }
        // With something to repair in the same line, so that plsfix does see it.
        check(
            "Ã© “q” ‘q’ ｆｕｌｌ ﬁ &amp; &eacute; &#35; \u{1b}[0m a\u{300}",
            "é “q” ‘q’ ｆｕｌｌ ﬁ &amp; &eacute; &#35; \u{1b}[0m a\u{300}",
        );
        check("Ã© &amp;\u{1} &nbsp;", "é &amp; &nbsp;");
    }

    #[test]
    fn a_giant_line_is_repaired_piece_by_piece() {
        check(&"Ã©t ".repeat(50_000), &"ét ".repeat(50_000));
        check(&"Ã©".repeat(100_000), &"é".repeat(100_000));
        check(&"à".repeat(300_000), &"à".repeat(300_000));
        assert_eq!(pieces(&"é".repeat(100_000)).map(str::len).sum::<usize>(), 200_000);
    }

    proptest! {
        /// The gate lets through everything that plsfix would change, whatever the characters.
        #[test]
        fn gate_misses_nothing(choice in proptest::collection::vec(0..1200_usize, 1..12)) {
            let alphabet: Vec<char> = GATE.roles.iter().map(|(c, _)| *c).chain("aZ ,¿的ж".chars()).collect();
            let text: String = choice.iter().map(|i| alphabet[i % alphabet.len()]).collect();
            if !text.contains('\u{85}') && !GATE.finds(&text) {
                prop_assert_eq!(fix(&text), text);
            }
        }

        #[test]
        fn gate_finds_every_misreading(text in "\\PC{0,20}[À-퟿]\\PC{0,5}", encoding in 0..9_usize) {
            prop_assert!(GATE.finds(&misread(&text, encoding)), "{}", misread(&text, encoding));
        }
    }
}
