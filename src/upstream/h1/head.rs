//! The head of a response from its bytes (RFC 9112 sections 4 to 6), and the framing of what follows it.
//!
//! Sans-I/O, on `httparse`. Knows what was asked for only as far as framing needs it; no socket, no body.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::Fault;
use super::body::Decoder;
use crate::headers::names::{Known, Names};
use crate::headers::noted::Noted;
use crate::upstream::faults::{BadResponse, HeadLimits};
use crate::upstream::framing;

/// Fields that are read without room from the heap.
const COMMON_FIELDS: usize = 128;
/// Bytes behind a head that are copied with it: the whole of a small body.
const SMALL_BODY: usize = 2048;

/// A head that was read.
#[derive(Debug)]
pub struct Head {
    /// Status, version, fields and a reason phrase that is not the usual one; and what was seen of the fields.
    pub response: Response<Noted>,
    /// The body behind it.
    pub body: Decoder,
    /// Whether the connection may carry another request behind the body.
    pub reusable: bool,
    /// Bytes it took of the input.
    pub length: usize,
    /// What stands behind it, if that is little.
    pub behind: Option<Bytes>,
}

/// Reads a head at the start of `input`; `map` becomes its fields. `None` is that it is not whole yet. Of an interim
/// response, which nobody gets, the fields are not read, and `map` stays as it is.
///
/// # Errors
/// It is no HTTP, beyond the limits, or ambiguous.
pub fn read(
    input: &[u8],
    limits: HeadLimits,
    to_head: bool,
    map: &mut HeaderMap,
) -> Result<Option<Head>, Fault> {
    if limits.fields() <= COMMON_FIELDS {
        let mut fields = [const { MaybeUninit::uninit() }; COMMON_FIELDS];
        let fields = fields.get_mut(..limits.fields()).unwrap_or_default();
        read_into(input, fields, limits, to_head, map)
    } else {
        let mut fields = vec![MaybeUninit::uninit(); limits.fields()];
        read_into(input, &mut fields, limits, to_head, map)
    }
}

fn read_into<'b>(
    input: &'b [u8],
    fields: &mut [MaybeUninit<Header<'b>>],
    limits: HeadLimits,
    to_head: bool,
    map: &mut HeaderMap,
) -> Result<Option<Head>, Fault> {
    // The parser skips empty lines, which only a server may (RFC 9112 section 2.2): before a response they are what
    // was left of the one before.
    if input.first().is_some_and(|byte| *byte != b'H') {
        return Err(Fault::Head(httparse::Error::Version));
    }
    let mut config = ParserConfig::default();
    // RFC 9112 section 5.1: a proxy removes them.
    config.allow_spaces_after_header_name_in_responses(true);
    let mut parsed = httparse::Response::new(&mut []);
    let too_large = Fault::Bad(BadResponse::TooLarge(limits));
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, fields) {
        Ok(Status::Complete(length)) if length > limits.bytes() => return Err(too_large),
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if input.len() > limits.bytes() => return Err(too_large),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large),
        Err(error) => return Err(Fault::Head(error)),
    };
    if has_bare_lf(input.get(..length).unwrap_or_default(), parsed.headers.len()) {
        return Err(Fault::Head(httparse::Error::NewLine));
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Fault::Head(httparse::Error::Status))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if is_interim(status) {
        let mut response = Response::new(Noted::default());
        *response.status_mut() = status;
        let (body, reusable) = (Decoder::Ended, true);
        return Ok(Some(Head { response, body, reusable, length, behind: None }));
    }
    // One piece, of which the values are slices, and a small body too.
    let small = input.len() - length <= SMALL_BODY;
    let end = if small { input.len() } else { length };
    let whole = Bytes::copy_from_slice(input.get(..end).unwrap_or_default());
    let noted = fill(map, parsed.headers, &whole, input)?;
    let mut response = Response::new(noted);
    *response.status_mut() = status;
    *response.version_mut() = version;
    if let Some(reason) = parsed.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let (body, reusable) = framed(to_head, version, status, noted.names, map)?;
    *response.headers_mut() = std::mem::take(map);
    let behind = (small && end > length).then(|| whole.slice(length..));
    Ok(Some(Head { response, body, reusable, length, behind }))
}

/// Whether a line of this head, which was read, ends in LF alone. A recipient may take that for the end of a line (RFC
/// 9112 section 2.2) and may take it for a space in a value (RFC 9110 section 5.5), which hides the fields behind it.
/// The parser has taken each CR for a part of a line's end, so there are as many as lines: status, fields, nothing.
fn has_bare_lf(head: &[u8], fields: usize) -> bool {
    memchr::memchr_iter(b'\r', head).count() != fields + 2
}

/// Whether another response follows this one (RFC 9110 section 15.2): 101 is the last one that is HTTP.
#[must_use]
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The fields of a trailer section, which ends in a line end.
///
/// # Errors
/// It is no list of fields.
pub fn fields(mut section: Vec<u8>) -> Result<HeaderMap, Fault> {
    section.extend_from_slice(b"\r\n");
    let mut map = HeaderMap::new();
    let mut fields = [EMPTY_HEADER; COMMON_FIELDS];
    match httparse::parse_headers(&section, &mut fields) {
        Ok(Status::Complete((length, fields))) if length == section.len() => {
            fill(&mut map, fields, &Bytes::copy_from_slice(&section), &section)?;
            Ok(map)
        }
        Ok(_) => Err(Fault::Chunk("the trailers are no fields")),
        Err(error) => Err(Fault::Head(error)),
    }
}

/// `whole` is a copy of what `fields` point into, from its start on. Returns what was seen of them.
fn fill(
    map: &mut HeaderMap,
    fields: &[Header<'_>],
    whole: &Bytes,
    input: &[u8],
) -> Result<Noted, Fault> {
    let mut noted = Noted::default();
    map.clear();
    map.reserve(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Fault::Head(httparse::Error::HeaderName))?;
        let start = (field.value.as_ptr() as usize).saturating_sub(input.as_ptr() as usize);
        let end = start + field.value.len();
        let value = if field.value.is_empty() {
            Ok(HeaderValue::from_static(""))
        } else if end <= whole.len() {
            HeaderValue::from_maybe_shared(whole.slice(start..end))
        } else {
            HeaderValue::from_bytes(field.value)
        };
        let value = value.map_err(|_| Fault::Head(httparse::Error::HeaderValue))?;
        noted.see(&name, &value);
        map.append(name, value);
    }
    Ok(noted)
}

/// The body behind a head, and whether the connection outlives it (RFC 9112 sections 6.3 and 9.3).
fn framed(
    to_head: bool,
    version: Version,
    status: StatusCode,
    names: Names,
    map: &mut HeaderMap,
) -> Result<(Decoder, bool), Fault> {
    let settled = framing::settle(to_head, version, status, names, map);
    let settled = settled.map_err(|why| Fault::Bad(BadResponse::Ambiguous(why)))?;
    let reusable = settled.reusable && is_kept(version, names, map);
    let bodyless = to_head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodyless {
        return Ok((Decoder::Ended, reusable));
    }
    if names.has(Known::TransferEncoding) {
        return Ok((Decoder::chunked(), reusable));
    }
    Ok(match settled.length {
        Some(length) => (Decoder::length(length), reusable),
        None => (Decoder::UntilClose, false),
    })
}

/// Whether the backend keeps the connection open: `close` counts before all else (RFC 9112 section 9.3).
fn is_kept(version: Version, names: Names, map: &HeaderMap) -> bool {
    let kept = version != Version::HTTP_10;
    if !names.has(Known::Connection) {
        return kept;
    }
    let options = map.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(is_comma));
    let (mut closes, mut keeps) = (false, kept);
    for option in options.map(<[u8]>::trim_ascii) {
        closes |= option.eq_ignore_ascii_case(b"close");
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keeps && !closes
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}
