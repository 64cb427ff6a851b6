//! When an answer is an agent card, and what it becomes.
//!
//! The one place where an answer is read before it is passed on: at most [`MAX_CARD`] bytes, decoded
//! where the backend compressed them. What turns out not to be a card passes as it came, from its first
//! byte. The rewriting itself is in `rewrite/card.rs`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, response};
use http_body_util::BodyExt;

use crate::config::Cards;
use crate::proxy::record::{Exchange, Outcome};
use crate::proxy::reply::ReplyBody;
use crate::proxy::reply::plan::Plan;
use crate::proxy::reply::relay::StreamError;
use crate::proxy::reply::timeouts::{Clock, Due};
use crate::proxy::request::facts::{ConnInfo, Facts, host_of};
use crate::proxy::send::attempt::Sent;
use crate::rewrite::card::{MAX_CARD, rewrite_card};
use crate::rewrite::decode::decode;
use crate::route::{Route, RouteTable};

/// A card that was asked for: where its URLs must lead.
#[derive(Debug)]
pub struct Asked {
    /// Scheme and authority that the client used, or `publicUrl`.
    origin: String,
}

/// The same, with those who judge what is the backend's.
#[derive(Debug)]
pub struct Card {
    origin: String,
    table: Arc<RouteTable>,
    route: Arc<Route>,
}

/// What was read of a body.
enum Read {
    Whole(Bytes),
    /// More than a card may have; the rest is still to come.
    TooLarge(Bytes),
    Broken(StreamError, Outcome),
}

// === impl Card ===

impl Card {
    /// Asks the backend for a whole, plain card, and says which origin the client used. `None` for
    /// requests of anything else, and where cards pass.
    pub fn prepare<B>(
        request: &mut Request<B>,
        facts: &Facts,
        conn: &ConnInfo,
        route: &Route,
        public_url: Option<&str>,
    ) -> Option<Asked> {
        if !facts.card || route.config.to.cards == Cards::Pass {
            return None;
        }
        let host = host_of(request);
        let host = host.as_ref().and_then(|host| host.to_str().ok());
        let origin = match (public_url, host) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(host)) => format!("{}://{host}", conn.scheme),
            (None, None) => return None,
        };
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for name in [
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_MATCH,
            header::IF_UNMODIFIED_SINCE,
            header::IF_RANGE,
            header::RANGE,
        ] {
            headers.remove(name);
        }
        Some(Asked { origin })
    }

    /// The card as the client gets it; `None` if the bytes are none.
    fn rewrite(&self, headers: &HeaderMap, body: &Bytes) -> Option<Vec<u8>> {
        let decoded = match headers.get(CONTENT_ENCODING) {
            None => None,
            Some(encodings) => Some(decode(encodings.to_str().ok()?, body, MAX_CARD)?),
        };
        let plain = decoded.as_deref().unwrap_or(body);
        let backend = |host: &str| self.table.is_backend(host, &self.route);
        let card = rewrite_card(plain, &self.origin, &backend)?;
        if card.signatures_removed {
            self.route.metrics.signatures_removed.increment(1);
        }
        Some(card.body)
    }

    /// Replaces the body and what described the old one.
    fn replace(&self, head: &mut response::Parts, body: Bytes) -> Bytes {
        let Some(card) = self.rewrite(&head.headers, &body) else {
            self.route.metrics.cards_passed.increment(1);
            return body;
        };
        self.route.metrics.cards_rewritten.increment(1);
        for name in [CONTENT_ENCODING, ETAG, LAST_MODIFIED, header::ACCEPT_RANGES] {
            head.headers.remove(name);
        }
        for digest in ["content-md5", "digest", "content-digest", "repr-digest"] {
            head.headers.remove(digest);
        }
        Bytes::from(card)
    }
}

// === impl Asked ===

impl Asked {
    /// Adds the judges.
    #[must_use]
    pub fn judged_by(self, table: Arc<RouteTable>, route: Arc<Route>) -> Card {
        Card { origin: self.origin, table, route }
    }
}

/// The answer with its card rewritten, or as it is where it is no card that can be read.
pub async fn answer(
    response: Response<Sent>,
    plan: Plan,
    card: Card,
    mut exchange: Exchange,
) -> Response<ReplyBody> {
    if response.status() != StatusCode::OK || plan.events.is_some() {
        return response.map(|sent| ReplyBody::stream(sent, plan, exchange));
    }
    let (mut head, mut sent) = response.into_parts();
    match read(&mut sent, &plan).await {
        Read::Whole(body) => {
            sent.lease.give_back();
            let body = card.replace(&mut head, body);
            head.headers.remove(TRANSFER_ENCODING);
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            exchange.ended(Outcome::Complete);
            Response::from_parts(head, ReplyBody::local(body, exchange))
        }
        Read::TooLarge(start) => {
            card.route.metrics.cards_passed.increment(1);
            Response::from_parts(head, ReplyBody::continued(start, sent, plan, exchange))
        }
        Read::Broken(error, outcome) => {
            exchange.ended(outcome);
            Response::from_parts(head, ReplyBody::broken(error, exchange))
        }
    }
}

async fn read(sent: &mut Sent, plan: &Plan) -> Read {
    let mut clock = Clock::start(plan.limits);
    let mut body = Vec::new();
    loop {
        let frame = match &mut clock {
            None => sent.incoming.frame().await,
            Some(clock) => tokio::select! {
                biased;
                frame = sent.incoming.frame() => {
                    clock.passed();
                    frame
                }
                due = std::future::poll_fn(|cx| clock.poll_due(cx, false)) => {
                    return match due {
                        Due::Total => Read::Broken(StreamError::Total, Outcome::TotalTimeout),
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
        if body.len() > MAX_CARD {
            return Read::TooLarge(Bytes::from(body));
        }
    }
}
