//! What goes back: how a backend's response is passed on, and what is said instead of one.
//!
//! Begins with the headers of a response; never knows how the request got to the backend.

pub mod body;
pub mod card;
mod events;
pub mod guard;
pub mod head;
pub mod instead;
pub mod plan;
pub mod refuse;
pub mod relay;
mod reopens;
pub mod session;
pub mod task;
pub mod timeouts;
pub mod trailers_only;
pub mod tunnel;
pub mod unread;
pub mod watchdog;

use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_util::task::TaskTracker;

pub use self::body::ReplyBody;
use self::card::Card;
use self::plan::RelayPlan;
use self::task::TaskWatch;
use self::timeouts::BodyTimeouts;
use super::call::Kind;
use super::error::{ProxyError, Refused};
use super::instead::Instead;
use super::record::Recorder;
use super::request::conn::Connection;
use super::request::facts::Facts;
use super::way::Way;
use crate::config::Cards;
use crate::drain::Watch;
use crate::session::Sessions;
use crate::upstream::Leased;

/// What holds for every response.
#[derive(Debug)]
pub struct Egress {
    /// The origin that cards name, instead of the one that the client used.
    pub public_url: Option<String>,
    /// The phase, which a session's own stream follows.
    pub watch: Watch,
    /// Connections that became tunnels; the drain waits for them.
    pub tunnels: TaskTracker,
    /// Gives those that begin their tokens.
    pub sessions: Arc<Sessions>,
}

/// How a response is passed on.
pub enum Reply {
    /// Frame by frame.
    Relay(Response<Leased>, RelayPlan),
    /// As a card, which is read whole first.
    Card(Response<Leased>, RelayPlan, Box<Card>),
    /// As a tunnel.
    Tunnel(Response<Leased>, BodyTimeouts, OnUpgrade),
    /// None: this in its place.
    Instead(Instead),
}

// === impl Reply ===

impl Reply {
    /// Decides how a response that came on `way` is passed on; `client` is the client's side of a tunnel,
    /// if it asked for one.
    ///
    /// # Errors
    /// The backend became a tunnel without being asked.
    pub fn of(
        mut response: Response<Leased>,
        (facts, way, conn): (&Facts, Way, &Connection),
        client: Option<OnUpgrade>,
        egress: &Egress,
        record: &mut Recorder,
    ) -> Result<Self, Refused> {
        session::name(&mut response, (facts, &way), &egress.sessions, record);
        let noted = response.body().noted();
        head::rewrite(&mut response, &way, noted.names);
        let to = &way.route.config.to;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client.filter(|_| to.websocket) else {
                let error = ProxyError::UnaskedUpgrade(way.route.config.host.clone());
                return Err(Refused::sent(error));
            };
            record.on_head(response.status(), Kind::Upgrade);
            let limits = BodyTimeouts::of(&to.timeouts.upgrade, record.started());
            return Ok(Self::Tunnel(response, limits, client));
        }
        record.on_grpc(response.headers());
        let from = (&response, noted);
        // Before what has passed of the request is forgotten.
        let may_be_result = (noted.is_json || noted.is_untyped())
            && !facts.is_get
            && response.status() == StatusCode::OK;
        let rewrites = to.cards == Cards::Rewrite;
        let is_result = may_be_result && rewrites && card::is_asked_for(record.upload());
        let mut plan = RelayPlan::new(from, facts, &way, &egress.watch, record.started());
        let events = plan.events.is_some();
        let upload = record.upload();
        plan.task = TaskWatch::of(&response, events, (facts, &way, upload), &egress.sessions);
        plan.await_answer(&way, upload, (&egress.sessions, &egress.watch));
        if let Some(legacy) = plan.events.as_mut().and_then(|events| events.legacy.as_mut()) {
            legacy.pin = session::pin(&response, &way, &egress.sessions);
        }
        let pin = plan.events.as_ref().and_then(|events| events.legacy.as_ref()?.pin.clone());
        record.on_answer(response.status(), plan.kind, (noted, plan.encoded));
        if let Some(token) = &pin {
            record.on_answer_stream(token);
        }
        Ok(match Card::of(facts, (is_result, noted), way, conn, egress.public_url.as_deref()) {
            Some(card) => Self::Card(response, plan, card),
            None => Self::Relay(response, plan),
        })
    }

    /// The response as hyper takes it.
    pub async fn into_response(
        self,
        record: Box<Recorder>,
        egress: &Egress,
    ) -> Response<ReplyBody> {
        match self {
            Self::Relay(response, plan) => {
                response.map(|leased| ReplyBody::relay(leased, plan, record))
            }
            Self::Card(response, plan, card) => card::pass(response, plan, *card, record).await,
            Self::Tunnel(response, limits, client) => {
                tunnel::open(response, client, limits, record, &egress.tunnels).await
            }
            Self::Instead(instead) => instead::response(instead, &egress.watch, record),
        }
    }
}
