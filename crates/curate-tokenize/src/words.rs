//! Where a text is cut into words: the known patterns as algebra on bits.
//!
//! A pattern such as GPT-2's cuts where one kind of character follows another, so that the cuts of 64 characters
//! are a few shifts of the masks of [`crate::blocks`]. All patterns end in `\s+(?!\S)|\s+`, which says: of a run
//! of white space before a word, the last character belongs to what follows.
//!
//! What does not fit into shifts is rare: contractions, blank lines that hold spaces, an upper-case letter after
//! one without case. The algebra marks such places as *events*; they are mended one by one afterwards, in the order
//! of the text.

use crate::blocks::{self, Instructions, Machine, Masks};
use crate::classes::{self, Classes, LETTER, LOWER, MARK, NUMBER, SYMBOL, UPPER, WHITE};

/// Cuts before GPT-2's words; also the pattern of the tokenizers that we train.
pub(crate) const GPT2_PATTERN: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// cl100k and Llama 3.
const CL100K_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2 and 3: one digit a word.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// An upper-case letter begins a word.
const O200K_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek V3 and R1: each cuts what the one before left.
const DEEPSEEK_PATTERNS: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/// The patterns that [`Splitter`] knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Gpt2,
    Cl100k,
    Qwen2,
    O200k,
    DeepSeek,
}

impl Pattern {
    /// The pattern that is written like this. A list, not a rule: a possessive `\p{N}{1,3}+`, say, differs by
    /// one character and means something else.
    pub(crate) fn known(patterns: &[&str]) -> Option<Self> {
        match *patterns {
            [GPT2_PATTERN] => Some(Self::Gpt2),
            [CL100K_PATTERN] => Some(Self::Cl100k),
            [QWEN2_PATTERN] => Some(Self::Qwen2),
            [O200K_PATTERN] => Some(Self::O200k),
            _ if *patterns == DEEPSEEK_PATTERNS => Some(Self::DeepSeek),
            _ => None,
        }
    }
}

/// Cuts texts into words.
#[derive(Debug, Clone)]
pub(crate) struct Splitter {
    pattern: Pattern,
    classes: Classes,
    instructions: Instructions,
}

/// Where the words of a text begin; kept between texts for its memory.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// A bit for each byte of the text, and one for its end.
    starts: Vec<u64>,
    events: Vec<usize>,
    /// All classes of the characters beyond ASCII.
    pub(crate) seen: u8,
}

impl Splitter {
    /// `classes` must know NFC if the caller wants to learn about it from [`Cuts::seen`].
    pub(crate) fn new(pattern: Pattern, classes: Classes, instructions: Instructions) -> Self {
        Self { pattern, classes, instructions }
    }

    pub(crate) fn gpt2() -> Self {
        Self::new(Pattern::Gpt2, Classes::new(), Instructions::Best)
    }

    /// Calls `word` with each word of `text`, in order; together they are the text.
    pub(crate) fn for_each<'t>(&self, text: &'t str, cuts: &mut Cuts, mut word: impl FnMut(&'t str)) {
        self.cut(text, cuts);
        let mut start = 0;
        cuts.for_each_end(|end| {
            word(&text[start..end]);
            start = end;
        });
    }

    /// Finds the words of `text`.
    pub(crate) fn cut(&self, text: &str, cuts: &mut Cuts) {
        let text = text.as_bytes();
        cuts.starts.clear();
        cuts.starts.resize(text.len() / blocks::BLOCK + 1, 0);
        cuts.events.clear();
        cuts.seen = 0;
        match self.pattern {
            Pattern::Gpt2 => self.scan::<Gpt2>(text, cuts),
            Pattern::Cl100k => self.scan::<Cl100k<3>>(text, cuts),
            Pattern::Qwen2 => self.scan::<Cl100k<1>>(text, cuts),
            Pattern::O200k => self.scan::<O200k>(text, cuts),
            Pattern::DeepSeek => self.scan::<DeepSeek>(text, cuts),
        }
        let mut mend = Mend { text, classes: &self.classes, starts: &mut cuts.starts };
        match self.pattern {
            Pattern::Gpt2 => cuts.events.iter().for_each(|&at| mend.gpt2_contraction(at)),
            Pattern::Cl100k | Pattern::Qwen2 => cuts.events.iter().for_each(|&at| mend.cl100k(at)),
            Pattern::O200k => mend.o200k(&cuts.events),
            Pattern::DeepSeek => mend.deepseek(&cuts.events),
        }
        set(&mut cuts.starts, text.len());
    }

    fn scan<A: Algebra>(&self, text: &[u8], cuts: &mut Cuts) {
        #[cfg(target_arch = "x86_64")]
        {
            if self.instructions == Instructions::Best && blocks::has_avx512() {
                // SAFETY: the processor has what the function is compiled for.
                return unsafe { scan_avx512::<A>(&self.classes, text, cuts) };
            }
            if self.instructions != Instructions::Portable && blocks::has_avx2() {
                // SAFETY: as above.
                return unsafe { scan_avx2::<A>(&self.classes, text, cuts) };
            }
        }
        scan::<blocks::Portable, A>(&self.classes, text, cuts);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx2,bmi1,bmi2,popcnt,lzcnt")]
fn scan_avx512<A: Algebra>(classes: &Classes, text: &[u8], cuts: &mut Cuts) {
    scan::<blocks::Avx512, A>(classes, text, cuts);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
fn scan_avx2<A: Algebra>(classes: &Classes, text: &[u8], cuts: &mut Cuts) {
    scan::<blocks::Avx2, A>(classes, text, cuts);
}

#[inline(always)]
fn scan<M: Machine, A: Algebra>(classes: &Classes, text: &[u8], cuts: &mut Cuts) {
    let mut algebra = A::default();
    let mut masks = Masks::default();
    if !text.is_empty() {
        masks = blocks::read::<M>(classes, text, 0);
    }
    let mut start = 0;
    while start < text.len() {
        let following = start + blocks::BLOCK;
        let next = if following < text.len() {
            blocks::read::<M>(classes, text, following)
        } else {
            Masks::default()
        };
        // Only the rest of a character may be left for the last block.
        let (mut starts, mut events) = if masks.len > 0 { algebra.block(&masks, &next) } else { (0, 0) };
        cuts.seen |= masks.seen;
        if masks.leads != !0 {
            starts = M::spread(starts, masks.leads);
            events = M::spread(events, masks.leads);
        }
        cuts.starts[start / blocks::BLOCK] = starts;
        while events != 0 {
            cuts.events.push(start + events.trailing_zeros() as usize);
            events &= events - 1;
        }
        (masks, start) = (next, following);
    }
}

impl Cuts {
    /// The ends of the words, in order.
    pub(crate) fn places(&self) -> Places<'_> {
        Places { starts: &self.starts, block: 0, hidden: 1 }
    }

    /// Calls `end` with the end of each word, in order.
    #[inline(always)]
    pub(crate) fn for_each_end(&self, mut end: impl FnMut(usize)) {
        for (block, &starts) in self.starts.iter().enumerate() {
            let mut rest = if block == 0 { starts & !1 } else { starts };
            while rest != 0 {
                end(block * blocks::BLOCK + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
    }
}

/// How many places [`Places::fill`] may write beyond those asked for.
pub(crate) const MORE_PLACES: usize = blocks::BLOCK + 4;

/// The ends of words, block by block.
pub(crate) struct Places<'c> {
    starts: &'c [u64],
    block: usize,
    /// The start of the text, which ends nothing.
    hidden: u64,
}

impl Places<'_> {
    /// Writes the next places, at least `wanted` unless there are fewer left; returns their number.
    #[inline(always)]
    pub(crate) fn fill(&mut self, places: &mut [usize], wanted: usize) -> usize {
        let mut count = 0;
        while count < wanted
            && let Some(&starts) = self.starts.get(self.block)
        {
            let mut rest = starts & !self.hidden;
            self.hidden = 0;
            let base = self.block * blocks::BLOCK;
            let end = count + rest.count_ones() as usize;
            // Four at a time: how many there are cannot be foreseen, and to write some too many costs less.
            while rest != 0 {
                for place in &mut places[count..count + 4] {
                    *place = base + rest.trailing_zeros() as usize;
                    rest &= rest.wrapping_sub(1);
                }
                count += 4;
            }
            count = end;
            self.block += 1;
        }
        count
    }
}

fn set(starts: &mut [u64], at: usize) {
    starts[at / 64] |= 1 << (at % 64);
}

fn clear(starts: &mut [u64], at: usize) {
    starts[at / 64] &= !(1 << (at % 64));
}

/// The last start before `at`; 0 always is one.
fn last_before(starts: &[u64], at: usize) -> usize {
    let mut block = at / 64;
    let mut bits = starts[block] & ((1 << (at % 64)) - 1);
    while bits == 0 && block > 0 {
        block -= 1;
        bits = starts[block];
    }
    if bits == 0 { 0 } else { block * 64 + 63 - bits.leading_zeros() as usize }
}

/// A pattern on masks.
trait Algebra: Default {
    /// Starts of words, and events, of a block. `next` is the block after it; it has no characters at the end
    /// of the text.
    fn block(&mut self, masks: &Masks, next: &Masks) -> (u64, u64);
}

/// The low `len` bits.
#[inline(always)]
fn low(len: u32) -> u64 {
    if len >= 64 { !0 } else { (1 << len) - 1 }
}

/// Bit `n` tells of character `n - 1`; `carry` holds the last one of the block before and takes that of this.
#[inline(always)]
fn previous(mask: u64, len: u32, carry: &mut u64) -> u64 {
    let shifted = mask << 1 | *carry;
    *carry = mask >> (len - 1) & 1;
    shifted & low(len)
}

/// Bit `n` tells of character `n + 1`.
#[inline(always)]
fn following(mask: u64, next: u64, len: u32) -> u64 {
    mask >> 1 | (next & 1) << (len - 1)
}

/// The bits of the runs of `of` that have a bit of `seeds` in them, from that bit on.
#[inline(always)]
fn runs_from(of: u64, seeds: u64) -> u64 {
    of & !of.wrapping_add(seeds & of)
}

#[derive(Default)]
struct Gpt2 {
    letter: u64,
    number: u64,
    other: u64,
    white: u64,
    space: u64,
}

impl Algebra for Gpt2 {
    #[inline(always)]
    fn block(&mut self, m: &Masks, next: &Masks) -> (u64, u64) {
        let valid = low(m.len);
        let other = valid & !(m.letter | m.number | m.white);
        let run = |mask: u64, carry: &mut u64| mask & !previous(mask, m.len, carry);
        let runs =
            run(m.letter, &mut self.letter) | run(m.number, &mut self.number) | run(other, &mut self.other);
        let after_space = previous(m.space, m.len, &mut self.space);
        let before_word = following(valid & !m.white, low(next.len) & !next.white, m.len);
        let starts = runs & !after_space | run(m.white, &mut self.white) | m.white & before_word;
        (starts, m.apostrophe & starts & following(m.letter, next.letter, m.len))
    }
}

/// What cl100k, Qwen and o200k have in common: one character before letters, line ends after symbols and before
/// other white space, digits in groups.
#[derive(Default)]
struct Common<const DIGITS: u32> {
    letter: u64,
    number: u64,
    other: u64,
    white: u64,
    blank: u64,
    space: u64,
    /// The run of other characters that may be taken by the letters after it.
    alone: u64,
    taken: u64,
    free: u64,
    pending: u64,
    /// Digits of the last group that lie before this block.
    group: u32,
}

/// What the characters of a block are to a pattern.
struct Kinds {
    letter: u64,
    /// Neither letter nor number nor white space; runs of them are words.
    other: u64,
    /// Others that may begin a word of letters, and the letters that may follow them in it.
    prefix: u64,
    prefixed: u64,
    /// Characters before one to which the last white space goes.
    before_word: u64,
}

impl Kinds {
    /// Of patterns that divide all characters into letters, numbers, white space and others.
    #[inline(always)]
    fn of_letters(letter: u64, m: &Masks, next: &Masks) -> Self {
        let valid = low(m.len);
        let before_word = following(valid & !m.white, low(next.len) & !next.white, m.len);
        let other = valid & !(letter | m.number | m.white);
        Self { letter, other, prefix: other, prefixed: letter, before_word }
    }
}

/// Masks that more than one part of a pattern needs.
struct Found {
    starts: u64,
    /// The first characters of runs of others that no space takes.
    alone: u64,
    /// Letters that belong to the one symbol before them.
    joined: u64,
    /// Line ends that belong to the symbols before them.
    taken: u64,
    /// Line ends that end the word that a blank line was thought to begin.
    cancels: u64,
    after_letter: u64,
    after_other: u64,
}

impl<const DIGITS: u32> Common<DIGITS> {
    #[inline(always)]
    fn block(&mut self, kinds: &Kinds, m: &Masks) -> Found {
        let len = m.len;
        let &Kinds { letter, other, .. } = kinds;
        let blank = m.white & !m.newline;
        let after_letter = previous(letter, len, &mut self.letter);
        let after_other = previous(other, len, &mut self.other);
        let after_white = previous(m.white, len, &mut self.white);
        let after_blank = previous(blank, len, &mut self.blank);
        let after_space = previous(m.space, len, &mut self.space);

        let taken = runs_from(m.newline, m.newline & after_other | self.taken);
        self.taken = taken >> (len - 1) & 1;
        let free = m.newline & !taken;
        // White space after a line end begins a word, unless it runs on to another line end.
        let doubtful = blank & previous(free, len, &mut self.free);
        let pending = runs_from(blank, doubtful | self.pending);
        let cancels = m.newline & (pending << 1 | self.pending);
        self.pending = pending >> (len - 1) & 1;
        let after_newline = after_white & !after_blank;
        let white_starts =
            m.white & !after_white & !taken | blank & after_newline | blank & kinds.before_word;

        let alone = other & !after_other & !after_space;
        let after_alone = previous(alone & kinds.prefix, len, &mut self.alone);
        let joined = after_alone & kinds.prefixed;
        let letter_starts = letter & !after_letter & !after_blank & !joined;
        let number_starts = self.groups(m.number, len);
        let starts = white_starts | alone | letter_starts | number_starts;
        Found { starts, alone, joined: letter & joined, taken, cancels, after_letter, after_other }
    }

    #[inline(always)]
    fn groups(&mut self, number: u64, len: u32) -> u64 {
        if DIGITS == 1 {
            return number;
        }
        if number == 0 {
            self.number = 0;
            return 0;
        }
        let continued = self.number;
        let mut seeds = number & !previous(number, len, &mut self.number);
        if continued & number != 0 {
            let wait = 3 - self.group;
            seeds |= u64::from(number & low(wait + 1) == low(wait + 1)) << wait;
        }
        // A group begins three digits after another, if these are all digits.
        let three = number & number << 1 & number << 2;
        let mut starts = seeds;
        while seeds != 0 {
            seeds = seeds << 3 & three;
            starts |= seeds;
        }
        if self.number != 0 {
            self.group = if starts == 0 { self.group + len } else { len - (63 - starts.leading_zeros()) };
        }
        starts
    }
}

#[derive(Default)]
struct Cl100k<const DIGITS: u32>(Common<DIGITS>);

impl<const DIGITS: u32> Algebra for Cl100k<DIGITS> {
    #[inline(always)]
    fn block(&mut self, m: &Masks, next: &Masks) -> (u64, u64) {
        let found = self.0.block(&Kinds::of_letters(m.letter, m, next), m);
        let contractions = m.apostrophe & found.alone & following(m.letter, next.letter, m.len);
        (found.starts, contractions | found.cancels)
    }
}

#[derive(Default)]
struct O200k {
    common: Common<3>,
    lower: u64,
    caseless: u64,
    taken: u64,
}

impl Algebra for O200k {
    #[inline(always)]
    fn block(&mut self, m: &Masks, next: &Masks) -> (u64, u64) {
        let letter = m.letter | m.mark;
        let found = self.common.block(&Kinds::of_letters(letter, m, next), m);
        let caseless = letter & !m.upper & !m.lower;
        let after_lower = previous(m.lower, m.len, &mut self.lower);
        let after_caseless = previous(caseless, m.len, &mut self.caseless);
        let after_taken = previous(found.taken, m.len, &mut self.taken);
        let starts = found.starts | m.upper & after_lower;
        let contractions = m.apostrophe & found.after_letter & following(m.letter, next.letter, m.len);
        let unclear = m.upper & after_caseless | m.mark & found.after_other | m.slash & after_taken;
        (starts, contractions | unclear | found.cancels)
    }
}

#[derive(Default)]
struct DeepSeek {
    common: Common<3>,
    cjk: u64,
    joined: u64,
}

impl Algebra for DeepSeek {
    #[inline(always)]
    fn block(&mut self, m: &Masks, next: &Masks) -> (u64, u64) {
        let of_word = |m: &Masks| low(m.len) & !(m.white | m.number | m.cjk);
        let kinds = Kinds {
            letter: (m.letter | m.mark) & !m.cjk,
            other: m.symbol & !m.cjk,
            prefix: m.ascii_symbol,
            prefixed: m.ascii_letter,
            // White space before numbers and Chinese characters ends a piece, and stays together.
            before_word: following(of_word(m), of_word(next), m.len),
        };
        let found = self.common.block(&kinds, m);
        let cjk_starts = m.cjk & !previous(m.cjk, m.len, &mut self.cjk);
        // After one symbol of ASCII come letters of ASCII alone.
        let joined = runs_from(m.ascii_letter, found.joined | m.ascii_letter & self.joined);
        let after_joined = previous(joined, m.len, &mut self.joined);
        let starts = found.starts | cjk_starts | kinds.letter & !m.ascii_letter & after_joined;
        let cjk_letters = m.cjk & (m.letter | m.mark);
        let odd = low(m.len) & !(kinds.letter | kinds.other | m.number | m.white | cjk_letters);
        (starts, odd | found.cancels)
    }
}

/// Mends the starts of a text at events.
struct Mend<'t> {
    text: &'t [u8],
    classes: &'t Classes,
    starts: &'t mut [u64],
}

impl Mend<'_> {
    /// The apostrophe at `at` begins a word and letters follow: perhaps they are `'s` and its like.
    fn gpt2_contraction(&mut self, at: usize) {
        let len = match &self.text[at + 1..] {
            [b's' | b't' | b'm' | b'd', ..] => 2,
            [b'r', b'e', ..] | [b'v', b'e', ..] | [b'l', b'l', ..] => 3,
            _ => return,
        };
        clear(self.starts, at + 1);
        self.start(at + len);
    }

    fn cl100k(&mut self, at: usize) {
        if self.text[at] == b'\'' {
            self.start(at + self.contraction(at));
        } else {
            self.cancel(at);
        }
    }

    /// Length of the contraction in either case that the apostrophe at `at` begins; 0 for none.
    fn contraction(&self, at: usize) -> usize {
        match &self.text[at + 1..] {
            // U+017F, the long s, is an s in lower case.
            [0xC5, 0xBF, ..] => 3,
            [b's' | b't' | b'm' | b'd' | b'S' | b'T' | b'M' | b'D', ..] => 2,
            [b'r' | b'R', b'e' | b'E', ..]
            | [b'v' | b'V', b'e' | b'E', ..]
            | [b'l' | b'L', b'l' | b'L', ..] => 3,
            _ => 0,
        }
    }

    fn start(&mut self, at: usize) {
        if at < self.text.len() {
            set(self.starts, at);
        }
    }

    /// The line end at `at` takes with it the white space before it, up to the line end before that.
    fn cancel(&mut self, at: usize) {
        let start = last_before(self.starts, at);
        clear(self.starts, start);
    }

    fn o200k(&mut self, events: &[usize]) {
        let mut resolved = 0;
        let mut last_contraction_end = 0;
        for &at in events {
            if at < resolved {
                continue;
            }
            match self.text[at] {
                b'\'' => {
                    let len = self.contraction(at);
                    if len > 0 && at != last_contraction_end {
                        clear(self.starts, at);
                        self.start(at + len);
                        last_contraction_end = at + len;
                    }
                }
                b'\r' | b'\n' => self.cancel(at),
                _ => resolved = self.match_through(at, Self::o200k_end),
            }
        }
    }

    fn deepseek(&mut self, events: &[usize]) {
        let mut resolved = 0;
        for &at in events {
            if at < resolved {
                continue;
            }
            match self.text[at] {
                b'\r' | b'\n' => self.cancel(at),
                _ => resolved = self.match_through(at, Self::deepseek_end),
            }
        }
    }

    /// Matches word by word from the word before `at` until the algebra can be trusted again, and returns that
    /// place. `word_end` is the end of the word that begins at a place.
    fn match_through(&mut self, at: usize, word_end: impl Fn(&Self, usize) -> usize) -> usize {
        let mut start = last_before(self.starts, at);
        loop {
            let end = word_end(self, start);
            self.clear_between(start, end);
            if end >= self.text.len() {
                return self.text.len();
            }
            set(self.starts, end);
            start = end;
            if end > at && self.is_plain(end) {
                return end;
            }
        }
    }

    fn clear_between(&mut self, start: usize, end: usize) {
        let (first, last) = (start + 1, end.min(self.text.len()));
        if first >= last {
            return;
        }
        for block in first / 64..=(last - 1) / 64 {
            let from = if block == first / 64 { !0 << (first % 64) } else { !0 };
            let to = if block == last / 64 { (1 << (last % 64)) - 1 } else { !0 };
            self.starts[block] &= !(from & to);
        }
    }

    /// Whether the words from `at` on are the same whatever comes before the character before it.
    fn is_plain(&self, at: usize) -> bool {
        let before = self.class_before(at);
        let here = self.class(at).0;
        (before & LETTER != 0 && here & (WHITE | NUMBER) != 0) || (before & NUMBER != 0 && here & NUMBER == 0)
    }

    /// Class and length of the character at `at`; nothing at the end.
    fn class(&self, at: usize) -> (u8, usize) {
        class(self.classes, self.text, at)
    }

    fn class_before(&self, at: usize) -> u8 {
        let begin = (0..at).rev().find(|&at| self.text[at] & 0xC0 != 0x80);
        begin.map_or(0, |begin| self.class(begin).0)
    }

    /// The end of the first run of characters that `belongs` from `at` on.
    fn run(&self, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        run(self.classes, self.text, at, belongs)
    }

    /// The end of o200k's word that begins at `at`.
    fn o200k_end(&self, at: usize) -> usize {
        let (class, len) = self.class(at);
        let is_newline = |at: usize| matches!(self.text.get(at), Some(b'\r' | b'\n'));
        let prefixed = (class & (LETTER | NUMBER) == 0 && !is_newline(at)).then_some(at + len);
        let word = prefixed
            .and_then(|at| self.cased_word(at))
            .or_else(|| self.cased_word(at))
            .or_else(|| prefixed.and_then(|at| self.upper_word(at)))
            .or_else(|| self.upper_word(at));
        if let Some(end) = word {
            let contracted = if self.text.get(end) == Some(&b'\'') { self.contraction(end) } else { 0 };
            return end + contracted;
        }
        if class & NUMBER != 0 {
            return self.number_end(at + len);
        }
        let symbols = if self.text[at] == b' ' { at + 1 } else { at };
        let end = self.run(symbols, |class| class & (WHITE | LETTER | NUMBER) == 0);
        if end > symbols {
            let tail = self.text[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/'));
            return end + tail.count();
        }
        white_end(self.text, at, self.run(at, |class| class & WHITE != 0), self.text.len())
    }

    /// The end of DeepSeek's word that begins at `at`.
    fn deepseek_end(&self, at: usize) -> usize {
        let (code_point, len) = classes::decode(self.text, at);
        let class = self.classes.of(code_point);
        if class & NUMBER != 0 {
            return self.number_end(at + len);
        }
        let piece = Piece { classes: self.classes, text: self.text, is_cjk: blocks::is_cjk(code_point) };
        piece.end(at, class, len)
    }

    /// The end of a group of numbers whose first ends at `at`.
    fn number_end(&self, at: usize) -> usize {
        (1..3).fold(at, |end, _| {
            let (class, len) = self.class(end);
            if class & NUMBER != 0 { end + len } else { end }
        })
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    fn cased_word(&self, at: usize) -> Option<usize> {
        let is_letter = |class: u8| class & (LETTER | MARK) != 0;
        let mut last_caseless = None;
        let mut end = at;
        loop {
            let (class, len) = self.class(end);
            if class & LOWER != 0 {
                return Some(self.run(end, |class| is_letter(class) && class & UPPER == 0));
            }
            if !is_letter(class) {
                return last_caseless; // The `*` gave back what the `+` needs.
            }
            end += len;
            if class & UPPER == 0 {
                last_caseless = Some(end);
            }
        }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+`, where no [`Self::cased_word`] is.
    fn upper_word(&self, at: usize) -> Option<usize> {
        let end = self.run(at, |class| class & (LETTER | MARK) != 0 && class & LOWER == 0);
        (end > at).then_some(end)
    }
}

#[inline(always)]
fn class(classes: &Classes, text: &[u8], at: usize) -> (u8, usize) {
    if at >= text.len() {
        return (0, 0);
    }
    let (code_point, len) = classes::decode(text, at);
    (classes.of(code_point), len)
}

fn run(classes: &Classes, text: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let mut end = at;
    loop {
        let (class, len) = class(classes, text, end);
        if len == 0 || !belongs(class) {
            return end;
        }
        end += len;
    }
}

/// The end of the word that begins white space from `at` to `run_end`: `\s*[\r\n]+|\s+(?!\S)|\s+` in a text that
/// ends at `limit`.
fn white_end(text: &[u8], at: usize, run_end: usize, limit: usize) -> usize {
    if let Some(newline) = text[at..run_end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        return at + newline + 1;
    }
    if run_end == limit {
        return run_end;
    }
    let last = (at..run_end).rev().find(|&at| text[at] & 0xC0 != 0x80).unwrap_or(at);
    if last > at { last } else { run_end }
}

/// A piece that DeepSeek's first two patterns cut: Chinese characters and kana alone, or none of them and no numbers.
struct Piece<'t> {
    classes: &'t Classes,
    text: &'t [u8],
    is_cjk: bool,
}

impl Piece<'_> {
    /// Class and length of the character at `at`; nothing at the end of the piece.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        if at >= self.text.len() {
            return (0, 0);
        }
        let (code_point, len) = classes::decode(self.text, at);
        let class = self.classes.of(code_point);
        if class & NUMBER != 0 || blocks::is_cjk(code_point) != self.is_cjk { (0, 0) } else { (class, len) }
    }

    #[inline(always)]
    fn run(&self, at: usize, of: u8) -> usize {
        let mut end = at;
        loop {
            let (class, len) = self.class(end);
            if class & of == 0 {
                return end;
            }
            end += len;
        }
    }

    fn end(&self, at: usize, first: u8, len: usize) -> usize {
        let byte = self.text[at];
        let after = at + len;
        let is_letter = |at: usize| self.text.get(at).is_some_and(u8::is_ascii_alphabetic);
        if byte.is_ascii_punctuation() && is_letter(after) {
            let letters = self.text[after..].iter().take_while(|byte| byte.is_ascii_alphabetic());
            return after + letters.count();
        }
        if first & (LETTER | MARK) != 0 {
            return self.run(after, LETTER | MARK);
        }
        let is_newline = matches!(byte, b'\r' | b'\n');
        let (next, _) = self.class(after);
        if first & SYMBOL == 0 && !is_newline && next & (LETTER | MARK) != 0 {
            return self.run(after, LETTER | MARK);
        }
        if first & SYMBOL != 0 || (byte == b' ' && next & SYMBOL != 0) {
            let end = self.run(after, SYMBOL);
            let newlines = self.text[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
            return end + newlines.count();
        }
        if first & WHITE != 0 {
            let end = self.run(after, WHITE);
            let limit = if self.class(end).1 == 0 { end } else { self.text.len() };
            return white_end(self.text, at, end, limit);
        }
        // What no pattern matches stays together until one does.
        let mut end = after;
        loop {
            let (class, len) = self.class(end);
            let begins_word = self.class(end + len).0 & (LETTER | MARK) != 0;
            if len == 0 || class & (LETTER | MARK | SYMBOL | WHITE) != 0 || begins_word {
                return end;
            }
            end += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    struct Pair {
        ours: Vec<Splitter>,
        theirs: Vec<Split>,
    }

    /// Ours on each machine and theirs, for each known pattern.
    static SPLITTERS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
        let theirs = |pattern: &&str| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
        };
        let all: [&[&str]; 5] =
            [&[GPT2_PATTERN], &[CL100K_PATTERN], &[QWEN2_PATTERN], &[O200K_PATTERN], &DEEPSEEK_PATTERNS];
        let machines = [Instructions::Best, Instructions::Avx2, Instructions::Portable];
        let ours = |patterns: &[&str]| {
            let splitter =
                |machine| Splitter::new(Pattern::known(patterns).unwrap(), Classes::new(), machine);
            machines.map(splitter).to_vec()
        };
        all.iter()
            .map(|patterns| Pair { ours: ours(patterns), theirs: patterns.iter().map(theirs).collect() })
            .collect()
    });

    fn words<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        splitter.for_each(text, &mut Cuts::default(), |word| words.push(word));
        words
    }

    fn their_words(splits: &[Split], text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        splits.iter().for_each(|split| split.pre_tokenize(&mut pieces).unwrap());
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.to_owned()).filter(|piece| !piece.is_empty()).collect()
    }

    fn check_all(text: &str) {
        for pair in &*SPLITTERS {
            let expected = their_words(&pair.theirs, text);
            for ours in &pair.ours {
                assert_eq!(
                    words(ours, text),
                    expected,
                    "{:?} {:?} {text:?}",
                    ours.pattern,
                    ours.instructions
                );
            }
        }
    }

    #[test]
    fn gpt2_words() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(&SPLITTERS[0].ours[0], text), expected);
        check("", &[]);
        check(" ", &[" "]);
        check("a", &["a"]);
        check("Hello world", &["Hello", " world"]);
        check("a   b", &["a", "  ", " b"]);
        check("a \n", &["a", " \n"]);
        check("a\t\tb", &["a", "\t", "\t", "b"]);
        check("a\u{3000}\u{3000}b", &["a", "\u{3000}", "\u{3000}", "b"]);
        check("I'll won't x'S", &["I", "'ll", " won", "'t", " x", "'", "S"]);
        check("x2 34!? ", &["x", "2", " 34", "!?", " "]);
        check("文字 と", &["文字", " と"]);
        check("<|endoftext|>", &["<|", "endoftext", "|>"]);
    }

    #[test]
    fn unknown_patterns_are_refused() {
        assert_eq!(Pattern::known(&[r"\p{N}{1,3}+|\s+(?!\S)|\s+"]), None);
        assert_eq!(Pattern::known(&[]), None);
        assert_eq!(Pattern::known(&[GPT2_PATTERN, GPT2_PATTERN]), None);
    }

    #[test]
    fn hard_places_are_cut_as_theirs() {
        for text in [
            "a\n  \nb",
            "a!\n  \nb",
            "a!\n\n \t\n  b",
            "\n \n \n x",
            "!\n/\n/!",
            "使用API开发",
            "中Ab中A",
            "BÉ\u{301}E\u{301}A",
            "❤\u{fe0f}a",
            "!!\u{301}abc",
            "!\u{301}ABC中D",
            "don't've",
            "x's's's",
            "X'ſa's",
            "'sabc",
            "''s",
            "a'\u{301}s",
            "中A's 中A\u{301}B's",
            "don't\u{301}X",
            "1234567 12a1234",
            "½½½½½",
            " (a",
            "\t(a",
            "\t\t(a",
            "  (a",
            "\u{a0}a\u{a0}1",
            "\0\0a\0",
            "\u{301}\u{301}",
            "\u{301}AB!",
            "iPhoneXS MaxPRO",
            "a\r\n\r\n b",
            "a  5",
            "5  ",
            "かなa5 カナ・",
            "\u{ad}\u{ad}5\u{ad}x",
        ] {
            check_all(text);
            for shift in [61, 62, 63, 64] {
                check_all(&format!("{}{text}", "x".repeat(shift)));
                check_all(&format!("{}{text}{text}", " ".repeat(shift)));
                check_all(&format!("{}{text}", "7".repeat(shift)));
            }
        }
    }

    #[test]
    fn long_runs_are_cut_as_theirs() {
        for text in [
            "a".repeat(5000),
            " ".repeat(5000),
            "\n".repeat(500) + "x",
            " \t".repeat(700) + "中",
            "7".repeat(1000),
            "A中".repeat(300),
            "中A".repeat(300),
            "\n ".repeat(300),
            "!\n".repeat(300),
            "'s".repeat(300),
            "½3".repeat(100),
        ] {
            check_all(&text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_500))]
        #[test]
        fn words_are_those_of_the_crate(
            text in r"(?s:[ \t\r\n\x0B\u{85}\u{A0}\u{2003}\u{3000}']|[ \n]{1,3}|'(s|T|ll|RE|ſ)|[a-cA-Z]{1,3}|[0-9]{1,4}|½|٣|[!<|/.\x00]|é|e\u{301}|[E中]\u{301}|中|か|ǅ|ʰ|❤\u{fe0f}|\PC|.){0,60}"
        ) {
            check_all(&text);
        }
    }
}
