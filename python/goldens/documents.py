"""The documents that golden verdicts are taken on: all generated here, the same on every machine.

Most sit on either side of a threshold of some rule; the others have what implementations disagree about: no-break
spaces, line ends that only Python knows, scripts without spaces, apostrophes, empty lines, nothing at all.

    python3 documents.py > ../../fixtures/goldens/documents.jsonl
"""

import json
import random
import sys

NOUNS = """harbour lighthouse keeper winter storm boat pier coast cliff visitor stair village market bridge river garden
window letter teacher student machine engine paper history music colour island forest mountain valley kitchen bread
table doctor question answer number city street train station bicycle journey morning evening weather language book
library story picture painter museum ship captain sailor rope anchor tide sand stone wall tower bell church square
farmer field horse wheat apple orchard neighbour daughter brother promise secret memory silence shadow candle""".split()
VERBS = """stands keeps takes brings carries finds follows watches opens closes builds mends remembers forgets draws
writes reads sells buys plants gathers crosses leaves reaches climbs lights rings paints studies teaches asks answers
counts measures repairs visits discovers describes protects""".split()
ADJECTIVES = """old quiet narrow white distant heavy gentle broken famous hidden careful modern ancient bright northern
wooden golden empty crowded patient curious ordinary remarkable difficult simple green deep early late""".split()
GLUE = """the the the the of of and and to to in a a that with be have for on at by from as it is was were this which
their over under between after before during without""".split()
STOP = ["the", "be", "to", "of", "and", "that", "have", "with"]
HAN = "灯塔矗立在长的码头尽自从冬天风暴卷走了守人小船就再也没有住那里夏游客来爬楼梯据说晴朗时候可以望见对岸"
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのアイウエオカキクケコサシスセソ"
HANGUL = "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허고노도로모보소오조초코토포호"
CYRILLIC = "маяк стоит на самом конце длинного причала и никто не живёт там с тех пор как зимние бури унесли лодку".split()
GREEK = "ο φάρος στέκεται στην άκρη της αποβάθρας και κανείς δεν μένει εκεί από τον χειμώνα".split()
ARABIC = "المنارة تقف في نهاية الرصيف الطويل ولا أحد يعيش هناك منذ عواصف الشتاء".split()
HINDI = "लाइटहाउस लंबे घाट के अंत में खड़ा है और कोई वहाँ नहीं रहता".split()
THAI = "ประภาคารตั้งอยู่ที่ปลายท่าเรือยาวและไม่มีใครอาศัยอยู่ที่นั่น"
TURKISH = "deniz feneri uzun iskelenin ucunda duruyor ve kışın fırtınalar tekneyi aldığından beri İstanbul ılık".split()


class Writer:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def word(self):
        pool = self.random.choices([GLUE, NOUNS, VERBS, ADJECTIVES], [9, 6, 3, 3])[0]
        return self.random.choice(pool)

    def words(self, n):
        return [self.word() for _ in range(n)]

    def sentence(self, n=None):
        words = self.words(n or self.random.randint(6, 18))
        if self.random.random() < 0.3 and len(words) > 4:
            at = self.random.randrange(1, len(words) - 1)
            words[at] += ","
        return " ".join(words).capitalize() + self.random.choices([".", "?", "!", '."', ".’"], [20, 2, 1, 1, 1])[0]

    def paragraph(self, sentences=None):
        return " ".join(self.sentence() for _ in range(sentences or self.random.randint(2, 6)))

    def prose(self, paragraphs=None, between="\n\n"):
        return between.join(self.paragraph() for _ in range(paragraphs or self.random.randint(2, 6)))

    def lines(self, n, words=8):
        return [self.sentence(words) for _ in range(n)]


def documents():
    """Yields (id, text); ids are unique, texts mostly too."""
    for family, make in FAMILIES.items():
        for i, text in enumerate(make(Writer(f"curate {family}"))):
            yield f"{family}-{i:02}", text


def empties(_):
    return ["", " ", "\n", "\n\n", "\n\n\n", "\t \n", "\u00a0", "\u2028", "\ufeff", "\u200b", "\x1c", ".", "...", "#", "{", "a",
            "the", "the\n", "\nthe", " the ", "the\n\nthe", "—", "١", "中"]


def prose(w):
    yield from (w.prose(n) for n in (1, 2, 3, 4, 5, 8, 12, 16))
    for n in (3, 6):
        yield w.sentence(3).rstrip(".") + "\n\n" + w.prose(n)
        yield w.prose(n, "\n")
        yield w.prose(n).upper()
        yield w.prose(n).lower()
        yield "\n" + w.prose(n, "\n\n\n\n") + "\n\n"
        yield w.prose(n).replace("\n", "\r\n")
        yield w.prose(n).title()


def short(w):
    yield from (" ".join(w.words(n)) for n in (1, 2, 3, 5, 10, 11, 30, 45, 48, 49, 50, 51, 52, 60))
    for n in (48, 49, 50, 51):
        yield " ".join(w.words(n)) + " . ? !"
        yield "- " + " ".join(w.words(n))
        yield " ".join(word + "," for word in w.words(n))
        yield "\n".join(w.words(n))


def word_lengths(w):
    for low, high in ((1, 3), (1, 4), (2, 3), (2, 4), (3, 3), (8, 12), (9, 11), (10, 10), (10, 11), (9, 14), (3, 30)):
        words = ["".join(w.random.choices("abcdefghiklmnoprstu", k=w.random.randint(low, high))) for _ in range(90)]
        yield " ".join(words + STOP)
    yield w.paragraph(8) + " " + "x" * 999 + "."
    yield w.paragraph(8) + " " + "x" * 1001 + "."
    yield w.paragraph(8) + "\n" + "y" * 1500 + "\n" + w.paragraph(4)


def symbols(w):
    for symbol in ("#", "…", "...", ". . .", "####", "#tag", "(...)", "[…]", "***"):
        for share in (0.08, 0.1, 0.13):
            words = w.words(100)
            for at in w.random.sample(range(100), int(share * 100)):
                words[at] = f"{words[at]} {symbol}" if w.random.random() < 0.5 else symbol + words[at]
            yield " ".join(words)


def bullets(w):
    for bullet in ("•", "-", "*", "●", "‣", "◦", "- ", "  • ", "· "):
        for n in (8, 9, 10):
            lines = w.lines(10, 9)
            yield "\n".join((bullet + " " if i < n else "") + line for i, line in enumerate(lines))
    yield "\n\n".join("- " + line for line in w.lines(12, 9))


def ellipsis_lines(w):
    for mark in ("...", "…", " …", "... ", ". . .", "read more", "Read more..", "[...]", "-»"):
        for n in (2, 3, 4):
            lines = w.lines(10, 9)
            yield "\n".join(line + (mark if i < n else "") for i, line in enumerate(lines))


def alphabetic(w):
    for share in (0.15, 0.19, 0.2, 0.22, 0.25):
        for thing in (lambda: str(w.random.randint(0, 9999)), lambda: w.random.choice("-–&/|+=*"), lambda: "١٢٣", lambda: "Ⅻ"):
            words = w.words(100)
            for at in w.random.sample(range(100), int(share * 100)):
                words[at] = thing()
            yield " ".join(words) + "."


def stop_words(w):
    for words in ([], ["the"], ["the", "the"], ["The", "Of"], ["the", "of"], ["the,", "of."], ["THE", "the"], ["tHe", "wİth"]):
        rest = [w.random.choice(NOUNS + ADJECTIVES) for _ in range(60)]
        yield " ".join(rest + words)


def repeated_lines(w):
    for copies in (1, 2, 3, 4, 5, 6):
        lines = w.lines(20 - copies, 10)
        yield "\n".join(lines + [lines[0]] * copies)
        same = [line for line in lines[:copies] for _ in (0, 1)] + lines[copies:]
        yield "\n".join(same)
    for blank in (1, 3, 6, 12):
        lines = w.lines(12, 10)
        yield "\n".join(lines[:6]) + "\n" * (blank + 1) + "\n".join(lines[6:])
        yield "\n".join(line + "\n \n" for line in lines[:blank])
    yield "\n".join(["Home", "About", "Contact"] * 4 + w.lines(14, 12))
    yield "\n".join(line + end for line in w.lines(6, 10) for end in ("", " ", "\t"))


def repeated_paragraphs(w):
    for copies in (1, 2, 3, 4):
        paragraphs = [w.paragraph(3) for _ in range(10 - copies)]
        yield "\n\n".join(paragraphs + [paragraphs[-1]] * copies)
        yield "\n\n\n".join(paragraphs[:copies] * 2 + paragraphs[copies:])
        yield "\n\n".join(paragraphs + ["Share this page"] * copies)
    yield "\n \n".join([w.paragraph(2)] * 2 + [w.paragraph(3) for _ in range(5)])


def repeated_phrases(w):
    for phrase in ("buy now", "all rights reserved", "click here to subscribe", "the old harbour of the northern coast",
                   "sign up for our weekly letter and never miss a story from the quiet village",
                   "a", "internationalisation internationalisation"):
        for times in (2, 4, 7, 12):
            pieces = [" ".join(w.words(w.random.randint(4, 14))) for _ in range(times + 3)]
            yield f" {phrase} ".join(pieces) + "."
    for n in (4, 9, 14, 20):
        cut = w.words(n)
        yield " ".join(w.words(120) + cut + w.words(30) + cut)
        yield " ".join(w.words(60) + cut + cut + cut)
    yield " ".join(["the", "of", "and"] * 40)
    yield " ".join(f"w{i}" for i in range(80)) + " the of"
    yield " ".join(f"w{i % 40}" for i in range(80)) + " the of"


def scripts(w):
    def run(letters, n):
        return "".join(w.random.choices(letters, k=n))

    for n in (30, 60, 200):
        yield "。".join(run(HAN, w.random.randint(8, 20)) for _ in range(n // 10)) + "。"
        yield "、".join(run(HAN + KANA, w.random.randint(8, 20)) for _ in range(n // 10)) + "。"
        yield " ".join(run(HANGUL, w.random.randint(1, 5)) for _ in range(n)) + "."
        for words in (CYRILLIC, GREEK, ARABIC, HINDI, TURKISH):
            yield " ".join(w.random.choices(words, k=n)) + "."
        yield w.paragraph(4) + "\n" + run(HAN, n) + "\n" + w.paragraph(3)
    yield THAI * 6
    yield " ".join(f"{word} {w.random.choice(HAN)}" for word in w.words(60))
    yield w.prose(3).replace("e", "é").replace("a", "a\u0301")
    yield w.prose(3).replace(" the ", " the 👩‍👩‍👧‍👦 ").replace(" of ", " 🇫🇷🇩🇪 of ")
    yield w.prose(2).replace(" ", " \u0301")
    yield w.prose(2).replace("o", "ö").replace("s", "ſ")


def words_of_unicode(w):
    things = ["can't", "don’t", "U.S.A.", "3.14", "1,000,000", "a:b", "x_y", "_z", "e-mail", "foo@bar.example", "1st", "7th.", "'quoted'",
              "C++", "R&D", "½", "x²", "½cup", "№5", "ﬁne", "a\u00adb", "a\u200bb", "a\u200db", "co\u2010op", "١٢٫٥", "ISBN:12-34",
              "10:30", "--flag", "#1", "$5.00", "…and", "“word”", "l'été", "O'Neil's", "Ωmega", "ǅ", "5'11\"", "3.x", "x.3", "a..b",
              "a.'b", "カタカナ_x", "9カ", "한국어a", "a한", "ה\"א", "ה'", "\u0301x", "a\u0308:b"]
    for _ in range(8):
        words = w.words(90)
        for at in w.random.sample(range(90), 40):
            words[at] = w.random.choice(things)
        yield " ".join(words) + "."
    yield " ".join(things)
    yield "".join(things)
    yield "\n".join(things + STOP)


def white_space(w):
    for space in ("\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\x1f", "  ", "\t", "\u202f", "\u1680", " \u00a0 "):
        yield w.prose(3).replace(" ", space, 30)
        yield w.prose(3).replace(" ", space)
    for end in ("\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\n\r", "\r\n\r\n"):
        yield end.join(w.lines(14))
        yield end.join(w.lines(7)) + "\n" + end.join(["- " + line for line in w.lines(7)]) + end
    yield w.prose(4).replace("\n", "\n" + " " * 60)
    yield "\n".join(" " * (4 * i) + line for i, line in enumerate(w.lines(14)))


def code(w):
    body = [f"    let {a} = {b}({i}, \"{a}\"); // {w.sentence(5)}" for i, (a, b) in enumerate(zip(w.words(20), w.words(20)))]
    yield "fn main() {\n" + "\n".join(body) + "\n}\n"
    yield "\n".join(f"def {word}(x):\n    return x[{i}] + ({i} * 2)\n" for i, word in enumerate(w.words(20)))
    yield json.dumps({f"{word}{i}": i for i, word in enumerate(w.words(60))})
    yield w.prose(2) + "\n\n{\n" + "\n".join(body[:5]) + "\n}\n\n" + w.prose(2)
    yield "\n".join(f"$ {word} --{word} | grep [{i}]" for i, word in enumerate(w.words(30)))
    yield w.prose(3).replace(".", " {x}.")
    yield w.prose(3).replace(",", " (" + "see" + ")").replace(".", " [" + "1" + "].")
    yield "((((" * 40 + w.prose(2) + "))))" * 40


def web_lines(w):
    counters = ["3 likes", "12 comments", "1,024 views", "(5 shares)", "3K followers", "1.2M Views", "7 likes!", "no likes", "likes 7",
                "* 44 retweets *", "5 k likes", "5k likes", "5kk likes", "12 likes and more", "•1 downloads", "x 1 likes", "_1 likes",
                "٣ likes", "3\u00a0likes", "² likes", "3likes", "1,,2..3 upvotes", ",1 reposts", "3 LIKES", "3 bookmarKs"]
    tails = ["Read more...", "read more…", "Continue Read more abc", "read more..", "READ MORE...", "Read more....", "Aſk: ſign-in", "Sign-in",
             "Sign-in to continue", "sign-in\u00a0now", "Please Sign-in", "Sign-insign-in", "3 items in cart", "items in cart items in cart",
             "ITEMS IN CART: 3", "ıtems in cart", "items  in cart", "the basket has items in cart for you all to buy now today soon", "   ",
             "\u00a0", "MENU", "HOME PAGE", "Home", "Home page", "ABCdef", "ABCd ef", "2024", "20 24", "2024 05", "12345678", "²²²", "١٢٣", "",
             "ÉCOLE école", "ⅫⅫ ab", "ǅ ǅ", "Ⓐ ⓐ x"]
    for share in (1, 2, 3, 5, 8):
        for pool in (counters, tails, counters + tails):
            lines = w.lines(16, 14)
            for _ in range(share):
                lines.insert(w.random.randrange(len(lines) + 1), w.random.choice(pool))
            yield "\n".join(lines)
    for pool in (counters, tails):
        for line in pool[::2]:
            lines = w.lines(9, 12)
            lines.insert(w.random.randrange(10), line)
            yield "\n".join(lines)
        yield "\n".join(pool)
        yield w.prose(16) + "\n" + "\n".join(pool[::2])
        yield w.prose(16) + "\n" + "\n".join(pool[1::2])
    yield "  3 likes\n" + "\n".join(w.lines(12, 12))
    yield " HOME\n  " + "\n".join(w.lines(12, 12)) + "\n\n 12 \n "


def urls(w):
    things = ["http://example.com", "https://example.org/a/b?c=d#e", "www.example.net", "ftp://files.example.com/x", "example.co.uk", "foo@example.com",
              "http://10.0.0.1/x", "192.168.1.254", "300.1.2.3", "1.2.3", "1.2.3.4.5", "v1.2.3.4", "seehttp://a.com", "https://例え.jp",
              "x.测试", "http://[::1]/", "README.md", "end.The", "i.e.", "node.js", "http://", "https://localhost:8080/", "a.b.c.dev/x(y)",
              "example.comm", "example.com_", "EXAMPLE.COM", "example.com-", "a.com.b.zz", "http:example.com", "~x.io", "http://999.999.999.999",
              "127.0.0.1:80", "http://1.2.3.4", "xhttp://1.2.3.4", "(example.com)", "https://example.com/%7Euser!", "1.2.3.4567"]
    for first in ("The ", "the ", "Xyq ", "— ", "A ", "zz "):
        for n in (3, 10, 25):
            words = w.words(80)
            for at in w.random.sample(range(80), n):
                words[at] = w.random.choice(things)
            yield first + " ".join(words) + "."
    yield "The list\n" + "\n".join(things)
    yield "The list\n" + ("\n" + " " * 12).join(things)
    yield "the " + "a." * 200 + "com " + w.prose(2)
    yield "the " + "a" * 300 + ".com " + w.prose(2)
    yield "\n".join("http://example.com/" + word for word in w.words(12)) + "\n" + w.prose(2)
    yield w.prose(2) + "\n\n\n\n\n" + "http://example.com/" + "\n\n\n" + w.prose(1)


def boilerplate(w):
    lines = ["lorem ipsum dolor sit amet", "Please enable JavaScript to go on.", "We use cookies to make this page better.",
             "Read our privacy policy and terms of use.", "All text [12] is here [edit] for you [citation needed].", "Cookie Policy", "AcceptRead More"]
    for line in lines:
        yield w.prose(3) + "\n\n" + line
        yield w.prose(2, "\n") + "\n" + line + "\n" + w.prose(2, "\n")
    for n in (1, 2, 3, 4):
        yield "\n\n".join([w.paragraph(3) for _ in range(5)] + lines[2:4] * n)
    yield "\n".join(line.rstrip(".") for line in w.lines(20, 9))
    for n in (2, 3, 4):
        yield "\n".join(line.rstrip('.?!"’') + ("." if i < n else "") for i, line in enumerate(w.lines(20, 9)))


def numbers(w):
    for share in (0.2, 0.3, 0.45, 0.8):
        yield " ".join(str(w.random.randint(100, 99999)) if w.random.random() < share else word for word in w.words(120)) + "."
    yield "\n".join(f"{i}. {line}" for i, line in enumerate(w.lines(30)))
    yield "\n".join(f"{word}\t{i * 7}\t{i * 13.5}" for i, word in enumerate(w.words(60)))
    yield w.prose(3) + "".join(w.random.choices("%&@~^<>|\\", k=500))
    yield w.prose(2) + " " * 400
    yield w.prose(2) + "\n" * 400 + w.prose(1)


def passages(w):
    """One passage that stands there twice, of a length just above the share that some size of n-grams may have."""
    for words in (*range(20, 31), *range(31, 41), *range(42, 62, 2)):
        passage = [w.random.choice(NOUNS + VERBS + ADJECTIVES) for _ in range(words)]
        rest = [w.random.choice(NOUNS + VERBS + ADJECTIVES + GLUE) for _ in range(400 - 2 * words)]
        lines = [rest[i : i + 20] for i in range(0, len(rest), 20)]
        for at in (2, 7):
            lines[at] = lines[at][:10] + passage + lines[at][10:]
        yield "\n".join(" ".join(line) + "." for line in lines)


def corners(w):
    """Where a rule fires that most documents of its kind do not reach."""
    for n in (2, 3, 4, 5):
        yield w.prose(6) + "\n" + "\n".join(line.upper() for line in w.lines(n, 10))
    same = w.lines(2, 9)
    blocks = ["\n".join(w.lines(8, 9)) for _ in range(3)]
    yield "\n\n".join([same[0], same[1], *blocks, same[0], same[1]])
    for gap in ("\n" + " " * 60, "\n" + " " * 60 + "\n"):
        for n in (1, 2, 3):
            block = gap.join(w.lines(3, 3))
            paragraphs = ["\n".join(w.lines(2 + n, 9)) for _ in range(8)]
            yield "\n\n".join([block, *paragraphs, block])
            yield "\n\n".join([block, *paragraphs, block, block])
    long = ["".join(w.random.choices("abcdefghiklmnoprstu", k=10)) for _ in range(120)]
    for share in (0.4, 0.6, 0.8):
        yield "\n".join(" ".join(f"({word})" if w.random.random() < share else word for word in long[i : i + 10]) + " of the." for i in range(0, 120, 10))
    pairs = [a + b for a in "abcdefghik" for b in "lmnoprstu"]
    yield "\n".join(pair + ("." if i % 4 == 0 else "") for i, pair in enumerate([*pairs, *STOP[:4]]))
    yield w.prose(16) + "\n" + "x" * 1001 + " ends here."
    yield w.prose(16) + "\n" + "x" * 1000 + " ends here."


FAMILIES = {
    "empty": empties, "prose": prose, "short": short, "word-length": word_lengths, "symbols": symbols, "bullets": bullets,
    "ellipsis": ellipsis_lines, "alphabetic": alphabetic, "stop-words": stop_words, "repeated-lines": repeated_lines,
    "repeated-paragraphs": repeated_paragraphs, "repeated-phrases": repeated_phrases, "scripts": scripts, "words": words_of_unicode,
    "white-space": white_space, "code": code, "web-lines": web_lines, "urls": urls, "boilerplate": boilerplate, "numbers": numbers, "passages": passages, "corners": corners,
}  # fmt: skip


if __name__ == "__main__":
    for id, text in documents():
        json.dump({"id": id, "text": text}, sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
