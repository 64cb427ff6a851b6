//! When an answer is an agent card, and what it becomes.
//!
//! The one place where an answer is read before it is passed on: at most
//! [`MAX_CARD`] bytes, announced by Content-Length. Everything else
//! passes untouched.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;

use super::exchange::{Exchange, Outcome};
use super::facts::{ConnInfo, host_of};
use super::forward::Sent;
use super::reply::ReplyBody;
use crate::config::Cards;
use crate::rewrite::card::{MAX_CARD, rewrite_card};
use crate::route::{HostKey, Route, RouteTable};

/// Asks the backend for a whole, plain card, and says which origin the client used. `None` where
/// cards pass.
pub fn prepare<B>(
    request: &mut Request<B>,
    conn: &ConnInfo,
    route: &Route,
    public_url: Option<&str>,
) -> Option<String> {
    if route.config.to.cards == Cards::Pass {
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
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE] {
        headers.remove(name);
    }
    Some(origin)
}

/// The answer with its card rewritten, or as it is where it is no card that can be read.
pub async fn answer(
    response: Response<Sent>,
    origin: &str,
    route: &Route,
    table: &RouteTable,
    mut exchange: Exchange,
) -> Response<ReplyBody> {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let length = length.and_then(|text| text.parse::<usize>().ok());
    let readable = response.status() == StatusCode::OK
        && length.is_some_and(|length| length <= MAX_CARD)
        && !response.headers().contains_key(CONTENT_ENCODING);
    if !readable {
        return response.map(|sent| ReplyBody::stream(sent.incoming, sent.lease, exchange));
    }
    let (mut head, sent) = response.into_parts();
    let body = match sent.incoming.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            exchange.ended(Outcome::UpstreamBroke);
            return Response::from_parts(head, ReplyBody::broken(error, exchange));
        }
    };
    drop(sent.lease);
    let backend = |host: &str| {
        let same = HostKey::parse(host, table.cluster_domain())
            .is_ok_and(|(key, _)| table.is_host_of(&key, route));
        same || route.config.to.targets.iter().any(|target| target.host == host)
    };
    let body = match rewrite_card(&body, origin, &backend) {
        Some(card) => {
            head.headers.remove(ETAG);
            head.headers.remove(LAST_MODIFIED);
            Bytes::from(card.body)
        }
        None => body,
    };
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    exchange.ended(Outcome::Complete);
    Response::from_parts(head, ReplyBody::local(body, exchange))
}
