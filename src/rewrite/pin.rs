//! The token of a legacy MCP stream in the URL that its `endpoint` event names (MCP 2024-11-05, "HTTP with SSE"):
//! put in for the client, and taken out again before the server sees it.
//!
//! Knows URLs as bytes; never what a token is.

use http::uri::PathAndQuery;

/// The query parameter. No server has one of this name.
const PARAMETER: &str = "kagent-proxy-session=";

/// The URL with the token as its last query parameter.
#[must_use]
pub fn put(url: &[u8], token: &[u8]) -> Vec<u8> {
    let end = url.iter().position(|byte| *byte == b'#').unwrap_or(url.len());
    let (url, fragment) = url.split_at(end);
    let between: &[u8] = if url.contains(&b'?') { b"&" } else { b"?" };
    [url, between, PARAMETER.as_bytes(), token, fragment].concat()
}

/// The path and query without the token that was put in last, and the token. `None` if there is none.
#[must_use]
pub fn take(path: &PathAndQuery) -> Option<(PathAndQuery, &str)> {
    let query = path.query()?;
    // Most queries are done with here.
    query.contains(PARAMETER).then_some(())?;
    let parameters: Vec<&str> = query.split('&').collect();
    let last = parameters.iter().rposition(|one| one.starts_with(PARAMETER))?;
    let token = parameters.get(last)?.strip_prefix(PARAMETER)?;
    let others = parameters.iter().enumerate().filter(|(at, _)| *at != last);
    let query = others.map(|(_, one)| *one).collect::<Vec<_>>().join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    Some((PathAndQuery::try_from(format!("{}{mark}{query}", path.path())).ok()?, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_taken_out_again() {
        for url in ["/messages/", "/messages/?session_id=abc", "/m?a=1&b=?", "/"] {
            let with = put(url.as_bytes(), b"kp1.x-_9");
            let with = PathAndQuery::try_from(with.as_slice()).unwrap();
            let (without, token) = take(&with).unwrap();
            assert_eq!((without.as_str(), token), (url, "kp1.x-_9"), "{with}");
        }
        assert_eq!(put(b"/m#part", b"t"), b"/m?kagent-proxy-session=t#part");
        let more = PathAndQuery::from_static("/m?a=1&kagent-proxy-session=t&b=2");
        assert_eq!(take(&more).unwrap().0.as_str(), "/m?a=1&b=2");
        let two =
            PathAndQuery::from_static("/m?kagent-proxy-session=inner&kagent-proxy-session=outer");
        let (left, token) = take(&two).unwrap();
        assert_eq!((left.as_str(), token), ("/m?kagent-proxy-session=inner", "outer"));
        let first = PathAndQuery::from_static("/m?kagent-proxy-session=t&b=2");
        assert_eq!(take(&first).unwrap().0.as_str(), "/m?b=2");
    }

    #[test]
    fn other_queries_have_no_token() {
        for path in
            ["/m", "/m?a=1", "/kagent-proxy-session=t", "/m?my-kagent-proxy-session=t", "/m?"]
        {
            assert_eq!(take(&PathAndQuery::from_static(path)), None, "{path}");
        }
    }
}
