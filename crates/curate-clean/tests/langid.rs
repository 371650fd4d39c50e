//! The embedded language model on sentences written for these tests, and what must hold for any text.

use curate_clean::{Identified, LanguageId, LanguageModel, LanguageScratch, SampleOptions};
use proptest::prelude::*;

fn identify(text: &str) -> Identified {
    LanguageId::embedded().identify(text, &mut LanguageScratch::default())
}

const SENTENCES: &[(&str, &str)] = &[
    ("af", "Ons het gister saam met die kinders langs die rivier gestap en toe tee gedrink."),
    ("am", "ትናንት ከልጆቹ ጋር በወንዙ ዳር በእግር ሄድን።"),
    ("ar", "مشينا أمس مع الأطفال على ضفة النهر ثم شربنا الشاي."),
    ("az", "Dünən uşaqlarla birlikdə çayın sahilində gəzdik və sonra çay içdik."),
    ("be", "Учора мы разам з дзецьмі гулялі каля ракі, а потым пілі гарбату."),
    ("bg", "Вчера се разхождахме с децата край реката и после пихме чай."),
    ("bn", "গতকাল আমরা বাচ্চাদের সঙ্গে নদীর ধারে হেঁটেছিলাম।"),
    ("bo", "ང་ཚོ་ཁ་སང་ཆུ་འགྲམ་དུ་འཆམ་འཆམ་ལ་ཕྱིན་པ་ཡིན།"),
    ("ca", "Ahir vam passejar amb els nens per la vora del riu i després vam prendre te."),
    ("cs", "Včera jsme se s dětmi procházeli podél řeky a potom jsme pili čaj."),
    ("cy", "Ddoe aethom ni am dro gyda'r plant ar lan yr afon ac yna cawsom de."),
    ("da", "I går gik vi en tur med børnene langs åen, og bagefter drak vi te."),
    ("de", "Gestern sind wir mit den Kindern am Fluss spazieren gegangen und haben danach Tee getrunken."),
    ("el", "Χθες περπατήσαμε με τα παιδιά δίπλα στο ποτάμι και μετά ήπιαμε τσάι."),
    ("en", "Yesterday we walked along the river with the children and had tea afterwards."),
    ("eo", "Hieraŭ ni promenis kun la infanoj laŭ la rivero kaj poste trinkis teon."),
    ("es", "Ayer paseamos con los niños por la orilla del río y después tomamos té."),
    ("et", "Eile jalutasime lastega jõe ääres ja pärast jõime teed."),
    ("eu", "Atzo haurrekin ibai ertzean ibili ginen eta gero tea hartu genuen."),
    ("fa", "دیروز با بچه‌ها کنار رودخانه قدم زدیم و بعد چای خوردیم."),
    ("fi", "Eilen kävelimme lasten kanssa joen rannalla ja joimme sitten teetä."),
    (
        "fr",
        "Hier, nous nous sommes promenés avec les enfants au bord de la rivière, puis nous avons bu du thé.",
    ),
    ("ga", "Shiúlamar inné leis na páistí cois na habhann agus d'ólamar tae ina dhiaidh sin."),
    ("gu", "ગઈકાલે અમે બાળકો સાથે નદી કિનારે ચાલ્યા હતા."),
    ("ha", "Jiya mun yi yawo tare da yara a gefen kogi sannan muka sha shayi."),
    ("he", "אתמול הלכנו עם הילדים לאורך הנהר ואחר כך שתינו תה."),
    ("hi", "कल हम बच्चों के साथ नदी के किनारे घूमने गए और फिर चाय पी।"),
    ("hr", "Jučer smo s djecom šetali uz rijeku, a poslije smo pili čaj."),
    ("hu", "Tegnap a gyerekekkel sétáltunk a folyó mentén, aztán teát ittunk."),
    ("hy", "Երեկ երեխաների հետ քայլեցինք գետի ափով։"),
    ("id", "Kemarin kami berjalan-jalan di tepi sungai bersama anak-anak karena cuacanya bagus sekali."),
    ("is", "Í gær gengum við með börnunum meðfram ánni og drukkum svo te."),
    ("it", "Ieri abbiamo passeggiato con i bambini lungo il fiume e poi abbiamo bevuto un tè."),
    ("ja", "昨日は子どもたちと川沿いを散歩して、それからお茶を飲みました。"),
    ("ka", "გუშინ ბავშვებთან ერთად მდინარის პირას ვსეირნობდით."),
    ("kk", "Кеше біз балалармен бірге өзен жағасында серуендеп, кейін шай іштік."),
    ("km", "ម្សិលមិញយើងបានដើរលេងតាមមាត់ទន្លេជាមួយក្មេងៗ។"),
    ("kn", "ನಿನ್ನೆ ನಾವು ಮಕ್ಕಳೊಂದಿಗೆ ನದಿಯ ದಡದಲ್ಲಿ ನಡೆದೆವು."),
    ("ko", "어제 우리는 아이들과 함께 강가를 산책했습니다."),
    ("lo", "ມື້ວານນີ້ພວກເຮົາໄດ້ຍ່າງຫຼິ້ນຢູ່ແຄມນ້ຳກັບເດັກນ້ອຍ."),
    ("lt", "Vakar su vaikais vaikščiojome palei upę, o paskui gėrėme arbatą."),
    ("lv", "Vakar mēs ar bērniem pastaigājāmies gar upi un pēc tam dzērām tēju."),
    ("mk", "Вчера со децата се шетавме покрај реката, а потоа пиевме чај."),
    ("ml", "ഇന്നലെ ഞങ്ങൾ കുട്ടികളോടൊപ്പം പുഴയോരത്ത് നടന്നു."),
    ("mr", "काल आम्ही मुलांसोबत नदीच्या काठावर फिरायला गेलो आणि नंतर चहा प्यायलो."),
    ("ms", "Semalam kami berjalan di tepi sungai bersama kanak-kanak kerana cuaca sangat baik."),
    ("my", "မနေ့က ကျွန်တော်တို့ ကလေးတွေနဲ့ မြစ်ကမ်းမှာ လမ်းလျှောက်ခဲ့တယ်။"),
    ("nl", "Gisteren hebben we met de kinderen langs de rivier gewandeld en daarna thee gedronken."),
    ("no", "I går gikk vi tur med barna langs elva, og etterpå drakk vi te."),
    ("pa", "ਕੱਲ੍ਹ ਅਸੀਂ ਬੱਚਿਆਂ ਨਾਲ ਨਦੀ ਦੇ ਕੰਢੇ ਸੈਰ ਕੀਤੀ।"),
    ("pl", "Wczoraj spacerowaliśmy z dziećmi wzdłuż rzeki, a potem piliśmy herbatę."),
    ("pt", "Ontem passeámos com as crianças junto ao rio e depois bebemos chá."),
    ("ro", "Ieri ne-am plimbat cu copiii pe malul râului și apoi am băut ceai."),
    ("ru", "Вчера мы гуляли с детьми вдоль реки, а потом пили чай."),
    ("si", "ඊයේ අපි ළමයින් සමඟ ගඟ අයිනේ ඇවිද්දෙමු."),
    ("sk", "Včera sme sa s deťmi prechádzali popri rieke a potom sme pili čaj."),
    ("sl", "Včeraj smo se z otroki sprehajali ob reki in potem pili čaj."),
    ("so", "Shalay waxaan carruurta la soconnay webiga agtiisa ka dibna shaah ayaan cabnay."),
    ("sq", "Dje shëtitëm me fëmijët buzë lumit dhe pastaj pimë çaj."),
    ("sr", "Јуче смо са децом шетали поред реке, а после смо пили чај."),
    ("sv", "I går promenerade vi med barnen längs ån och drack sedan te."),
    ("sw", "Jana tulitembea na watoto kando ya mto na baadaye tukanywa chai."),
    ("ta", "நேற்று நாங்கள் குழந்தைகளுடன் ஆற்றங்கரையில் நடந்தோம்."),
    ("te", "నిన్న మేము పిల్లలతో కలిసి నది ఒడ్డున నడిచాము."),
    ("th", "เมื่อวานเราไปเดินเล่นริมแม่น้ำกับเด็ก ๆ แล้วดื่มชา"),
    ("tl", "Kahapon ay naglakad kami kasama ang mga bata sa tabi ng ilog at saka uminom ng tsaa."),
    ("tr", "Dün çocuklarla birlikte nehir kıyısında yürüdük ve sonra çay içtik."),
    ("uk", "Учора ми гуляли з дітьми вздовж річки, а потім пили чай."),
    ("ur", "کل ہم بچوں کے ساتھ دریا کے کنارے چہل قدمی کے لیے گئے اور پھر چائے پی۔"),
    ("vi", "Hôm qua chúng tôi đi dạo với bọn trẻ dọc bờ sông rồi uống trà."),
    ("yi", "נעכטן זענען מיר געגאַנגען שפּאַצירן מיט די קינדער בײַם טײַך."),
    ("zh", "昨天我们和孩子们沿着河边散步，然后喝了茶。"),
    ("zh", "昨天我們和孩子們沿著河邊散步，然後喝了茶。"),
    ("yue", "尋日我哋同啲細路喺河邊行咗一陣，之後飲茶。"),
    ("zu", "Izolo sihambe nezingane eduze komfula sabe sesiphuza itiye."),
];

#[test]
fn sentences() {
    let wrong: Vec<_> = SENTENCES
        .iter()
        .map(|&(expected, text)| (expected, identify(text)))
        .filter(|(expected, found)| found.language.as_str() != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(SENTENCES.len() > 70);
}

#[test]
fn scores_are_probabilities_in_order() {
    for &(_, text) in SENTENCES {
        let found = identify(text);
        assert!(found.score > 0.4 && found.score <= 1.0, "{text}: {found:?}");
        if let Some((_, second)) = found.runner_up {
            assert!((0.0..=found.score).contains(&second), "{text}: {found:?}");
        }
    }
}

#[test]
fn longer_is_surer() {
    let (_, sentence) = SENTENCES[6 - 1];
    let word = sentence.split(' ').next().expect("a sentence has words");
    assert!(identify(sentence).score > identify(word).score);
}

#[test]
fn nothing_to_tell() {
    for text in ["", " \n\t", "12345 678.90", "🙂🙃🚀", "--- *** ---", "\u{200b}\u{feff}", "\0\0\0"] {
        let found = identify(text);
        assert_eq!((found.language.as_str(), found.score), ("und", 0.0), "{text:?}");
        assert!(!found.mixed());
        assert_eq!(found.tag().to_string(), "und");
    }
}

#[test]
fn scripts_are_told_apart() {
    for (text, tag) in [
        ("Јуче смо са децом шетали поред реке.", "sr-Cyrl"),
        ("Кеча болалар билан дарё бўйида сайр қилдик ва кейин чой ичдик.", "uz-Cyrl"),
        ("Kecha bolalar bilan daryo bo'yida sayr qildik va keyin choy ichdik.", "uz-Latn"),
    ] {
        assert_eq!(identify(text).tag().to_string(), tag);
    }
}

#[test]
fn capitals_and_decomposed_letters_do_not_matter() {
    let decomposed =
        "Vcera jsme se s de\u{30c}tmi procha\u{301}zeli pode\u{301}l r\u{30c}eky a pili c\u{30c}aj.";
    assert_eq!(identify(decomposed).language.as_str(), "cs");
    assert_eq!(identify(&SENTENCES[14].1.to_uppercase()).language.as_str(), "en");
    assert_eq!(identify(&SENTENCES[12].1.to_uppercase()).language.as_str(), "de");
    let russian = SENTENCES.iter().find(|(code, _)| *code == "ru").expect("in the list").1;
    assert_eq!(identify(&russian.to_uppercase()).language.as_str(), "ru");
}

#[test]
fn two_languages_in_one_document() {
    let of =
        |code| SENTENCES.iter().find(|(known, _)| *known == code).expect("in the list").1.to_owned() + " ";
    let english = identify(&of("en").repeat(30));
    assert!(!english.mixed(), "{english:?}");
    assert!(english.score > 0.9, "repetition is no doubt: {english:?}");
    assert_eq!(english.second, None);
    let both = identify(&(of("en").repeat(15) + &of("ru").repeat(8)));
    assert!(both.mixed(), "{both:?}");
    let languages = [both.language.as_str().to_owned(), both.second.expect("there is one").to_string()];
    assert!(languages.contains(&"en".to_owned()) && languages.contains(&"ru".to_owned()), "{both:?}");
    let quoted = identify(&(of("en").repeat(30) + &of("ru")));
    assert!(!quoted.mixed(), "{quoted:?}");
}

#[test]
fn long_documents_are_judged_by_their_sample() {
    let of =
        |code| SENTENCES.iter().find(|(known, _)| *known == code).expect("in the list").1.to_owned() + " ";
    let first = LanguageId::with_sample(SampleOptions { windows: 1, window_bytes: 512 });
    let text = of("de").repeat(10) + &of("fr").repeat(500);
    let scratch = &mut LanguageScratch::default();
    assert_eq!(first.identify(&text, scratch).language.as_str(), "de");
    assert_eq!(LanguageId::embedded().identify(&text, scratch).language.as_str(), "fr");
}

/// A text whose first window is all of one script, cut inside a character.
#[test]
fn windows_do_not_cut_characters() {
    for pad in 0..4 {
        let text = "a".repeat(pad) + &"語".repeat(3000);
        assert_eq!(identify(&text).script.as_str(), "Hani", "{pad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_has_one_answer(text in "(\\PC|[a-zà-ž ]|[а-я ]|\n|\0){0,300}", before in "\\PC{0,80}", times in 1_usize..30) {
        let text = text.repeat(times);
        let fresh = identify(&text);
        let mut used = LanguageScratch::default();
        LanguageId::embedded().identify(&before, &mut used);
        let model: &dyn LanguageModel = LanguageId::embedded();
        prop_assert_eq!(fresh, model.identify(&text, &mut used));
        prop_assert!((0.0..=1.0).contains(&fresh.score));
        prop_assert!((0.0..=1.0).contains(&fresh.other_share));
        prop_assert_eq!(fresh.other_share > 0.0, fresh.second.is_some());
        prop_assert!(fresh.second != Some(fresh.language));
        if !text.chars().any(char::is_alphabetic) {
            prop_assert_eq!(fresh.language.as_str(), "und");
        }
    }
}
