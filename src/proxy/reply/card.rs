//! When a response is an agent card, or has one for its result, and what it becomes.
//!
//! The one place where a response is read before it is passed on: at most [`MAX_CARD`] bytes, decoded
//! where the backend compressed them. What turns out not to be a card passes as it came, from its first
//! byte. Knows nothing of JSON.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;

use super::body::ReplyBody;
use super::plan::RelayPlan;
use super::relay::StreamError;
use super::timeouts::{BodyTimer, Expired};
use crate::body::Upload;
use crate::config::Cards;
use crate::headers::etag::{self, IfNoneMatch};
use crate::headers::names::Known;
use crate::headers::noted::Noted;
use crate::protocol::calls::CallScanner;
use crate::protocol::methods::Method;
use crate::proxy::limiter::Limiter;
use crate::proxy::record::Recorder;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::proxy::sight::begins_json;
use crate::proxy::way::Way;
use crate::rewrite::card::{MAX_CARD, is_well_known, rewrite_answer, rewrite_card};
use crate::rewrite::decode::decode;
use crate::telemetry::metrics::Counted;
use crate::telemetry::record::Outcome;
use crate::upstream::Leased;

/// One card that leads around the proxy, and one that leads less far than its agent says, get a line in the log in this
/// time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Bytes of a request that may ask for a card: it has no parameters but a tenant.
const MAX_ASKED: usize = 4096;

/// What a card's URLs become, and those who judge which are the backend's.
#[derive(Debug)]
pub struct Card {
    /// Scheme and authority that the client used, or `publicUrl`.
    origin: String,
    /// It is the result of a JSON-RPC response.
    is_result: bool,
    /// It may be something else, which stays as it is.
    is_unsure: bool,
    /// It has no type, and is read only if it begins as JSON does.
    is_untyped: bool,
    /// Only its headers were asked for.
    is_head: bool,
    /// The cards that the client has, as `If-None-Match` says it.
    known: Option<Box<IfNoneMatch>>,
    way: Way,
}

/// What was read of a body.
enum Read {
    Whole(Bytes),
    /// The start of what passes as it comes: something else, or a card, and why it is not read.
    Start(Bytes, Option<&'static str>),
    Broken(StreamError, Outcome),
}

// === impl Card ===

impl Card {
    /// For the response to the GET or HEAD of a card, or to a call that asks for one. `None` for everything else, and
    /// where cards pass.
    #[must_use]
    pub fn of(
        facts: &Facts,
        (is_result, noted): (bool, Noted),
        way: Way,
        conn: &Connection,
        public_url: Option<&str>,
    ) -> Option<Box<Self>> {
        let is_unsure = !is_result && !is_well_known(facts.path.path());
        let is_card = facts.is_card && (noted.is_json || !is_unsure);
        if !is_card && !is_result || way.route.config.to.cards == Cards::Pass {
            return None;
        }
        let origin = match (public_url, facts.host_text()) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(host)) => format!("{}://{host}", conn.scheme()),
            (None, None) => return None,
        };
        let known = facts.if_none_match.clone();
        let is_head = !is_result && !facts.is_get;
        let is_untyped = is_result && !noted.is_json && !noted.names.has(Known::ContentEncoding);
        Some(Box::new(Self { origin, is_result, is_unsure, is_untyped, is_head, known, way }))
    }

    /// The body as the client gets it, `None` where nothing has to change, or why it stays as it is.
    fn rewrite(&self, headers: &HeaderMap, body: &Bytes) -> Result<Option<Vec<u8>>, String> {
        let encodings: Vec<_> = headers.get_all(CONTENT_ENCODING).iter().map(as_text).collect();
        let encodings = encodings.join(",");
        let decoded = decode(&encodings, body, MAX_CARD)
            .ok_or_else(|| format!("its Content-Encoding cannot be read: {encodings:?}"))?;
        let backend = |host: &str| self.way.table.is_backend(host, &self.way.route);
        let card = match self.is_result {
            true => rewrite_answer(&decoded, &self.origin, &backend),
            false => rewrite_card(&decoded, &self.origin, &backend)
                .map(|card| Some(card).filter(|c| c.urls + c.left_out > 0 || !self.is_unsure)),
        };
        let card = card.map_err(|malformed| format!("it is no JSON object: {malformed}"))?;
        let Some(card) = card else { return Ok(None) };
        if card.signatures_removed {
            self.way.route.metrics.add(Counted::SignaturesRemoved, 1);
        }
        if card.left_out > 0 {
            self.left_out(card.left_out);
        }
        Ok(Some(card.body))
    }

    /// Counts interfaces that the client does not get, and says why now and then.
    fn left_out(&self, interfaces: usize) {
        self.way.route.metrics.add(Counted::InterfacesLeftOut, interfaces as u64);
        static LOGGED: Limiter = Limiter::new();
        let why = "they are at another port than the agent's others, where no URL leads through the proxy";
        self.tell(&LOGGED, "interfaces of gRPC were left out of an agent card", why);
    }

    /// Replaces the body and what described the old one; `None` if the client has that card already.
    fn replace(&self, headers: &mut HeaderMap, body: Bytes) -> Option<Bytes> {
        match self.rewrite(headers, &body) {
            Ok(None) => Some(body),
            Ok(Some(card)) => {
                self.way.route.metrics.add(Counted::CardsRewritten, 1);
                forget_body(headers);
                if self.is_result {
                    return Some(Bytes::from(card));
                }
                let tag = etag::of(&card);
                let known = self.known.as_ref().is_some_and(|known| known.names(&tag));
                if let Ok(tag) = HeaderValue::try_from(tag) {
                    headers.insert(ETAG, tag);
                }
                (!known).then(|| Bytes::from(card))
            }
            Err(why) => {
                self.passed(&why);
                Some(body)
            }
        }
    }

    /// Counts a card that passes as it is, and says why now and then.
    fn passed(&self, why: &str) {
        self.way.route.metrics.add(Counted::CardsPassed, 1);
        static LOGGED: Limiter = Limiter::new();
        let what =
            "an agent card is passed as it is; clients that follow its URL may go around the proxy";
        self.tell(&LOGGED, what, why);
    }

    /// Now and then, in the log.
    fn tell(&self, logged: &Limiter, what: &'static str, why: &str) {
        if logged.is_first(LOG_EVERY) {
            tracing::warn!(host = self.way.route.config.host, why, "{what}");
        }
    }

    /// Counts a response that may be a card, but is not read.
    fn not_read(&self, status: StatusCode) {
        match status {
            _ if self.is_head => {}
            StatusCode::OK => self.passed("it is an event stream"),
            StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::PARTIAL_CONTENT => {
                self.passed("its status is not 200");
            }
            // An error, a redirect, or nothing new: no card.
            _ => {}
        }
    }
}

fn as_text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// Removes what describes the backend's bytes, which the client does not get.
fn forget_body(headers: &mut HeaderMap) {
    for name in [CONTENT_ENCODING, ETAG, LAST_MODIFIED, header::ACCEPT_RANGES] {
        headers.remove(name);
    }
    for digest in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(digest);
    }
}

/// The response with its card rewritten, or as it is where it is no card that can be read.
pub async fn pass(
    response: Response<Leased>,
    plan: RelayPlan,
    card: Card,
    mut record: Box<Recorder>,
) -> Response<ReplyBody> {
    if response.status() != StatusCode::OK || plan.events.is_some() {
        card.not_read(response.status());
        return response.map(|leased| ReplyBody::relay(leased, plan, record));
    }
    let (mut head, mut leased) = response.into_parts();
    if card.is_head {
        // The length of a rewritten card is not known (RFC 9110 section 8.6).
        forget_body(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(head, ReplyBody::relay(leased, plan, record));
    }
    match read(&mut leased, &plan, card.is_untyped).await {
        Read::Whole(body) => {
            leased.recycle();
            record.on_response(&body);
            let body = card.replace(&mut head.headers, body);
            head.headers.remove(TRANSFER_ENCODING);
            record.ended(Outcome::Complete);
            let Some(body) = body else { return not_modified(head, record) };
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            Response::from_parts(head, ReplyBody::local(body, record))
        }
        Read::Start(start, why) => {
            if let Some(why) = why {
                card.passed(why);
            }
            record.on_response(&start);
            Response::from_parts(head, ReplyBody::continued(start, leased, plan, record))
        }
        Read::Broken(error, outcome) => {
            record.ended(outcome);
            Response::from_parts(head, ReplyBody::broken(error, record))
        }
    }
}

/// What a client gets instead of a card that it has: what the card's headers said that may have changed, and nothing
/// that describes its bytes (RFC 9110 section 15.4.5).
fn not_modified(mut head: response::Parts, mut record: Box<Recorder>) -> Response<ReplyBody> {
    head.status = StatusCode::NOT_MODIFIED;
    head.extensions.remove::<ReasonPhrase>();
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_LANGUAGE] {
        head.headers.remove(name);
    }
    record.instead(head.status);
    Response::from_parts(head, ReplyBody::Local(None, record))
}

/// Whether a request's call asks for an extended card (A2A 1.0 section 9.4, 0.3 section 7.10): by the call that was
/// read, or where calls are not read by what is remembered of a short body.
pub fn is_asked_for(upload: &Upload) -> bool {
    let Upload { progress, tap } = upload;
    if let Some(asks) = tap.first_call(|call| is_card_method(&call.method)) {
        return asks;
    }
    let length = usize::try_from(progress.bytes()).unwrap_or(usize::MAX);
    // Most bodies come in one piece, and name no card.
    if length > MAX_ASKED || tap.peek(|piece| piece.len() == length && !may_ask(piece)) {
        return false;
    }
    let mut asks = false;
    let body = tap.start().unwrap_or_default();
    CallScanner::default().feed(&body, &mut |call| asks |= is_card_method(&call.method));
    asks
}

fn is_card_method(method: &Method) -> bool {
    let names = ["GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"];
    matches!(method, Method::Known(name, _) if names.contains(name))
}

/// Made once: that costs more than the search does.
static EXTENDED: LazyLock<memchr::memmem::Finder<'static>> =
    LazyLock::new(|| memchr::memmem::Finder::new("Extended"));

/// Whether the text may have the name of such a method, in any way in which JSON may write it.
fn may_ask(text: &[u8]) -> bool {
    EXTENDED.find(text).is_some() || memchr::memchr(b'\\', text).is_some()
}

async fn read(leased: &mut Leased, plan: &RelayPlan, is_untyped: bool) -> Read {
    let mut timer = BodyTimer::start(plan.limits);
    let mut body = Vec::new();
    loop {
        let frame = match &mut timer {
            None => leased.frame().await,
            Some(timer) => tokio::select! {
                biased;
                frame = leased.frame() => {
                    timer.passed();
                    frame
                }
                due = std::future::poll_fn(|cx| timer.poll_expired(cx, false)) => {
                    return match due {
                        Expired::Total => Read::Broken(StreamError::Total, Outcome::TotalTimeout),
                        _ => Read::Broken(StreamError::Idle, Outcome::IdleTimeout),
                    };
                }
            },
        };
        match frame {
            None => return Read::Whole(Bytes::from(body)),
            Some(Err(error)) => {
                return Read::Broken(StreamError::Upstream(error), Outcome::UpstreamBroke);
            }
            Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
        }
        if is_untyped && begins_json(&body) == Some(false) {
            return Read::Start(Bytes::from(body), None);
        }
        if body.len() > MAX_CARD {
            return Read::Start(Bytes::from(body), Some("it is larger than 1 MiB"));
        }
    }
}
