//! The `endpoint` event of MCP's legacy HTTP+SSE transport (MCP 2024-11-05, "HTTP with SSE"): an
//! absolute URL of the backend becomes path and query, or the client posts around the proxy.
//!
//! Only the first event of a stream is looked at, and held until it is whole: a client acts on whole
//! events, so nothing is late. Knows bytes; `proxy/stream.rs` feeds it and sends what comes out.

use super::origin::path_absolute;

/// Bytes of a first event that are held; a longer one is no `endpoint` event.
const MAX_EVENT: usize = 16 * 1024;

/// What becomes of the bytes handed in.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    /// The first event is not whole yet; these bytes before it, comments, go out.
    Wait(Vec<u8>),
    /// These go out, and all that follow as they are.
    Release(Vec<u8>),
}

/// Holds a stream's first event.
#[derive(Debug, Default)]
pub struct EndpointEvent {
    held: Vec<u8>,
}

// === impl EndpointEvent ===

impl EndpointEvent {
    /// Takes the next bytes; `backend` judges a lower-case host name.
    pub fn feed(&mut self, bytes: &[u8], backend: &dyn Fn(&str) -> bool) -> Held {
        self.held.extend_from_slice(bytes);
        match first_event(&self.held) {
            Some(end) => {
                let rest = self.held.split_off(end);
                let event = self.release();
                let mut out = rewrite(&event, backend).unwrap_or(event);
                out.extend_from_slice(&rest);
                Held::Release(out)
            }
            None if self.held.len() > MAX_EVENT => Held::Release(self.release()),
            None => {
                let rest = self.held.split_off(comments(&self.held));
                Held::Wait(std::mem::replace(&mut self.held, rest))
            }
        }
    }

    /// What is held when the stream ends.
    pub fn release(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Where the last comment block in front of the first event ends: servers that send comments to keep a
/// stream alive must be heard.
fn comments(bytes: &[u8]) -> usize {
    let (mut at, mut whole) = (0, 0);
    while let Some((line, end)) = next_line(bytes, at) {
        match line.first() {
            None => whole = end,
            Some(b':') => {}
            Some(_) => return whole,
        }
        at = end;
    }
    whole
}

/// Where the first event ends, comments and blank lines before it included.
fn first_event(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut has_field) = (0, false);
    while let Some((line, end)) = next_line(bytes, at) {
        if line.is_empty() && has_field {
            return Some(end);
        }
        has_field |= !line.is_empty() && line.first() != Some(&b':');
        at = end;
    }
    // Lines that end with a lone CR: no LF is on its way behind the second one.
    (has_field && bytes.ends_with(b"\r\r")).then_some(bytes.len())
}

/// The line that begins at `at`, without its end, and where the next one begins. A CR as the last
/// byte is no end yet: its LF may be on its way.
fn next_line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let length = memchr::memchr2(b'\n', b'\r', rest)?;
    let line = rest.get(..length)?;
    let end = match (rest.get(length), rest.get(length + 1)) {
        (Some(b'\r'), Some(b'\n')) => length + 2,
        (Some(b'\r'), None) => return None,
        _ => length + 1,
    };
    Some((line, at + end))
}

/// The event with its URL changed; `None` if there is nothing to change.
fn rewrite(event: &[u8], backend: &dyn Fn(&str) -> bool) -> Option<Vec<u8>> {
    let (mut at, mut is_endpoint, mut data) = (0, false, None);
    while let Some((line, end)) = next_line(event, at) {
        if let Some(value) = field(line, b"event") {
            is_endpoint = value == b"endpoint";
        }
        if let Some(value) = field(line, b"data") {
            // Several lines are no URL.
            if data.is_some() {
                return None;
            }
            let value_at = at + line.len() - value.len();
            data = Some((value_at, at + line.len()));
        }
        at = end;
    }
    let (start, end) = data.filter(|_| is_endpoint)?;
    let path = path_absolute(event.get(start..end)?, backend)?;
    Some([event.get(..start)?, &path, event.get(end..)?].concat())
}

/// The value of a field of this name, without the one space that may precede it.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(host: &str) -> bool {
        host == "tools.kagent"
    }

    fn through(pieces: &[&str]) -> String {
        let (mut event, mut out, mut open) = (EndpointEvent::default(), Vec::new(), true);
        for piece in pieces {
            if !open {
                out.extend_from_slice(piece.as_bytes());
            } else {
                match event.feed(piece.as_bytes(), &backend) {
                    Held::Wait(bytes) => out.extend(bytes),
                    Held::Release(bytes) => {
                        out.extend(bytes);
                        open = false;
                    }
                }
            }
        }
        out.extend(event.release());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_url_becomes_path_and_query_at_every_split() {
        for (stream, expected) in [
            (
                "event: endpoint\ndata: http://tools.kagent:8084/messages/?session_id=ab%2F\n\ndata: 1\n\n",
                "event: endpoint\ndata: /messages/?session_id=ab%2F\n\ndata: 1\n\n",
            ),
            (
                ": hi\r\n\r\ndata:http://tools.kagent/m\r\nevent:endpoint\r\n\r\n",
                ": hi\r\n\r\ndata:/m\r\nevent:endpoint\r\n\r\n",
            ),
        ] {
            for at in 0..=stream.len() {
                for to in at..=stream.len() {
                    let pieces = [&stream[..at], &stream[at..to], &stream[to..]];
                    assert_eq!(through(&pieces), expected, "split at {at}, {to}");
                }
            }
        }
    }

    #[test]
    fn comments_in_front_of_it_are_not_held() {
        let mut event = EndpointEvent::default();
        let feed = |event: &mut EndpointEvent, bytes: &[u8]| event.feed(bytes, &backend);
        assert_eq!(feed(&mut event, b": ping\n\n"), Held::Wait(b": ping\n\n".to_vec()));
        assert_eq!(feed(&mut event, b": pi"), Held::Wait(Vec::new()));
        assert_eq!(feed(&mut event, b"ng\n\nevent: endp"), Held::Wait(b": ping\n\n".to_vec()));
        let released = feed(&mut event, b"oint\ndata: http://tools.kagent/m\n\n");
        assert_eq!(released, Held::Release(b"event: endpoint\ndata: /m\n\n".to_vec()));
    }

    #[test]
    fn an_event_of_lone_crs_is_not_held_until_the_next_one() {
        let mut event = EndpointEvent::default();
        let bytes = b"event: endpoint\rdata: /m\r\r";
        assert_eq!(event.feed(bytes, &backend), Held::Release(bytes.to_vec()));
    }

    #[test]
    fn everything_else_passes_byte_for_byte() {
        let long = format!("data: {}", "x".repeat(MAX_EVENT + 1));
        for stream in [
            "event: endpoint\ndata: /messages/?session_id=1\n\n",
            "event: endpoint\ndata: http://other.ns/m\n\n",
            "event: message\ndata: http://tools.kagent/m\n\nevent: endpoint\ndata: http://tools.kagent/m\n\n",
            "event: endpoint\ndata: http://tools.kagent/m\ndata: x\n\n",
            "event: endpoint\ndata: http://tools.kag",
            "event: endpoint\rdata: /m\r\r",
            ": only a comment\n\n",
            "",
            long.as_str(),
        ] {
            for at in 0..=stream.len().min(200) {
                assert_eq!(through(&[&stream[..at], &stream[at..]]), stream, "split at {at}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_lost_or_made_up(stream in "[evntdaol:/ \r\n]{0,60}", at in 0usize..60) {
            let at = at.min(stream.len());
            proptest::prop_assert_eq!(through(&[&stream[..at], &stream[at..]]), stream);
        }
    }
}
