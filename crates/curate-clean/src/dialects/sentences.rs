//! How many sentences spaCy's rule-based sentencizer finds (version 3.8, the blank English pipeline).
//!
//! A sentence begins at the first token that is no punctuation behind one that is a mark such as `.`. What is a token
//! is decided by spaCy's English tokeniser; of it, what matters for marks is made again here: affixes come off one by
//! one, and a full stop stays with an abbreviation or an initial. Rarities (emoticons, URLs) are left out.

use crate::chars::{is_python_space, is_sentence_mark};

/// Words that keep the full stop at their end.
const ABBREVIATIONS: &[&str] = &[
    "Adm.", "Ak.", "Ala.", "Apr.", "Ariz.", "Ark.", "Aug.", "Bros.", "Calif.", "Co.", "Colo.", "Conn.",
    "Corp.", "D.C.", "Dec.", "Del.", "Dr.", "E.G.", "E.g.", "Feb.", "Fla.", "Ga.", "Gen.", "Gov.", "I.E.",
    "I.e.", "Ia.", "Id.", "Ill.", "Inc.", "Ind.", "Jan.", "Jr.", "Jul.", "Jun.", "Kan.", "Kans.", "Ky.",
    "La.", "Ltd.", "Mar.", "Mass.", "Md.", "Messrs.", "Mich.", "Minn.", "Miss.", "Mo.", "Mont.", "Mr.",
    "Mrs.", "Ms.", "Mt.", "N.C.", "N.D.", "N.H.", "N.J.", "N.M.", "N.Y.", "Neb.", "Nebr.", "Nev.", "Nov.",
    "Oct.", "Okla.", "Ore.", "Pa.", "Ph.D.", "Prof.", "Rep.", "Rev.", "S.C.", "Sen.", "Sep.", "Sept.", "St.",
    "Tenn.", "Va.", "Wash.", "Wis.", "a.m.", "co.", "e.g.", "i.e.", "p.m.", "v.s.", "vs.", "ä.", "ö.", "ü.",
];

/// Sentences of a line that is not empty; at least one.
pub(crate) fn sentences(line: &str) -> usize {
    let mut sentences = Sentences { n: 1, is_behind_mark: false };
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(is_python_space).unwrap_or(rest.len());
        sentences.chunk(&rest[..end]);
        let spaces = &rest[end..];
        rest = spaces.trim_start_matches(is_python_space);
        // One space belongs to the word before it; more are a token.
        let spaces = &spaces[..spaces.len() - rest.len()];
        if !spaces.is_empty() && spaces != " " && !rest.is_empty() {
            sentences.word();
        }
    }
    sentences.n
}

struct Sentences {
    n: usize,
    is_behind_mark: bool,
}

impl Sentences {
    fn word(&mut self) {
        self.n += usize::from(self.is_behind_mark);
        self.is_behind_mark = false;
    }

    fn affix(&mut self, affix: &str) {
        let mut chars = affix.chars();
        let first = chars.next();
        if first.is_some_and(is_sentence_mark) && chars.next().is_none() {
            self.is_behind_mark = true;
        } else if !affix.chars().all(is_mark_of_punctuation) {
            self.word();
        }
    }

    /// What stands between white space.
    fn chunk(&mut self, chunk: &str) {
        if chunk.bytes().all(|b| b.is_ascii_alphanumeric()) {
            if !chunk.is_empty() {
                self.word();
            }
            return;
        }
        let mut core = chunk;
        loop {
            let before = core.len();
            if ABBREVIATIONS.contains(&core) {
                break;
            }
            let prefix = prefix_len(core);
            self.affix_if(&core[..prefix]);
            core = &core[prefix..];
            if core.is_empty() || ABBREVIATIONS.contains(&core) || core.len() == before {
                break;
            }
        }
        let mut end = core.len();
        while end > 0 && !ABBREVIATIONS.contains(&&core[..end]) {
            let suffix = suffix_len(&core[..end]);
            if suffix == 0 {
                break;
            }
            end -= suffix;
        }
        self.core(&core[..end]);
        let mut rest = &core[end..];
        while !rest.is_empty() {
            let dots = rest.len() - rest.trim_start_matches('.').len();
            let len = if dots > 1 { dots } else { rest.chars().next().map_or(0, char::len_utf8) };
            self.affix(&rest[..len]);
            rest = &rest[len..];
        }
    }

    fn affix_if(&mut self, affix: &str) {
        if !affix.is_empty() {
            self.affix(affix);
        }
    }

    /// What is left without affixes: `end.Next` are three tokens.
    fn core(&mut self, core: &str) {
        if core.is_empty() {
            return;
        }
        self.affix(core);
        let is_lower = |c: char| (c.is_alphabetic() && !c.is_uppercase()) || is_quote(c);
        let is_upper = |c: char| (c.is_alphabetic() && !c.is_lowercase()) || is_quote(c);
        for at in memchr::memchr_iter(b'.', core.as_bytes()) {
            if core[..at].ends_with(is_lower) && core[at + 1..].starts_with(is_upper) {
                self.n += 1;
            }
        }
    }
}

fn is_quote(c: char) -> bool {
    matches!(
        c,
        '\'' | '"'
            | '”'
            | '“'
            | '`'
            | '‘'
            | '´'
            | '’'
            | '‚'
            | ','
            | '„'
            | '»'
            | '«'
            | '「'
            | '」'
            | '『'
            | '』'
            | '（'
            | '）'
            | '〔'
            | '〕'
            | '【'
            | '】'
            | '《'
            | '》'
            | '〈'
            | '〉'
            | '⟦'
            | '⟧'
    )
}

fn is_listed_mark(c: char) -> bool {
    matches!(
        c,
        '…' | ','
            | ':'
            | ';'
            | '!'
            | '?'
            | '¿'
            | '؟'
            | '¡'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '<'
            | '>'
            | '_'
            | '#'
            | '*'
            | '&'
            | '。'
            | '？'
            | '！'
            | '，'
            | '、'
            | '；'
            | '：'
            | '～'
            | '·'
            | '।'
            | '،'
            | '۔'
            | '؛'
            | '٪'
    )
}

/// General category P, of what may come off a word.
fn is_mark_of_punctuation(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_punctuation() && !matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~');
    }
    (is_quote(c) && c != '´')
        || (is_listed_mark(c) && c != '～')
        || is_sentence_mark(c)
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{2043}' | '§' | '¶')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '$' | '£' | '€' | '¥' | '฿' | '₽' | '₴' | '₠'..='₿' | '←'..='⯿' | '🌀'..='🫿' | '°' | '©' | '®' | '¦')
}

fn prefix_len(chunk: &str) -> usize {
    let dots = chunk.len() - chunk.trim_start_matches('.').len();
    if dots > 1 {
        return dots;
    }
    let mut chars = chunk.chars();
    match chars.next() {
        Some('+') if chars.as_str().starts_with(|c: char| c.is_ascii_digit()) => 0,
        Some(c)
            if is_listed_mark(c)
                || is_quote(c)
                || is_symbol(c)
                || matches!(c, '§' | '%' | '=' | '—' | '–' | '+') =>
        {
            c.len_utf8()
        }
        _ => 0,
    }
}

fn suffix_len(core: &str) -> usize {
    let dots = core.len() - core.trim_end_matches('.').len();
    if dots > 1 {
        return dots;
    }
    let mut chars = core.chars();
    let Some(last) = chars.next_back() else { return 0 };
    let before = chars.next_back();
    if last == '.' {
        let splits = match before {
            Some(c) if c.is_ascii_digit() || is_listed_mark(c) || is_quote(c) => true,
            Some('%' | '²' | '-' | '+') => true,
            Some(c) if c.is_alphabetic() && !c.is_uppercase() => chars.next_back().is_some(),
            Some(c) if c.is_uppercase() => {
                chars.next_back().is_some_and(|c| c.is_alphabetic() && !c.is_lowercase())
            }
            _ => false,
        };
        return usize::from(splits);
    }
    if is_listed_mark(last) || is_quote(last) || is_symbol(last) || matches!(last, '—' | '–') {
        return last.len_utf8();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_spacy() {
        for (line, expected) in [
            ("One two", 1),
            ("One. Two.", 2),
            ("One. Two. three", 3),
            ("Mr. Smith lives in the U.S. and in Washington D.C. too.", 1),
            ("What?! Yes... no.", 2),
            ("He said \"no.\" Then he left.", 2),
            ("Version 3.14 of e.g. this", 1),
            ("at the end.Next one", 2),
            ("John A. Smith", 1),
            ("the USA. And", 2),
            ("(It is.) So", 2),
            ("one.  two", 2),
        ] {
            assert_eq!(sentences(line), expected, "{line:?}");
        }
    }
}
