//! The connection beside hyper's client, which is its oracle: the same bytes bring the same head, body, trailers, end
//! and next use of the connection, wherever they are split and whether their sender closes behind them. Where we are
//! stricter, [`stricter`] says why.

use std::sync::atomic::{AtomicU32, Ordering};

use hyper::ext::ReasonPhrase;
use tokio::time::timeout;

use super::*;
use crate::upstream::h1::Fault;

/// Of a clock that goes on only when nobody has anything left to do: what is not here by then never comes.
const NEVER: Duration = Duration::from_secs(3600);

type Fields = Vec<(String, Vec<u8>)>;

/// What one side made of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing of it is passed on.
    Refused,
    /// More of its head is waited for.
    Waits,
    Passed(Box<Seen>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    version: Version,
    status: u16,
    /// If it is not the usual one.
    reason: Option<Vec<u8>>,
    interim: u32,
    fields: Fields,
    lengths: Vec<Vec<u8>>,
    pub(super) body: Vec<u8>,
    pub(super) end: End,
    /// Whether another request may follow.
    pub(super) reusable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole(Option<Fields>),
    /// The connection has ended before it.
    CutOff,
    /// What came is no body.
    Broken,
    /// More is waited for.
    Waits,
}

/// Everything that comes of a response; `is_cut` tells an error that is the connection's end.
async fn pass<B: Body<Data = Bytes> + Unpin>(
    response: Response<B>,
    is_cut: impl Fn(&B::Error) -> bool,
) -> Seen {
    let (head, mut body) = response.into_parts();
    let (mut data, mut trailers) = (Vec::new(), None);
    let end = loop {
        match timeout(NEVER, body.frame()).await {
            Err(_) => break End::Waits,
            Ok(None) => break End::Whole(trailers),
            Ok(Some(Err(error))) => break if is_cut(&error) { End::CutOff } else { End::Broken },
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok().map(|map| listed(&map)),
            },
        }
    };
    let (lengths, fields): (Fields, Fields) =
        listed(&head.headers).into_iter().partition(|(name, _)| name == "content-length");
    Seen {
        version: head.version,
        status: head.status.as_u16(),
        reason: head.extensions.get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec()),
        interim: 0,
        fields,
        lengths: lengths.into_iter().map(|(_, length)| length).collect(),
        body: data,
        end,
        reusable: false,
    }
}

/// A response in pieces.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) to_head: bool,
    /// Whether its sender closes behind it.
    pub(super) closes: bool,
}

impl Case<'_> {
    fn request(&self) -> Request<()> {
        get(if self.to_head { &Method::HEAD } else { &Method::GET })
    }

    fn pieces(&self, at: &[usize]) -> Vec<Vec<u8>> {
        let mut rest = self.bytes;
        let mut pieces = Vec::new();
        for at in at.iter().rev() {
            let (before, behind) = rest.split_at(*at);
            pieces.push(behind.to_vec());
            rest = before;
        }
        pieces.push(rest.to_vec());
        pieces.reverse();
        pieces
    }

    fn send(
        &self,
        io: DuplexStream,
        at: &[usize],
    ) -> tokio::task::JoinHandle<Option<DuplexStream>> {
        let (sent, closes) = (backend(io, self.pieces(at)), self.closes);
        tokio::spawn(async move {
            let io = sent.await;
            (!closes).then_some(io)
        })
    }

    async fn by_hyper(&self, at: &[usize]) -> Outcome {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let backend = self.send(theirs, at);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_header_size(LIMITS.bytes())
            .max_headers(LIMITS.fields())
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(ours))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let mut request = self.request().map(|()| Empty::<Bytes>::new());
        let interim = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&interim);
        hyper::ext::on_informational(&mut request, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let outcome = match timeout(NEVER, sender.send_request(request)).await {
            Err(_) => Outcome::Waits,
            Ok(Err(_)) => Outcome::Refused,
            Ok(Ok(response)) => {
                let mut seen = pass(response, was_cut_off).await;
                let _stays = timeout(NEVER, backend).await;
                quiet().await;
                seen.reusable = matches!(timeout(NEVER, sender.ready()).await, Ok(Ok(())));
                seen.interim = interim.load(Ordering::Relaxed);
                Outcome::Passed(Box::new(seen))
            }
        };
        connection.abort();
        outcome
    }

    pub(super) async fn by_us(&self, at: &[usize]) -> Outcome {
        self.through(1 << 16, at).await
    }

    /// The same through a pipe that holds `room` bytes.
    pub(super) async fn through(&self, room: usize, at: &[usize]) -> Outcome {
        let (ours, theirs) = tokio::io::duplex(room);
        let backend = self.send(theirs, at);
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        let request = self.request().map(|()| RequestBody::empty(Arc::new(Upload::default())));
        let origin = origin();
        let onward = onward(&origin, Keep::No);
        match timeout(NEVER, connection.send(Box::new(request), &onward)).await {
            Err(_) => Outcome::Waits,
            Ok(Err(_)) => Outcome::Refused,
            Ok(Ok(response)) => {
                let rest = response.map(|_| Rest(&mut connection));
                let mut seen = pass(rest, |fault| matches!(fault, Fault::Truncated)).await;
                let _stays = timeout(NEVER, backend).await;
                quiet().await;
                seen.reusable = connection.is_reusable() && connection.is_open();
                seen.interim = connection.interim();
                Outcome::Passed(Box::new(seen))
            }
        }
    }

    /// Compares what both make of it; `single` is that each read has brought one byte,
    /// so that none held a fault and what stands before it.
    fn agree(&self, ours: &Outcome, theirs: &Outcome, single: bool) -> Result<(), &'static str> {
        let mut theirs = theirs.clone();
        let known = if let Outcome::Passed(seen) = &mut theirs {
            let why = stricter(self, Some(seen));
            leave_one_length(seen, self.to_head);
            why
        } else {
            stricter(self, None)
        };
        if let (Some(Stricter::Refuses(why)), Outcome::Passed(_)) = (known, ours) {
            return Err(why);
        }
        let (known, mut ours) = (known.is_some(), ours.clone());
        if let (Outcome::Passed(ours), Outcome::Passed(theirs)) = (&mut ours, &mut theirs)
            && theirs.lengths.is_empty()
        {
            // Taken out, a field leaves its place to the last one; only the order of those of one name says anything.
            for seen in [ours, theirs] {
                seen.fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            }
        }
        match (&ours, &theirs) {
            (ours, theirs) if ours == theirs => Ok(()),
            (Outcome::Refused, Outcome::Waits | Outcome::Passed(_)) if known => Ok(()),
            // A fault that came with the head is told before the head has gone on: 502 instead of an abort.
            (Outcome::Refused, Outcome::Passed(seen)) if !single && seen.end == End::Broken => {
                Ok(())
            }
            (Outcome::Passed(ours), Outcome::Passed(theirs)) => {
                let mut less = ours.clone();
                if ours.end == End::Broken && (known || (!single && theirs.end == End::Broken)) {
                    // What came in the same read as a fault is not passed on: where it ends is not sure.
                    if !theirs.body.starts_with(&ours.body) {
                        return Err("other data");
                    }
                    less.body.clone_from(&theirs.body);
                    less.end = theirs.end.clone();
                    less.reusable = theirs.reusable;
                }
                less.reusable |= theirs.reusable && may_tell_of_a_body(theirs, self.to_head);
                if less == *theirs { Ok(()) } else { Err("they differ") }
            }
            _ => Err("one of them refuses"),
        }
    }

    /// Compares at these splits.
    async fn same(&self, at: &[usize], theirs: &Outcome) -> Outcome {
        use Outcome::{Refused, Waits};

        let ours = self.by_us(at).await;
        if !at.is_empty() && matches!((&ours, theirs), (Refused, Waits) | (Waits, Refused)) {
            // Both look for the end of a head that comes in pieces before they parse it, and not in the same way.
            return ours;
        }
        let single = at.len() + 1 >= self.bytes.len();
        if let Err(why) = self.agree(&ours, theirs, single) {
            let Case { bytes, to_head, closes } = self;
            let text = String::from_utf8_lossy(bytes);
            panic!(
                "{why}: {text:?} split at {at:?}, HEAD {to_head}, closes {closes}\n\
                 ours {ours:?}\nhyper's {theirs:?}"
            );
        }
        ours
    }

    /// At each `step`th split in two, and byte by byte; hyper reads each split too where there are few. Returns what
    /// became of it as a whole.
    pub(super) async fn everywhere(&self, step: usize) -> Outcome {
        let mut theirs = self.by_hyper(&[]).await;
        let whole = self.same(&[], &theirs).await;
        for at in (1..self.bytes.len()).step_by(step) {
            if step > 1 {
                theirs = self.by_hyper(&[at]).await;
            }
            self.same(&[at], &theirs).await;
        }
        let every: Vec<usize> = (1..self.bytes.len()).collect();
        self.same(&every, &self.by_hyper(&every).await).await;
        whole
    }
}

fn was_cut_off(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// Where we are stricter than hyper, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stricter {
    /// A whole head with this is refused.
    Refuses(&'static str),
    /// A body with this may break off.
    Breaks(&'static str),
}

/// Each is something that another reader reads otherwise.
fn stricter(case: &Case<'_>, theirs: Option<&Seen>) -> Option<Stricter> {
    use Stricter::{Breaks, Refuses};

    let rest = match heads(case.bytes) {
        Ok(rest) => rest,
        Err(why) => return Some(Refuses(why)),
    };
    let seen = theirs?;
    let bodyless = case.to_head || seen.status == 204 || seen.status == 304;
    let codings: Vec<&[u8]> = seen
        .fields
        .iter()
        .filter(|(name, _)| name == "transfer-encoding")
        .map(|(_, value)| value.as_slice())
        .collect();
    if codings.is_empty() {
        // RFC 9110 section 8.6: who reads the length would not agree on it.
        let told = seen.status != 204 && lengths(&seen.lengths).is_err();
        return told.then_some(Refuses("a length where there is no body, which is none"));
    }
    if bodyless {
        return None;
    }
    // RFC 9112 section 6.1: the coding would be lost, as it concerns this connection only.
    if !matches!(codings.as_slice(), [only] if only.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Some(Refuses("a coding besides chunked"));
    }
    // RFC 9112 section 6.3: "ought to be handled as an error".
    if !seen.lengths.is_empty() {
        return Some(Refuses("both framings"));
    }
    let text = String::from_utf8_lossy(rest).into_owned();
    if text.contains('"') {
        // RFC 9112 section 7.1.1: a reader that knows quotes does not see the end of the line.
        return Some(Breaks("a quote in an extension that may not end"));
    }
    if text.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() > 16) {
        return Some(Breaks("a chunk's size that readers of 64 bits may cut"));
    }
    // RFC 9112 section 2.2: who takes it for a line's end finds the end of the body elsewhere.
    let bare = rest.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    bare.then_some(Breaks("a bare LF among chunks"))
}

/// What stands behind the heads of the interim responses and the one that counts.
fn heads(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (mut rest, mut begins, mut interim) = (bytes, true, false);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        if begins && !line.starts_with(b"H") {
            // RFC 9112 section 2.2 lets only a server skip what stands before a message.
            return Err("something stands before the status line");
        }
        if begins {
            interim = line.get(9) == Some(&b'1') && line.get(9..12) != Some(b"101");
        }
        if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
            // RFC 9110 section 5.5: another reader makes a space of it, and has fewer fields.
            return Err("a line of the head ends in a bare LF");
        }
        begins = line == b"\r\n";
        rest = behind;
        if begins && !interim {
            break;
        }
    }
    Ok(rest)
}

/// The one length that all say.
fn lengths(told: &[Vec<u8>]) -> Result<Option<u64>, ()> {
    let mut found = None;
    for part in told.iter().flat_map(|told| told.split(|byte| *byte == b',')) {
        let part = std::str::from_utf8(part.trim_ascii()).map_err(|_| ())?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        let length: u64 = part.parse().map_err(|_| ())?;
        if found.replace(length).is_some_and(|before| before != length) {
            return Err(());
        }
    }
    Ok(found)
}

/// What we pass on of the lengths of a response: one, and none where there may be none (RFC 9110 section 8.6).
fn leave_one_length(seen: &mut Seen, to_head: bool) {
    let coded = seen.fields.iter().any(|(name, _)| name == "transfer-encoding");
    if seen.status == 204 || (coded && (to_head || seen.status == 304)) {
        seen.lengths.clear();
    } else if let Ok(Some(length)) = lengths(&seen.lengths) {
        seen.lengths = vec![length.to_string().into_bytes()];
    }
}

/// Whether its head ends it and yet tells of a body that another reader may expect; hyper uses the connection again.
fn may_tell_of_a_body(seen: &Seen, to_head: bool) -> bool {
    let coded = seen.fields.iter().any(|(name, _)| name == "transfer-encoding");
    match seen.status {
        // RFC 9112 section 6.1: no server may send it. The length has been left out of what is compared.
        204 => true,
        // RFC 9112 section 6.1: its framing is faulty.
        304 => coded && seen.version == Version::HTTP_10,
        _ => coded && to_head && seen.version == Version::HTTP_10,
    }
}
