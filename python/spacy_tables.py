"""Writes what `words = "spacy-en"` knows about English, and spaCy's answers for its tests.

    pip install spacy==3.8.18
    python python/spacy_tables.py crates/curate-clean/src/words

The tables hold facts read off spaCy's English tokenizer: which characters are affixes, units of measure, and words
that are split in a way of their own. spaCy is (c) ExplosionAI GmbH, under the MIT licence.
"""

import re
import sys
from pathlib import Path

import spacy
from spacy.lang import char_classes as classes

SENTENCES = """\
The quick brown fox jumps over the lazy dog.
I can't, won't and shouldn't've done it; they're John's.
Dr. Smith lives in the U.S. and in Washington D.C. too.
He paid $5.00 (about £4) for 10km at 5°C. Really?
It's 10am, or 10:30 p.m., or 11a.m. on Jan. 5.
See https://example.org/a?b=c#d or www.example.com/path, ok?
Mail john.doe@example.com; or mailto:me@example.org!
Wait... what?! Yes!!! no..maybe. End....
state-of-the-art, well-known—and—dashing – spaced -- doubled--hyphens
a.b.c and end.Next one, "quoted." 'single' ‘curly’ “double”
3.14 1,000,000 10-20 2+2=4 3*4 2^8 5-x x-5 a/b and/or
C++ C# .NET node.js foo_bar __init__ #hashtag @user
:) :-) ;) :( <3 :D hello:) (: =) ^_^ xD XD (╯°□°）╯︵┻━┻
Gonna wanna gotta dunno lemme cannot Cannot CANNOT dont Im ive
e.g. this, i.e. that, etc. vs. others, a.k.a. those. E.g. I.e.
100% 50kg 5'10" 6ft. 7lb, 3GB/s 20MB. 9m² 1,5€ 10$ US$5 5US$
USA. UN. A.B. J. R. R. Tolkien x. Mr.Jones
"He said 'no.'" (It is.) [1] {2} <b>bold</b> &amp; *star*
foo,bar foo,1 1,foo foo:bar foo=bar foo<bar foo>bar 1/a a/1
Grüße aus Köln, z.B. am 5. März. ä. Straße.Nord
Привет, мир. Это 5км от дома. Москва,Россия
汉字。你好，世界！ ไทย 日本語（テスト） हिन्दी। العربية، ٪
naïve café’s Café's it’s IT'S ’S ’tis 'tis o'clock o’clock 'em y'all
rock'n'roll ain't Ain't AIN'T who'd've he'll she'd I'm we've I’m don’t
192.168.0.1 8.8.8.8 10.0.0.1:80 http://8.8.4.4/x localhost:8080
ftp://user:pass@host.com:21/x a@b.co foo.bar@x example.c example.COM
$100 +5 +x -5 ~5 ^5 5+ 6+. x+ a+b 1+1 =x %5 5%. x%.
© 2020 ® ™ 😀 hi😀there 😀. ☃ →x x→y a…b …… …. ..x x..
10am. 12pm, 5p.m. 5pm) (5am adm. Adm. Inc., Co.; Ltd.) St.Louis
a--b a---b a——b a–b a~b 1-a a-1 1--a - -- --- — ~
((nested)) ""double"" ``ticks'' ,comma ;semi a.. b... 's 'S s' ''
x86-64 COVID-19 pre-1990s 1990's '90s 20th-century mid-2000s 1st
\\") \\n \\t <space> '' a. z. ö. Ma'am o.O O.o 0_0 >.< -_- T_T
Nov.5 Nov. Nevada Nev. Calif. and/or he/she 24/7 km/h 100km/h
http://a http://a.b http://a.bc x.yz xx.Yz xx.yZ a.b.c.de foo.com.
foo.com) (foo.com (foo.com). foo.com, foo-.com -foo.com foo_x.com
what's What's that'll This's let's Let's how'd why're where've there'd
I.B.M. Ph.D. PhD. M.D. B.A., U.K.'s U.S.-based U.S.A. N.Y. N.Y.C.
"'Tis," he said--"tis"... it's... its'. (a.m.) "p.m." [e.g.]
don't/won't can't-do its-not don't. don't, (don't) "I'm" 'I'm'
"""


def ranges(contains):
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and contains(chr(c))]
    found = []
    for point in points:
        if found and found[-1][1] + 1 == point:
            found[-1][1] = point
        else:
            found.append([point, point])
    return " ".join(f"{a:x}-{b:x}" if a != b else f"{a:x}" for a, b in found)


def main():
    folder = Path(sys.argv[1])
    tokenizer = spacy.blank("en").tokenizer

    def one_of(pattern):
        return re.compile(f"[{pattern}]").match

    def takes_off(search):
        return lambda c: search(c) is not None

    loses_full_stop = takes_off(lambda s: tokenizer.suffix_search(s + "."))

    quotes = classes.CONCAT_QUOTES
    lines = [
        "# Written by python/spacy_tables.py from spaCy (c) ExplosionAI GmbH, MIT licence. Do not edit.",
        f"alpha\t{ranges(one_of(classes.ALPHA))}",
        f"before-full-stop\t{ranges(one_of(classes.ALPHA_LOWER + quotes))}",
        f"behind-full-stop\t{ranges(one_of(classes.ALPHA_UPPER + quotes))}",
        f"lower\t{ranges(one_of(classes.ALPHA_LOWER))}",
        f"upper\t{ranges(one_of(classes.ALPHA_UPPER))}",
        f"icon\t{ranges(one_of(classes.CONCAT_ICONS))}",
        f"prefix\t{ranges(takes_off(tokenizer.prefix_search))}",
        f"suffix\t{ranges(takes_off(tokenizer.suffix_search))}",
        f"loses-full-stop\t{ranges(lambda c: c != '.' and loses_full_stop(c))}",
    ]
    units = set(classes.UNITS.split("|")) | set(classes.CURRENCY.replace("\\", "").split("|"))
    lines.append("units\t" + " ".join(sorted(units)))
    plain = spacy.blank("en").tokenizer
    plain.rules = {}
    for orth, parts in sorted(tokenizer.rules.items()):
        if any(c.isspace() for c in orth):
            continue
        split = " ".join(str(len(part[spacy.symbols.ORTH].encode())) for part in parts)
        has_affix = tokenizer.find_prefix(orth) or tokenizer.find_infix(orth) or tokenizer.find_suffix(orth)
        pieces = " ".join(str(len(token.text.encode())) for token in plain(orth)) if has_affix else ""
        lines.append(f"word\t{orth}\t{split}\t{pieces}")
    (folder / "spacy_en.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    golden = []
    for sentence in SENTENCES.splitlines():
        tokens = [token.text.strip() for token in tokenizer(sentence)]
        golden.append(sentence + "\t" + " ".join(token for token in tokens if token))
    (folder / "spacy_en_golden.txt").write_text("\n".join(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
