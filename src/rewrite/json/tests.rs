//! The walk against serde_json as a reference, and what it reads beyond it.

use serde_json::{Map, Value};

use super::*;

/// Builds a value from the parts of a walk: what the walk leaves out, the value lacks.
fn build(text: &[u8]) -> Result<Value, Malformed> {
    let mut walk = Walk::new(text);
    let mut stack: Vec<(Value, Option<String>)> = Vec::new();
    let (mut name, mut done) = (None, None);
    loop {
        let before = walk.at();
        let value = match walk.next_part()? {
            None => return Ok(done.unwrap()),
            Some(Part::Begin) => {
                let object = walk.open().last() == Some(&Container::Object);
                let value = if object { Value::Object(Map::new()) } else { Value::Array(vec![]) };
                stack.push((value, name.take()));
                continue;
            }
            Some(Part::Name(range)) => {
                name = Some(text_of(&text[range]));
                continue;
            }
            Some(Part::End) => {
                let (value, its) = stack.pop().unwrap();
                name = its;
                value
            }
            Some(Part::Text(range)) => Value::String(text_of(&text[range])),
            Some(Part::Other) => {
                let word = std::str::from_utf8(&text[before..walk.at()]).unwrap();
                let word = word.trim_start_matches([',', ' ', '\t', '\r', '\n']);
                serde_json::from_str(word).map_err(|_| Malformed { at: before })?
            }
        };
        match stack.last_mut() {
            None => done = Some(value),
            Some((Value::Array(items), _)) => items.push(value),
            Some((Value::Object(members), _)) => {
                members.insert(name.take().unwrap(), value);
            }
            Some(_) => unreachable!(),
        }
    }
}

fn text_of(raw: &[u8]) -> String {
    String::from_utf8(Unescaped::read(raw).unwrap().text).unwrap()
}

proptest::proptest! {
    #[test]
    fn what_serde_reads_is_read_the_same(text in "[\\[\\]{}:,\"\\\\u0d8c/ntae1. -]{0,24}") {
        if let Ok(expected) = serde_json::from_str::<Value>(&text) {
            proptest::prop_assert_eq!(build(text.as_bytes()), Ok(expected), "{}", text);
        }
    }

    #[test]
    fn any_bytes_come_to_an_end(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
        let mut walk = Walk::new(&text);
        for _ in 0..=2 * text.len() {
            match walk.next_part() {
                Ok(Some(_)) => proptest::prop_assert!(walk.at() <= text.len()),
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        proptest::prop_assert!(false, "it goes on for ever");
    }
}

#[test]
fn whole_texts_are_read_the_same() {
    for text in [
        r#"{"a":{"b":[1,-2.5e+7,"x\n\"\\\/\b\f\r\t",{}],"c":[]},"d":null}"#,
        " [ true , false , [ [ ] , { } ] ] ",
        r#""\ud83d\ude00\u00e9""#,
        "7",
    ] {
        assert_eq!(build(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "{]",
        "[}",
        "}",
        "{,}",
        "[,]",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "[1,,2]",
        "\"",
        "\"\\",
        "\"\\\"",
        "[/* */1]",
        "[1//\n]",
        "\u{feff}",
        "{\"a\":1,[",
        ":",
        ",",
    ] {
        assert!(build(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(Walk::new(b" \n x\0").next_part(), Ok(Some(Part::Other)));
    let mut walk = Walk::new(b"[1;2]");
    let parts: Vec<_> = std::iter::repeat_with(|| walk.next_part()).take(3).collect();
    assert_eq!(parts.last(), Some(&Err(Malformed { at: 2 })));
}

#[test]
fn what_other_readers_take_is_walked() {
    for text in [
        &b"\xef\xbb\xbf{\"a\":1}"[..],
        b"{\"a\":\"\xff\"}",
        b"[NaN,-Infinity,1E400,123456789012345678901234567890]",
        b"{} and more",
        b"{\"a\":\"\n\"}",
        &[&b"[".repeat(100_000)[..], &b"]".repeat(100_000)].concat(),
    ] {
        let mut walk = Walk::new(text);
        while walk.next_part().unwrap().is_some() {}
    }
}

#[test]
fn escapes_are_read_and_their_places_kept() {
    let raw = br"a\u0062\/\ud83d\ude00\ud83dx";
    let read = Unescaped::read(raw).unwrap();
    assert_eq!(read.text, "ab/\u{1f600}\u{fffd}x".as_bytes());
    let places: Vec<_> = (0..=11).map(|at| read.place(at).unwrap()).collect();
    assert_eq!(places, [0, 1, 7, 9, 9, 9, 9, 21, 21, 21, 27, 28]);
    assert_eq!(read.place(12), None);
    for raw in [&b"\\"[..], b"\\x", b"\\u12", b"\\u12g4", b"\\u+123"] {
        assert_eq!(Unescaped::read(raw), None);
    }
    assert_eq!(Unescaped::read(br"\udc00\ud83d").unwrap().text, "\u{fffd}\u{fffd}".as_bytes());
}
