//! Agent cards: URLs of the backend become ours, or clients take their calls around the proxy.
//!
//! kagent's Go runtime dials the URL of the card (`go/adk/pkg/tools/remote_a2a_tool.go`), a2a-go 0.3
//! reads `url` and then `additionalInterfaces`, v2 reads `supportedInterfaces`. Knows JSON and host
//! names only; `proxy/card.rs` reads the bytes and sends the result.

use serde_json::Value;

use super::origin::behind_origin;

/// Bytes of a card that are looked at; a larger one passes as it is (D20).
pub const MAX_CARD: usize = 1024 * 1024;

/// A card that leads to us.
#[derive(Debug, PartialEq, Eq)]
pub struct RewrittenCard {
    /// JSON, fields in their order.
    pub body: Vec<u8>,
    /// How many URLs were changed.
    pub urls: usize,
    /// A signature was removed: it would not hold any more.
    pub signatures_removed: bool,
}

/// Whether a path is one of the well-known places of a card (A2A 0.2 and later), under any prefix.
#[must_use]
pub fn is_card_path(path: &str) -> bool {
    path.ends_with("/.well-known/agent-card.json") || path.ends_with("/.well-known/agent.json")
}

/// Replaces scheme and authority of every URL of the backend by `origin`, such as
/// `http://proxy.kagent:8080`; path and query stay. `backend` judges a lower-case host name; loopback
/// and unspecified addresses are the backend's in any case. `None` if the body is no JSON object.
#[must_use]
pub fn rewrite_card(
    body: &[u8],
    origin: &str,
    backend: &dyn Fn(&str) -> bool,
) -> Option<RewrittenCard> {
    let mut card: Value = serde_json::from_slice(body).ok()?;
    let fields = card.as_object_mut()?;
    let mut urls = 0;
    let mut visit = |url: Option<&mut Value>| {
        if let Some(Value::String(url)) = url
            && let Some(path) = behind_origin(url, backend)
        {
            *url = format!("{origin}{path}");
            urls += 1;
        }
    };
    visit(fields.get_mut("url"));
    for list in ["additionalInterfaces", "supportedInterfaces"] {
        let entries = fields.get_mut(list).and_then(Value::as_array_mut);
        entries.into_iter().flatten().for_each(|entry| visit(entry.get_mut("url")));
    }
    let signatures_removed = fields.shift_remove("signatures").is_some();
    Some(RewrittenCard { body: card.to_string().into_bytes(), urls, signatures_removed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ORIGIN: &str = "http://proxy.kagent:8080";

    fn rewrite(card: &Value) -> (Value, usize) {
        let helper = |host: &str| host == "helper.team-a";
        let done = rewrite_card(card.to_string().as_bytes(), ORIGIN, &helper).unwrap();
        (serde_json::from_slice(&done.body).unwrap(), done.urls)
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
                {"url": "https://public.example/a2a"}, {"url": "grpc://helper.team-a:9"}, {}
            ]
        });
        let (done, urls) = rewrite(&card);
        assert_eq!(urls, 5);
        let mut expected = card;
        expected["url"] = json!("http://proxy.kagent:8080/a/?q=1");
        expected["additionalInterfaces"][0]["url"] = json!(ORIGIN);
        expected["supportedInterfaces"][0]["url"] = json!("http://proxy.kagent:8080/");
        expected["supportedInterfaces"][1]["url"] = json!(ORIGIN);
        expected["supportedInterfaces"][2]["url"] = json!("http://proxy.kagent:8080/b");
        assert_eq!(done.to_string(), expected.to_string(), "order of fields included");
    }

    #[test]
    fn a_signature_goes_and_credentials_in_a_url_are_left_alone() {
        let card = json!({"url": "http://u:p@helper.team-a/", "signatures": [1], "z": 1});
        let done = rewrite_card(card.to_string().as_bytes(), ORIGIN, &|_| true).unwrap();
        assert!(done.signatures_removed);
        assert_eq!(done.body, br#"{"url":"http://u:p@helper.team-a/","z":1}"#);
    }

    #[test]
    fn numbers_keep_their_value() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let number = f64::from_bits(random.u64(..));
            if !number.is_finite() {
                continue;
            }
            let card = format!("{{\"x\":{number:e}}}");
            let done = rewrite_card(card.as_bytes(), ORIGIN, &|_| true).unwrap();
            let text = std::str::from_utf8(&done.body).unwrap();
            let seen = text.strip_prefix("{\"x\":").and_then(|text| text.strip_suffix('}'));
            assert_eq!(seen.unwrap().parse::<f64>().unwrap().to_bits(), number.to_bits(), "{card}");
        }
    }

    #[test]
    fn what_is_no_object_is_not_touched() {
        for body in ["", "[1]", "{", "<html>"] {
            assert_eq!(rewrite_card(body.as_bytes(), ORIGIN, &|_| true), None, "{body}");
        }
    }
}
