//! Where a backend's response ends: one framing, or none that two readers agree on (RFC 9112 section 6.3).
//!
//! Knows one head: the response's fields and what was asked for; no socket and no body. Over HTTP/1.1 no other has
//! judged these fields before: our own reader of heads leaves them as they came, and asks here where the body ends. Over
//! HTTP/2 the frames say that, and hyper has refused a length that they do not keep.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use crate::headers::names::{Known, Names};

/// Where a response ends, as its head says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The connection may carry another request: not where another reader could expect a body behind this
    /// head.
    pub reusable: bool,
    /// Its length, if it has one; with a coding, or where there is no body, it says nothing.
    pub length: Option<u64>,
}

/// Leaves one framing in the head of a response to a HEAD request (`head`) or to any other, in which these
/// `names` stand. `Transfer-Encoding` stays; it concerns one connection and is removed with its like.
///
/// # Errors
/// What two readers could read in two ways, as a clause. The connection must not be used again.
pub fn settle(
    head: bool,
    version: Version,
    status: StatusCode,
    names: Names,
    headers: &mut HeaderMap,
) -> Result<Settled, &'static str> {
    let coded = names.has(Known::TransferEncoding);
    let told = |headers: &mut HeaderMap| match names.has(Known::ContentLength) {
        true => length(headers),
        false => Ok(None),
    };
    let settled = |reusable, length| Ok(Settled { reusable, length });
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // No body and no length (RFC 9110 section 8.6); many servers send a length of 0 all the same.
        let empty = !coded && told(headers).is_ok_and(|length| length.unwrap_or(0) == 0);
        headers.remove(CONTENT_LENGTH);
        return settled(empty, None);
    }
    let bodyless = head || status == StatusCode::NOT_MODIFIED;
    if !coded {
        return settled(true, told(headers)?);
    }
    if bodyless {
        // What a GET would have brought; of the two the length is the one that may not stand there.
        headers.remove(CONTENT_LENGTH);
        return settled(version != Version::HTTP_10, None);
    }
    if version == Version::HTTP_10 {
        return Err("it has Transfer-Encoding in HTTP/1.0");
    }
    if names.has(Known::ContentLength) {
        return Err("it has both Content-Length and Transfer-Encoding");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(only), None) if is_chunked(only) => settled(true, None),
        // Passed on, the body would lose the name of its coding.
        _ => Err("its Transfer-Encoding is not just \"chunked\""),
    }
}

/// The length, if there is one. A list of equal lengths, in one field or several, becomes one (RFC 9110
/// section 8.6).
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let plain = first.as_bytes().first() != Some(&b'0') || first.len() == 1;
    if plain
        && fields.next().is_none()
        && let Some(length) = digits(first.as_bytes())
    {
        return Ok(Some(length));
    }
    let mut found = None;
    for part in headers.get_all(CONTENT_LENGTH).iter().flat_map(|f| f.as_bytes().split(is_comma)) {
        let Some(length) = digits(part.trim_ascii()) else {
            return Err("its Content-Length is no number");
        };
        if found.replace(length).is_some_and(|before| before != length) {
            return Err("it has several Content-Length values that differ");
        }
    }
    if let Some(length) = found {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(found)
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

/// Digits and nothing else: no sign, no space.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const LENGTH: &str = "content-length";
    const CODING: &str = "transfer-encoding";
    type Fields = &'static [(&'static str, &'static str)];

    /// Whether the connection may be used again, and the length that is left.
    fn settled(
        (head, version, status): (bool, Version, u16),
        fields: Fields,
    ) -> Result<(bool, Vec<String>), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (status, names) = (StatusCode::from_u16(status).unwrap(), Names::of(&map));
        let Settled { reusable, length } = settle(head, version, status, names, &mut map)?;
        if let Some(length) = length {
            assert_eq!(map[CONTENT_LENGTH], length.to_string());
        }
        let left = map.get_all(CONTENT_LENGTH).iter().map(|v| v.to_str().unwrap().to_owned());
        Ok((reusable, left.collect()))
    }

    #[test]
    fn a_body_has_one_framing_or_is_refused() {
        let one: Fields = &[(LENGTH, "3"), (LENGTH, "3")];
        for (fields, left) in [
            (&[][..], None),
            (&[(LENGTH, "3")][..], Some("3")),
            (&[(LENGTH, "0")], Some("0")),
            (&[(LENGTH, "18446744073709551615")], Some("18446744073709551615")),
            (&[(LENGTH, "3, 3")], Some("3")),
            (&[(LENGTH, "007")], Some("7")),
            (&[(LENGTH, "2,2 ,\t02")], Some("2")),
            (one, Some("3")),
            (&[(CODING, "chunked")], None),
            (&[(CODING, "Chunked")], None),
        ] {
            let left: Vec<String> = left.map(str::to_owned).into_iter().collect();
            for status in [200, 206, 404, 205] {
                let got = settled((false, Version::HTTP_11, status), fields);
                assert_eq!(got, Ok((true, left.clone())), "{status} {fields:?}");
            }
        }
        for (fields, part) in [
            (&[(LENGTH, "3"), (LENGTH, "4")][..], "differ"),
            (&[(LENGTH, "3, 4")], "differ"),
            (&[(LENGTH, "+3")], "no number"),
            (&[(LENGTH, "-3")], "no number"),
            (&[(LENGTH, "3 3")], "no number"),
            (&[(LENGTH, "3,")], "no number"),
            (&[(LENGTH, ", 3")], "no number"),
            (&[(LENGTH, "")], "no number"),
            (&[(LENGTH, "0x3")], "no number"),
            (&[(LENGTH, "18446744073709551616")], "no number"),
            (&[(LENGTH, "3"), (CODING, "chunked")], "both"),
            (&[(CODING, "chunked"), (LENGTH, "0")], "both"),
            (&[(CODING, "gzip, chunked")], "not just"),
            (&[(CODING, "chunked, gzip")], "not just"),
            (&[(CODING, "identity")], "not just"),
            (&[(CODING, "chunked, chunked")], "not just"),
            (&[(CODING, "chunked"), (CODING, "chunked")], "not just"),
            (&[(CODING, "chunked;q=1")], "not just"),
            (&[(CODING, "")], "not just"),
        ] {
            let said = settled((false, Version::HTTP_11, 200), fields).unwrap_err();
            assert!(said.contains(part), "{fields:?}: {said}");
        }
        let said = settled((false, Version::HTTP_10, 200), &[(CODING, "chunked")]).unwrap_err();
        assert!(said.contains("HTTP/1.0"), "{said}");
        let old = settled((false, Version::HTTP_10, 200), &[(LENGTH, "3")]);
        assert_eq!(old, Ok((true, vec!["3".to_owned()])));
    }

    #[test]
    fn what_has_no_body_and_no_length_loses_it_and_the_connection_where_a_body_was_told() {
        for status in [101, 204] {
            for (fields, reusable) in [
                (&[][..], true),
                (&[(LENGTH, "0")][..], true),
                (&[(LENGTH, "5")], false),
                (&[(LENGTH, "x")], false),
                (&[(CODING, "chunked")], false),
                (&[(CODING, "chunked"), (LENGTH, "0")], false),
            ] {
                let got = settled((false, Version::HTTP_11, status), fields);
                assert_eq!(got, Ok((reusable, Vec::new())), "{status} {fields:?}");
            }
        }
    }

    #[test]
    fn what_has_no_body_may_tell_the_length_of_another() {
        for (head, status) in [(true, 200), (true, 404), (false, 304), (true, 304)] {
            let told = |fields| settled((head, Version::HTTP_11, status), fields);
            assert_eq!(told(&[(LENGTH, "5")]), Ok((true, vec!["5".to_owned()])));
            assert_eq!(told(&[(LENGTH, "5, 5")]), Ok((true, vec!["5".to_owned()])));
            assert_eq!(told(&[(CODING, "gzip, chunked")]), Ok((true, Vec::new())));
            assert_eq!(told(&[(CODING, "chunked"), (LENGTH, "5")]), Ok((true, Vec::new())));
            assert!(told(&[(LENGTH, "5, 6")]).is_err());
            let old = settled((head, Version::HTTP_10, status), &[(CODING, "chunked")]);
            assert_eq!(old, Ok((false, Vec::new())), "{head} {status}");
        }
    }
}
