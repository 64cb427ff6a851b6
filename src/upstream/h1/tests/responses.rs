//! Responses as they come from backends, whole, odd and broken ones: what the oracle and we make of each.

use super::oracle::{Case, Outcome};
use super::*;

const BODIES: &[(&str, &str)] = &[
    ("", ""),
    ("", "until close"),
    ("content-length: 0\r\n", ""),
    ("content-length: 5\r\n", "hello"),
    ("content-length: 5\r\n", "hel"),
    ("content-length: 5\r\n", "hello and more"),
    ("content-length: 5, 5\r\n", "hello"),
    ("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
    ("content-length: +5\r\n", "hello"),
    ("Content-Length : 5\r\n", "hello"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5;a=b\r\nhello\r\n1 \r\n!\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx-sum: 7\r\nx-b: 8\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello!\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\nhello"),
    ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: gzip, chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: identity\r\n", "hello"),
    ("x-a: 1\r\n folded\r\ncontent-length: 0\r\n", ""),
    ("x a: 1\r\ncontent-length: 0\r\n", ""),
    ("x-a: 1\ncontent-length: 0\r\n", ""),
    ("x-empty:\r\nx-wide:  \t a b \t \r\ncontent-length: 0\r\n", ""),
    ("connection: close\r\ncontent-length: 2\r\n", "ok"),
    ("connection: keep-alive\r\ncontent-length: 2\r\n", "ok"),
    ("connection: keep-alive\r\nconnection: x, Close\r\ncontent-length: 2\r\n", "ok"),
];

const STATUS: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 418 Short and stout",
    "HTTP/1.1 200",
    "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 404 Not Found",
    "HTTP/2.0 200 OK",
    "HTTP/1.1 20 OK",
    "\r\nHTTP/1.1 200 OK",
    "hello",
];

#[test]
fn every_response_is_what_hyper_makes_of_it_wherever_it_is_split() {
    let (mut passed, mut refused) = (0, 0);
    alone(async {
        for status in STATUS {
            for (fields, body) in BODIES {
                let response = format!("{status}\r\n{fields}\r\n{body}");
                for (to_head, closes, step) in
                    [(false, true, 1), (false, false, 7), (true, false, 1), (true, true, 7)]
                {
                    let case = Case { bytes: response.as_bytes(), to_head, closes };
                    match case.everywhere(step).await {
                        Outcome::Passed(_) => passed += 1,
                        Outcome::Refused => refused += 1,
                        Outcome::Waits => {}
                    }
                }
            }
        }
    });
    assert!(passed > 300 && refused > 300, "{passed} passed, {refused} refused");
}

#[test]
fn a_head_has_its_limits_to_the_byte() {
    let passes = async |head: String, at: &[usize]| {
        let case = Case { bytes: head.as_bytes(), to_head: false, closes: false };
        matches!(case.by_us(at).await, Outcome::Passed(_))
    };
    alone(async {
        let head =
            |fill: usize| format!("HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n", "y".repeat(fill));
        let room = LIMITS.bytes() - head(0).len();
        assert!(passes(head(room), &[]).await && passes(head(room), &[1000, 4000]).await);
        assert!(!passes(head(room + 1), &[]).await && !passes(head(room + 1), &[4090]).await);
        let fields = |count: usize| format!("HTTP/1.1 204 x\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(passes(fields(LIMITS.fields()), &[]).await);
        assert!(!passes(fields(LIMITS.fields() + 1), &[]).await);
        // One that does not end is refused, not waited for.
        let endless = head(2 * LIMITS.bytes()).into_bytes();
        for bytes in [&endless[..LIMITS.bytes() + 1], &endless[..8000]] {
            let case = Case { bytes, to_head: false, closes: false };
            assert_eq!(case.by_us(&[100, 4000]).await, Outcome::Refused);
        }
    });
}

#[test]
fn a_connection_is_used_again_only_where_its_end_is_sure() {
    alone(async {
        for (response, again) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
            (
                "HTTP/1.0 200 OK\r\nconnection: keep-alive, close\r\ncontent-length: 0\r\n\r\n",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nconnection: close, keep-alive\r\ncontent-length: 0\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x, Close\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: \u{e9},close\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n!", false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\nok", false),
        ] {
            let bytes = response.as_bytes();
            let case = Case { bytes, to_head: false, closes: false };
            for at in 0..=bytes.len() {
                let Outcome::Passed(seen) = case.by_us(&[at]).await else {
                    panic!("{response:?} is refused");
                };
                assert_eq!(seen.reusable, again, "{response:?} split at {at}");
            }
        }
    });
}

/// Fields that say how a connection or a body goes on, rightly or not, and others.
fn field() -> impl Strategy<Value = String> {
    let length = prop::sample::select(vec!["0", "5", "05", "5, 5", "5,6", "+5", "5 5", "", "x"])
        .prop_map(|length| format!("content-length: {length}"));
    let coding = prop::sample::select(vec!["chunked", "Chunked", "gzip", "chunked, chunked", ""])
        .prop_map(|coding| format!("transfer-encoding: {coding}"));
    let options = vec!["close", "Keep-Alive", "close, keep-alive", "x", "x,close", "keep-alive\t"];
    let option = prop::sample::select(options).prop_map(|option| format!("connection: {option}"));
    prop_oneof![4 => "[a-zA-Z-]{1,8} ?: ?[ -~]{0,12}", 1 => length, 1 => coding, 3 => option]
}

/// A body with the field that frames it.
fn body() -> impl Strategy<Value = (String, String)> {
    let extensions = vec!["", "", "", " ", "\t ", ";a", ";a=b", ";q=\"x\"", " ;x;y"];
    let chunk = ("[a-z]{1,6}", prop::sample::select(extensions), prop::bool::weighted(0.2));
    let chunk = chunk.prop_map(|(data, extension, wide)| {
        let zeros = if wide { "00" } else { "" };
        format!("{zeros}{:X}{extension}\r\n{data}\r\n", data.len())
    });
    let trailers =
        prop::sample::select(vec!["", "", "x-sum: 7\r\n", "x:\r\nY : z \r\n", "none\r\n"]);
    let chunked = (prop::collection::vec(chunk, 0..3), trailers, "[a-z]{0,2}").prop_map(
        |(chunks, trailers, behind)| {
            let body = format!("{}0\r\n{trailers}\r\n{behind}", chunks.concat());
            ("transfer-encoding: chunked\r\n".to_owned(), body)
        },
    );
    let sized = (0usize..9, "[a-z]{0,9}")
        .prop_map(|(length, data)| (format!("content-length: {length}\r\n"), data));
    let until_close = "[a-z\r\n]{0,9}".prop_map(|data| (String::new(), data));
    prop_oneof![4 => chunked, 3 => sized, 1 => until_close]
}

/// One byte that is another one, comes in between or is missing.
fn spoiled(mut bytes: Vec<u8>, spoil: Option<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    if let Some((at, byte, how)) = spoil {
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let interim =
        vec!["", "", "", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", "HTTP/1.0 100 \r\n\r\n"];
    let version = prop::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let status =
        prop::sample::select(vec![200u16, 200, 204, 205, 304, 404, 503, 599, 600, 999, 99]);
    let reason = prop::sample::select(vec![" OK", " Odd  one", " ", "", "  two", " \u{e9}", "\t"]);
    let line = (prop::sample::select(interim), version, status, reason);
    let spoil = (
        any::<prop::sample::Index>(),
        prop::sample::select(b"\r\n;: \0\"\ta0fH,\xff".to_vec()),
        0u8..3,
    );
    let fields = prop::collection::vec(field(), 0..3);
    (line, fields, body(), prop::option::weighted(0.4, spoil)).prop_map(
        |((interim, version, status, reason), fields, (framing, body), spoil)| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            let head = format!("{interim}{version} {status}{reason}\r\n{fields}{framing}\r\n");
            spoiled(format!("{head}{body}").into_bytes(), spoil)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn generated_responses_are_what_hyper_makes_of_them(
        bytes in response(),
        closes in any::<bool>(),
    ) {
        alone(Case { bytes: &bytes, to_head: false, closes }.everywhere(1));
    }

    #[test]
    fn generated_responses_to_head_are_what_hyper_makes_of_them(
        bytes in response(),
        closes in any::<bool>(),
    ) {
        alone(Case { bytes: &bytes, to_head: true, closes }.everywhere(1));
    }
}
