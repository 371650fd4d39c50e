//! Stop words of many languages at once: running text has some of its own language's, whichever that is.
//!
//! No language has to be told first, so a wrong guess drops nothing. Each list holds the commonest function words of a
//! language in the Latin script, in lower case; a word may stand in several.

use super::grams::hash;
use crate::words::Token;

/// Language codes of ISO 639-3 and their words.
const LISTS: [(&str, &str); 36] = [
    ("eng", "the be to of and that have with in is it for was on are as this you not at by from or"),
    ("fra", "le la les de des du et en un une est que qui dans pour pas sur au avec il elle ce se par plus"),
    (
        "deu",
        "der die das und in von zu den mit ist im für auf nicht ein eine sich dem des es sie als auch wird",
    ),
    ("spa", "el la los las de del y en que un una es por con para se no su al lo como más pero fue"),
    ("ita", "il la di e che un una in per con non del della è sono gli le da si al dei nel come anche"),
    ("por", "o a os as de do da e que em um uma é para com não no na por se mais dos como foi"),
    ("cat", "el la els les de del i que en un una és per amb no al dels es va són aquest més com seva"),
    ("glg", "o a os as de do da e que en un unha é para con non no na por se máis dos como foi"),
    ("ron", "și de la în a cu pe că nu o un este din pentru care mai ca sunt se au prin lui"),
    ("nld", "de het een van en in is op dat te voor met zijn niet er aan ook als door bij maar om naar"),
    ("afr", "die van en in 'n is het dat nie te op vir met sy aan ook as deur by maar om hy was"),
    ("swe", "och i att det som en på är av för med den till inte ett om har de från kan var men"),
    ("dan", "og i at det som en på er af for med den til ikke et om har de fra kan var men der"),
    ("nob", "og i at det som en på er av for med den til ikke et om har de fra kan var men seg"),
    ("isl", "og að í á er sem en um við til með fyrir það af hann ekki var þar eru frá hún þeir"),
    (
        "fin",
        "ja on ei se että oli ovat hän mutta kun kuin tai myös joka sen ole mukaan niin hänen jotka vuonna",
    ),
    ("est", "ja on ei see et oli kui ta oma ka mis aga või ning kes tema seda siis olid pärast mida"),
    ("hun", "a az és hogy nem is egy ez volt meg de ki mint csak el vagy már még ha azt ezt"),
    ("pol", "w i z na się do nie to że jest o jak po od za przez dla ale co który oraz był być"),
    ("ces", "a v na se je že to s z do o i ve k za pro ale jako jsou po byl by které jeho"),
    ("slk", "a v na sa je že to s z do o aj vo k za pre ale ako sú po bol by ktoré jeho"),
    ("slv", "in je v na se da za so z s ki pa po kot tudi od bi ali ne iz pri bil še"),
    ("hrv", "i je u na se da za su s od kao koji o a iz ne što bi ili po ali koje biti"),
    ("lit", "ir kad yra iš į su tai kaip bet buvo ne o per po už nuo apie ar šis jo dėl arba metų"),
    ("lav", "un ir no ar uz par kas ka to bet kā arī pēc tika bija vai pie lai gan tas gada ko"),
    ("tur", "ve bir bu da de için ile çok olarak daha ne o gibi olan kadar sonra ama her en değil ki mi"),
    ("aze", "və bir bu da də üçün ilə çox olan daha o kimi sonra amma hər ən ki edir olub öz isə"),
    ("sqi", "dhe në të e i një për me që nga është se si nuk më ka kjo ky u do ishte por"),
    ("eus", "eta da ez bat zen izan du ere dira baina egin hau zuen batean hori dute nahi beste oso edo"),
    ("gle", "an na agus ar i is go le a bhí do sé seo sin ag ó faoi tá mar ach níl iad"),
    ("cym", "y yr a i yn o ar mae ac ei am wedi gan bod ond oedd sydd eu fod hyn hwn nad"),
    ("mlt", "il u ta li f'dan dan fl għal minn hija kien ma biex huwa ukoll jew kienet hu dawn wara kif"),
    (
        "ind",
        "yang dan di dari untuk dengan pada ini itu dalam tidak ke adalah oleh akan juga sebagai dia telah atau",
    ),
    ("vie", "và của là có trong được cho một các không với người những này đã để từ khi đến về như"),
    ("tgl", "ang ng sa na mga at ay si ni ito para kung hindi siya niya ako nang pa lang din may"),
    ("swh", "na ya wa kwa ni katika za la kuwa hii huu hiyo cha yake au pia kama hayo lakini watu ambayo"),
];

/// Most different words of all lists.
const MOST: usize = 1024;
/// Most bytes of a word in a list.
const LONGEST: usize = 12;

/// The lists as a table from a word's hash; two different words share a hash in none of 10^12 tables.
#[derive(Debug)]
pub(crate) struct LanguageWords {
    /// Hash, and one bit for each list with the word; 0 bits where there is none.
    slots: Vec<(u64, u64)>,
}

impl LanguageWords {
    pub(crate) fn new() -> Self {
        let mut words = Self { slots: vec![(0, 0); 2 * MOST] };
        for (bit, (_, list)) in LISTS.iter().enumerate() {
            for word in list.split(' ') {
                let at = words.slot(hash(word.as_bytes()));
                words.slots[at] = (hash(word.as_bytes()), words.slots[at].1 | 1 << bit);
            }
        }
        words
    }

    /// Where the hash stands, or would.
    fn slot(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (hash >> 32) as usize & mask;
        while self.slots[at].1 != 0 && self.slots[at].0 != hash {
            at = (at + 1) & mask;
        }
        at
    }

    /// The most different words, in any case, that one list has among `words`; these are bare of punctuation.
    pub(crate) fn most_distinct<'t>(&self, words: impl Iterator<Item = &'t str>) -> usize {
        let mut seen = [0_u64; 2 * MOST / 64];
        let mut counts = [0_u8; LISTS.len()];
        let mut folded = String::new();
        for word in words {
            let mut lower = [0; LONGEST];
            let key = if word.is_ascii() {
                let Some(lower) = lower.get_mut(..word.len()) else { continue };
                lower.copy_from_slice(word.as_bytes());
                lower.make_ascii_lowercase();
                hash(lower)
            } else if word.len() <= LONGEST {
                folded.clear();
                folded.extend(word.chars().flat_map(char::to_lowercase));
                hash(folded.as_bytes())
            } else {
                continue;
            };
            let at = self.slot(key);
            let (_, mut lists) = self.slots[at];
            if lists == 0 || seen[at / 64] >> (at % 64) & 1 == 1 {
                continue;
            }
            seen[at / 64] |= 1 << (at % 64);
            while lists != 0 {
                counts[lists.trailing_zeros() as usize] += 1;
                lists &= lists - 1;
            }
        }
        counts.into_iter().max().map_or(0, usize::from)
    }
}

/// A word without what is no letter or digit at its ends.
pub(crate) fn bare<'t>(token: &Token<'t>) -> &'t str {
    token.text.trim_matches(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn lists_are_lower_case_short_and_without_copies() {
        let mut all = BTreeSet::new();
        for (code, list) in LISTS {
            let words: BTreeSet<&str> = list.split(' ').collect();
            assert_eq!((words.len(), code.len()), (list.split(' ').count(), 3), "{code}");
            assert!(words.len() >= 20, "{code}");
            for word in words {
                assert!(word.len() <= LONGEST && word.to_lowercase() == word, "{word}");
                all.insert(word);
            }
        }
        assert!(all.len() < MOST, "{}", all.len());
    }

    #[test]
    fn the_language_with_the_most_words_counts() {
        let words = LanguageWords::new();
        let check =
            |text: &str, expected| assert_eq!(words.most_distinct(text.split(' ')), expected, "{text}");
        check("", 0);
        check("The the THE house", 1);
        check("The house of the rising sun", 2);
        check("Der Hund und die Katze", 3);
        // French has two of these, German two others: no language has four.
        check("le dans der und", 2);
        check("PAR ÊTRE È Été più", 1);
        check("house stands upon bricks internationalisation", 0);
    }
}
