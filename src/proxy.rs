//! The request path, top to bottom.
//!
//! [`Proxy::handle`] always answers, `Proxy::serve` may fail: what the head says; a response and the way it came; the
//! reply. Each step's result is the next one's input. It never opens a socket itself and never reads a body.

pub mod call;
mod control;
pub mod error;
pub mod instead;
pub mod limiter;
pub mod posted;
pub mod reason;
pub mod record;
pub mod reply;
pub mod request;
pub mod routes;
pub mod send;
pub mod service;
pub mod sight;
pub mod way;

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use self::call::Kind;
use self::error::{ProxyError, Refused, Unanswered};
use self::reason::Reason;
use self::record::{Books, Recorder};
use self::reply::{Egress, Reply, ReplyBody};
use self::request::conn::{ConnTask, Connection};
use self::request::facts::Facts;
use self::request::fields::Fields;
use self::request::{Ingress, received};
use self::send::Delivery;
use self::send::delivered::Delivered;
use crate::body::RequestBody;
use crate::telemetry::metrics::Metrics;
use crate::workers::near::Common;

/// Carries requests.
#[derive(Debug)]
pub struct Proxy {
    ingress: Ingress,
    delivery: Delivery,
    egress: Egress,
    metrics: Metrics,
    books: Common<Books>,
}

type Boxed = Box<Request<RequestBody>>;

// === impl Proxy ===

impl Proxy {
    /// Answers one request, whatever happens; `task` is the one that reads the response's body.
    ///
    /// A connection keeps the room of what it serves a request with for as long as it lives, and is silent for most of
    /// that: so the work is boxed, before anything is put around it, for that would move it once more. In it the
    /// request, of which each step would reserve one more copy, is boxed too, and no argument lies a second time.
    ///
    /// # Errors
    /// [`Unanswered`] makes hyper close the connection, or reset the stream, without a response.
    pub fn handle<'a>(
        &'a self,
        conn: &'a Arc<Connection>,
        task: ConnTask,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ReplyBody>, Unanswered>> + Send + 'a {
        let fields = Fields::of(request.headers());
        let books = self.books.near();
        let request = Box::new(received(conn, &fields, request, books.sees_calls));
        // Not first in the box: until the request counts as open, what the connection writes is taken for the parser's.
        let mut record = Recorder::begin(conn, task, books, (&request, &fields));
        let (upload, is_grpc) = (Arc::clone(request.body().upload()), record.is_grpc());
        // Written where it stays: a box made of it would have it copied, with all the room that it has yet to use.
        let work = Box::write(Box::new_uninit(), async move {
            let served = match self.read(conn, &request, fields, &record) {
                Ok(facts) => {
                    record.read(&facts);
                    self.serve(conn, &facts, request, &mut record).await
                }
                Err(error) => Err(Refused::unsent(error, *request)),
            };
            match served {
                Ok(Reply::Relay(response, plan)) => {
                    // By no closure, into which all of it would be moved first.
                    let (head, leased) = response.into_parts();
                    let body = ReplyBody::relay(leased, plan, record);
                    Ok(Response::from_parts(head, body))
                }
                // Boxed, as all that is rare.
                Ok(other) => Ok(Box::pin(other.into_response(record, &self.egress)).await),
                Err(refused) => Box::pin(self.refuse(refused, record)).await,
            }
        });
        reply::guard::guarded(Box::into_pin(work), move || {
            self.metrics.rejected(Reason::Internal.word());
            reply::refuse::internal(&upload, is_grpc)
        })
    }

    /// The path of a request whose head has been read.
    async fn serve(
        &self,
        conn: &Arc<Connection>,
        facts: &Arc<Facts>,
        mut request: Boxed,
        record: &mut Recorder,
    ) -> Result<Reply, Refused> {
        let upgrades = facts.kind == Kind::Upgrade;
        let client = upgrades.then(|| hyper::upgrade::on(&mut *request));
        let delivered = match self.delivery.deliver(conn, facts, request, record).await {
            Ok(delivered) => delivered,
            Err(refused) => {
                if let Some(client) = record.probes() {
                    let told = self.delivery.probe_refused(conn, facts, client, &refused.error);
                    // Boxed, as all that is rare.
                    Box::pin(told).await;
                }
                return Err(refused);
            }
        };
        match delivered {
            Delivered::Response(response, way) => {
                Reply::of(response, (facts, way, conn), client, &self.egress, record)
            }
            Delivered::Instead(instead) => Ok(Reply::Instead(instead)),
        }
    }

    /// What the head says.
    fn read(
        &self,
        conn: &Connection,
        request: &Request<RequestBody>,
        fields: Fields,
        record: &Recorder,
    ) -> Result<Arc<Facts>, ProxyError> {
        self.delivery.routes.with(|table| {
            let came = (conn, record.trace());
            Facts::read(request, fields, came, &self.ingress, table.cluster_domain())
        })
    }

    async fn refuse(
        &self,
        refused: Refused,
        mut record: Box<Recorder>,
    ) -> Result<Response<ReplyBody>, Unanswered> {
        let reason = refused.error.reason();
        self.metrics.rejected(reason.word());
        if record.reopened() && refused.error.may_pass_later() {
            record.unanswered(reason);
            return Err(Unanswered);
        }
        Ok(reply::refuse::refuse(refused, record).await)
    }
}
