use proptest::prelude::*;

use super::*;

fn everything(mode: PiiMode) -> PiiOptions {
    PiiOptions { phone: mode, iban: mode, card: mode, ..PiiOptions::all_in(mode) }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let pii = Pii::new(everything(PiiMode::Token));
    assert_eq!(pii.scrub(text, &mut PiiScratch::default()).text, expected, "{text:?}");
}

#[track_caller]
fn stays(text: &str) {
    check(text, text);
}

#[test]
fn emails() {
    check("write to joe.doe@mail.acme.org.", "write to <EMAIL>.");
    check("<joe@acme.org>, mailto:a_b+c@x.co.uk?x=1", "<<EMAIL>>, mailto:<EMAIL>?x=1");
    check("?to=joe@acme.org&cc=", "?to=<EMAIL>&cc=");
    check("邮箱abc@163.com，", "邮箱<EMAIL>，");
    check("josé@bücher.de joe@[8.8.4.4]", "<EMAIL> <EMAIL>");
    check("bounce+joe=his.org@list.net", "<EMAIL>");
    check("1.2.3.4.joe@acme.org", "<EMAIL>");
    for text in [
        "a@b",
        "@joe",
        "x @ y.com",
        "pkg@1.2.3",
        "icon@2x.png",
        "joe@example.com",
        "medium.com/@joe.doe",
        "@",
        ".@.",
        "a@.b.c",
    ] {
        stays(text);
    }
}

#[test]
fn addresses() {
    check("from 66.249.65.107 - -", "from <IPV4> - -");
    check("http://8.8.4.4/ and DNS 8.8.8.8.", "http://<IPV4>/ and DNS <IPV4>.");
    check("9.9.9.9:443, 3.4.5.0/24", "<IPV4>:443, <IPV4>/24");
    check("地址93.184.216.34。", "地址<IPV4>。");
    check("2a00:1450:4001:81b::200e or [2606:4700::1111]:53", "<IPV6> or [<IPV6>]:53");
    check("see the Section. For example '74.125.127.100'", "see the Section. For example '<IPV4>'");
    check("ipv4DNS := net.ParseIP(\"8.8.8.8\")", "ipv4DNS := net.ParseIP(\"<IPV4>\")");
    check("::ffff:123.123.123.123", "<IPV6>");
    for text in [
        "November 5, 2006::",
        "Sect. 4.100.2.4",
        "Section 4.1.2.4",
        "see § 91.100.2.4",
        "Sections 4.100.2.4, 4.100.2.5 and 4.100.2.6",
        "version 2.106.32.4",
        "Chrome/91.0.200.124",
        "1.2.3.4.5",
        "v1.2.3.4",
        "4.21.22.40 Naming",
        "kernel 2.6.32.4",
        "192.168.1.1",
        "10.0.0.1",
        "300.1.2.3",
        "01.02.03.104",
        "foo-1.200.3.4.tar.gz",
        "1.200.3.4-beta",
        "std::abc::f",
        "a::b",
        "12:30:45",
        "::",
        "2001:db8::1",
        "fe80::1",
        "00:1a:2b:3c:4d:5e",
        "192.0.2.7",
        "versions prior to 9.4.25.200",
    ] {
        stays(text);
    }
}

#[test]
fn numbers() {
    check("IBAN DE89 3704 0044 0532 0130 00, GB82WEST12345698765432", "IBAN <IBAN>, <IBAN>");
    check("4111 1111 1111 1111 / 378282246310005", "<CARD> / <CARD>");
    check("+49 30 1234567, (212) 555-0123, tel. 030 1234 567", "<PHONE>, <PHONE>, tel. <PHONE>");
    for text in [
        "DE89 3704 0044 0532 0130 01",
        "4111 1111 1111 1112",
        "0000000000000000",
        "1234-5678",
        "2024-01-02 10:11:12",
        "3.14159265358979",
    ] {
        stays(text);
    }
}

#[test]
fn secrets() {
    // Put together here, so that no scanner takes this file for a leak.
    let random = "a8Kd02mQzLx71VbNc94TyUw6RfGh3JpS5eXo";
    check(&format!("t=ghp_{random};"), "t=<SECRET>;");
    check(&format!("sk-proj-{random}"), "<SECRET>");
    check(&format!("AK{}", "IAJ3R7QX9ZT2LM8VWB"), "<SECRET>");
    check(&format!("eyJ{random}.eyJ{random}.{random}"), "<SECRET>");
    let lines = format!("{random}{random}\n{random}");
    check(
        &format!("a\n-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----\nb"),
        "a\n<SECRET>\nb",
    );
    check(&format!("-----BEGIN PRIVATE KEY-----\n{lines}"), "<SECRET>");
    stays(
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx AKIAIOSFODNN7EXAMPLE task-based-and-otherwise-very-long-words",
    );
    stays("a line `-----BEGIN PRIVATE KEY-----` begins it");
    stays("-----BEGIN PUBLIC KEY-----");
}

#[test]
fn drops_with_kind_and_count_but_never_the_value() {
    let pii = Pii::new(PiiOptions { email: PiiMode::Drop, ..PiiOptions::default() });
    let text = "joe@acme.org at 66.249.65.107, ann@acme.org";
    let outcome = pii.scrub(text, &mut PiiScratch::default());
    assert_eq!(outcome.drop, Some(PiiKind::Email));
    assert_eq!((outcome.counts.of(PiiKind::Email), outcome.counts.of(PiiKind::Ipv4)), (2, 1));
    assert_eq!(outcome.text, text);
}

#[test]
fn masks_are_a_function_of_the_value() {
    let pii = Pii::new(everything(PiiMode::Mask));
    let mut scratch = PiiScratch::default();
    let one = pii.scrub("joe@acme.org", &mut scratch).text.into_owned();
    let two = pii.scrub("x ann@acme.org joe@acme.org", &mut scratch).text.into_owned();
    assert!(two.ends_with(&format!(" {one}")) && !two.contains("acme"), "{one} {two}");
    assert!(one.contains("@example."));
    for text in ["4111 1111 1111 1111", "GB82WEST12345698765432", "66.249.65.107", "2606:4700::1111"] {
        let masked = pii.scrub(text, &mut scratch).text.into_owned();
        assert_ne!(masked, text);
        assert_eq!(pii.find(&masked), [], "{text} became {masked}, which is somebody's");
    }
}

proptest! {
    #[test]
    fn never_panics_and_finds_the_same_again(
        pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "@", ".", ":", "::", "1.2.3.4", "66.249.65.107", "joe@acme.org", "Section ", "é", "汉", "=", "[", "]",
                "AKIA", "sk-", "eyJ", ".eyJ", "-----BEGIN ", "PRIVATE KEY-----", "-----END ", "+49 30 ", "0123456789",
                "DE89", "4111 1111 1111 1111", "2001:", "\n", " ", "/24", "//", "a8Kd02mQzLx71VbNc94TyUw6RfGh3JpS5eXo",
            ]).prop_map(str::to_owned),
            any::<String>(),
        ], 0..16),
    ) {
        let text = pieces.concat();
        for mode in [PiiMode::Token, PiiMode::Mask] {
            let pii = Pii::new(PiiOptions { private_addresses: true, ..everything(mode) });
            let spans = pii.find(&text);
            prop_assert!(spans.windows(2).all(|w| w[0].range.end <= w[1].range.start));
            prop_assert!(spans.iter().all(|s| text.get(s.range.clone()).is_some_and(|value| !value.is_empty())));
            let mut scratch = PiiScratch::default();
            let outcome = pii.scrub(&text, &mut scratch);
            prop_assert_eq!(outcome.counts.total() as usize, spans.len());
            prop_assert_eq!(&pii.scrub(&text, &mut scratch), &outcome);
        }
    }
}
