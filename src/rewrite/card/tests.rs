//! Cards with every URL there may be, against serde_json as a reference.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ORIGIN: &str = "http://proxy.kagent:8080";

fn helper(host: &str) -> bool {
    host == "helper.team-a"
}

fn rewrite(card: &str) -> String {
    let done = rewrite_card(card.as_bytes(), ORIGIN, &helper).unwrap();
    String::from_utf8(done.body).unwrap()
}

#[test]
fn every_url_of_the_backend_becomes_ours_and_nothing_else_changes() {
    let card = json!({
        "name": "helper", "x": {"url": "http://helper.team-a:8080"}, "version": 1.0,
        "url": "http://Helper.team-a:8080/a/?q=1",
        "additionalInterfaces": [{"url": "http://helper.team-a:8080", "transport": "JSONRPC"}],
        "supportedInterfaces": [
            {"url": "http://localhost:8080/", "protocolVersion": "1.0"},
            {"url": "http://0.0.0.0:8080"}, {"url": "http://[::1]:8080/b"},
            {"url": "https://public.example/a2a"}, {"url": "grpc://helper.team-a:9"}, {},
            {"x": {"url": "http://helper.team-a/"}}, [{"url": "http://helper.team-a/"}]
        ],
        "y": [{"url": "http://helper.team-a:8080"}]
    });
    let done = rewrite_card(card.to_string().as_bytes(), ORIGIN, &helper).unwrap();
    assert_eq!(done.urls, 5);
    let mut expected = card;
    expected["url"] = json!("http://proxy.kagent:8080/a/?q=1");
    expected["additionalInterfaces"][0]["url"] = json!(ORIGIN);
    expected["supportedInterfaces"][0]["url"] = json!("http://proxy.kagent:8080/");
    expected["supportedInterfaces"][1]["url"] = json!(ORIGIN);
    expected["supportedInterfaces"][2]["url"] = json!("http://proxy.kagent:8080/b");
    assert_eq!(String::from_utf8(done.body).unwrap(), expected.to_string());
}

#[test]
fn an_interface_of_grpc_at_a_port_of_its_own_is_left_out_as_long_as_another_stays() {
    let json = r#"{"url":"http://helper.team-a:8080/","protocolBinding":"JSONRPC"}"#;
    let ours = r#"{"url":"http://proxy.kagent:8080/","protocolBinding":"JSONRPC"}"#;
    let bare = r#"{"protocolBinding":"GRPC","url":"helper.team-a:50051"}"#;
    let url = r#"{"url":"http://localhost:50051","transport":"grpc"}"#;
    let dns = r#"{"url":"dns:///helper.team-a:50051"}"#;
    for (list, expected, left_out) in [
        (format!("[{json}, {bare}]"), format!("[{ours}]"), 1),
        (format!("[{bare} , {json}]"), format!("[ {ours}]"), 1),
        (format!("[{bare},{url},{json},{dns},1]"), format!("[{ours},1]"), 3),
        (format!("[{url},1,{json}]"), format!("[1,{ours}]"), 1),
        // One port for all of them: it is this one, whatever the backend believes.
        (
            format!("[{bare}]"),
            r#"[{"protocolBinding":"GRPC","url":"proxy.kagent:8080"}]"#.into(),
            0,
        ),
        (format!("[{dns}]"), r#"[{"url":"dns:///proxy.kagent:8080"}]"#.into(), 0),
        (
            format!("[{},{json}]", bare.replace("50051", "8080")),
            format!(r#"[{{"protocolBinding":"GRPC","url":"proxy.kagent:8080"}},{ours}]"#),
            0,
        ),
        // Others' are not ours to judge.
        (
            format!("[{json},{}]", bare.replace("helper.team-a", "grpc.example")),
            format!("[{ours},{}]", bare.replace("helper.team-a", "grpc.example")),
            0,
        ),
    ] {
        let card = format!(r#"{{"supportedInterfaces":{list},"x":1}}"#);
        let done = rewrite_card(card.as_bytes(), ORIGIN, &helper).unwrap();
        let expected = format!(r#"{{"supportedInterfaces":{expected},"x":1}}"#);
        assert_eq!(String::from_utf8(done.body).unwrap(), expected, "{card}");
        assert_eq!(done.left_out, left_out, "{card}");
    }
    // In 0.3 the card's own URL stays beside them.
    let card = format!(r#"{{"additionalInterfaces":[{bare}],"url":"http://helper.team-a:8080"}}"#);
    assert_eq!(rewrite(&card), r#"{"additionalInterfaces":[],"url":"http://proxy.kagent:8080"}"#);
    let card = format!(
        r#"{{"url":"helper.team-a:1","preferredTransport":"GRPC","additionalInterfaces":[{bare}]}}"#
    );
    assert_eq!(serde_json::from_str::<Value>(&rewrite(&card)).unwrap()["url"], "proxy.kagent:8080");
    // And inside an answer.
    let body = format!(r#"{{"result":{{"supportedInterfaces":[{json},{bare}]}}}}"#);
    assert_eq!(
        answer(&body).unwrap(),
        format!(r#"{{"result":{{"supportedInterfaces":[{ours}]}}}}"#)
    );
}

#[test]
fn a_target_of_grpc_needs_a_port() {
    let card = br#"{"url":"localhost:1"}"#;
    for (origin, ours) in [
        ("http://proxy", "proxy:80"),
        ("https://proxy", "proxy:443"),
        ("https://proxy/base", "proxy:443"),
        ("http://[::1]", "[::1]:80"),
        ("http://[::1]:8", "[::1]:8"),
    ] {
        let done = rewrite_card(card, origin, &helper).unwrap();
        assert_eq!(String::from_utf8(done.body).unwrap(), format!(r#"{{"url":"{ours}"}}"#));
    }
}

#[test]
fn signatures_go_with_one_comma() {
    for (card, expected) in [
        (r#"{"signatures":[1],"a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"signatures":[{"b":2}],"c":3}"#, r#"{"a":1,"c":3}"#),
        (r#"{"a":1 , "signatures" : null }"#, r#"{"a":1  }"#),
        (r#"{ "signatures":"x" }"#, "{  }"),
        (r#"{"signatures":1,"signatures":2}"#, "{}"),
        (r#"{"signatures":1,"signatures":2, "a":1}"#, r#"{ "a":1}"#),
        (r#"{"a":1,"signatures":1,"Signatures":2}"#, r#"{"a":1}"#),
        (r#"{"signatures":1,"a":1,"signatur\u0065s":{"x":[1,2]},"b":2}"#, r#"{"a":1,"b":2}"#),
    ] {
        let done = rewrite_card(card.as_bytes(), ORIGIN, &helper).unwrap();
        assert!(done.signatures_removed);
        assert_eq!(String::from_utf8(done.body).unwrap(), expected, "{card}");
    }
    let inner = r#"{"x":{"signatures":1},"y":"signatures"}"#;
    assert_eq!(rewrite(inner), inner);
}

#[test]
fn a_url_changes_in_its_place_whatever_its_escapes() {
    for (card, expected) in [
        (
            r#"{"url":"\thttp:\/\/helper.team-a\/\u00e9 "}"#,
            r#"{"url":"\thttp://proxy.kagent:8080\/\u00e9 "}"#,
        ),
        (
            r#"{"\u0055RL":"http://\u0068elper.team-a"}"#,
            r#"{"\u0055RL":"http://proxy.kagent:8080"}"#,
        ),
        (
            r#"{"url":"//u\":\ud83d@helper.team-a/"}"#,
            r#"{"url":"http://u\":\ud83d@proxy.kagent:8080/"}"#,
        ),
        (
            r#"{"url":"http://localhost","url":"http://localhost/"}"#,
            r#"{"url":"http://proxy.kagent:8080","url":"http://proxy.kagent:8080/"}"#,
        ),
    ] {
        assert_eq!(rewrite(card), expected, "{card}");
    }
    // The Host of a request may have any visible character.
    let done = rewrite_card(br#"{"url":"http://localhost/"}"#, "http://a\"\\b", &helper).unwrap();
    let read: Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!(read["url"], "http://a\"\\b/");
}

#[test]
fn what_is_no_object_is_refused() {
    for body in ["", "[1]", "1", "\"url\"", "{", "<html>", r#"{"url":"\x"}"#, r#"{"ur\l":1}"#] {
        assert!(rewrite_card(body.as_bytes(), ORIGIN, &|_| true).is_err(), "{body}");
    }
}

fn answer(body: &str) -> Option<String> {
    let done = rewrite_answer(body.as_bytes(), ORIGIN, &helper).unwrap()?;
    Some(String::from_utf8(done.body).unwrap())
}

#[test]
fn the_card_of_an_answer_changes_and_nothing_around_it() {
    let url = "\"url\":\"http://helper.team-a:8080/\"";
    let card = format!(
        r#"{{"signatures":[{{"x":1}}],{url},"supportedInterfaces":[{{{url}}}],"additional_interfaces":[{{{url}}}]}}"#
    );
    for around in [
        r#"{"jsonrpc":"2.0","id":"x-7","result":CARD}"#,
        "{ \"Result\" :CARD,\n\"id\":null, \"signatures\":[1],\"url\":\"http://helper.team-a:8080/\" }\n",
        r#"{"x":{"result":{"url":"http://helper.team-a:8080/"}},"r\u0065sult": CARD}"#,
        r#"{"supportedInterfaces":[{"url":"http://helper.team-a:8080/"}],"result":CARD,"error":null}"#,
    ] {
        let done = rewrite_answer(around.replace("CARD", &card).as_bytes(), ORIGIN, &helper);
        let done = done.unwrap().unwrap();
        assert_eq!((done.urls, done.signatures_removed), (3, true));
        let text = String::from_utf8(done.body).unwrap();
        assert_eq!(text, around.replace("CARD", &rewrite(&card)), "{around}");
    }
}

#[test]
fn an_answer_without_a_url_to_change_stays() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32007,"data":{"url":"http://helper.team-a"}}}"#,
        r#"{"id":1,"result":{"url":"https://public.example/","signatures":[1]}}"#,
        // The client has named the backend itself.
        r#"{"id":1,"result":{"url":"http://proxy.kagent:8080/","signatures":[1]}}"#,
        r#"{"url":"http://helper.team-a:8080","signatures":[1]}"#,
        r#"{"id":1,"result":{"x":{"result":{"url":"http://helper.team-a:8080"}}}}"#,
        "{}",
    ] {
        let proxied = |host: &str| helper(host) || host == "proxy.kagent";
        let done = rewrite_answer(body.as_bytes(), ORIGIN, &proxied).unwrap();
        assert_eq!(done, None, "{body}");
        assert_eq!(answer(body), None);
    }
    for body in ["", "{", "[]", "[{\"result\":{}}]", "{\"result\":[]}", "{\"result\":1}", "1"] {
        let done = rewrite_answer(body.as_bytes(), ORIGIN, &|_| true);
        assert_eq!(done.is_err(), body != "1", "{body}");
    }
}

#[test]
fn the_places_of_cards_are_known_under_any_prefix() {
    for place in [
        "/.well-known/agent-card.json",
        "/.well-known/agent.json",
        "/extendedAgentCard",
        "/v1/card",
        "/agent/authenticatedExtendedCard",
    ] {
        assert!(is_card_path(place) && is_card_path(&format!("/agents/ns/name{place}")));
        assert!(!is_card_path(&format!("{place}/x")) && !is_card_path(&place[1..]));
    }
    for other in ["/", "/card", "/v1/cards", "/xextendedAgentCard", "/v1/card.json"] {
        assert!(!is_card_path(other), "{other}");
    }
}

/// The reference: the value read, changed and compared as a value.
fn reference(card: &Value) -> Value {
    let mut card = card.clone();
    let change = |url: &mut Value| {
        let path = url.as_str().and_then(|url| url.strip_prefix("http://helper.team-a"));
        if let Some(path) = path {
            *url = json!(format!("{ORIGIN}{path}"));
        }
    };
    let Some(members) = card.as_object_mut() else { return card };
    members.shift_remove("signatures");
    for (name, value) in members {
        match (name.as_str(), value) {
            ("url", url) => change(url),
            ("supportedInterfaces" | "additionalInterfaces", Value::Array(list)) => {
                list.iter_mut().filter_map(|entry| entry.get_mut("url")).for_each(change);
            }
            _ => {}
        }
    }
    card
}

/// JSON as text, with any white space, and with escapes that need not be.
fn text_of(value: &Value, seed: &mut fastrand::Rng) -> String {
    let space = |seed: &mut fastrand::Rng| [" ", "", "\n\t", "", ""][seed.usize(..5)];
    let string = |text: &str, seed: &mut fastrand::Rng| {
        let escaped = |c: char| format!("\\u{:04x}", u32::from(c));
        let any: String = text
            .chars()
            .map(|c| if seed.u8(..9) == 0 && c < '\u{ff}' { escaped(c) } else { c.to_string() })
            .collect();
        format!("\"{any}\"")
    };
    let inner = match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| text_of(item, seed)).collect();
            format!("[{}{}]", space(seed), items.join(","))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| {
                    format!("{}{}:{}", space(seed), string(name, seed), text_of(value, seed))
                })
                .collect();
            format!("{{{}{}}}", space(seed), members.join(","))
        }
        Value::String(text) => string(text, seed),
        other => other.to_string(),
    };
    format!("{}{inner}{}", space(seed), space(seed))
}

fn values() -> impl Strategy<Value = Value> {
    let names = "url|x|signatures|supportedInterfaces|additionalInterfaces";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z\u{e9}/:]{0,8}".prop_map(Value::from),
        "http://(helper\\.team-a|other\\.team-a)(/[a-z\u{e9}]{0,4})?".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((names, inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_card_is_what_the_reference_makes_of_it(card in values(), seed in any::<u64>()) {
        prop_assume!(card.is_object());
        let text = text_of(&card, &mut fastrand::Rng::with_seed(seed));
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &card);
        let done = rewrite_card(text.as_bytes(), "http://proxy.kagent", &|_| false).unwrap();
        if !done.signatures_removed {
            prop_assert_eq!(done.body, text.as_bytes(), "nothing to rewrite: every byte stays");
        }
        let read: Value = serde_json::from_str(&rewrite(&text)).unwrap();
        prop_assert_eq!(read, reference(&card));
        // In an answer its bytes become the same.
        let around = |card: &str| format!("{{\"id\":1,\"result\":{card} ,\"url\":\"http://helper.team-a\"}}");
        let done = rewrite_card(text.as_bytes(), ORIGIN, &helper).unwrap();
        let expected = (done.urls > 0).then(|| around(&String::from_utf8(done.body).unwrap()));
        prop_assert_eq!(answer(&around(&text)), expected);
    }
}
