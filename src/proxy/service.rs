//! The proxy as a `tower` service, for programs that embed it and put layers around it.
//!
//! One for each client connection. Adds nothing of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use crate::proxy::Proxy;
use crate::proxy::error::Unanswered;
use crate::proxy::reply::ReplyBody;
use crate::proxy::request::conn::{ConnTask, Connection};

/// The proxy, as the clients of one connection see it.
#[derive(Clone, Debug)]
pub struct ProxyService {
    proxy: Arc<Proxy>,
    conn: Arc<Connection>,
    task: ConnTask,
}

// === impl ProxyService ===

impl ProxyService {
    /// For this connection; `task` is the one that reads the bodies of its responses, which a route's
    /// limits end if the client does not read. One that is never set leaves those limits to the body.
    #[must_use]
    pub const fn new(proxy: Arc<Proxy>, conn: Arc<Connection>, task: ConnTask) -> Self {
        Self { proxy, conn, task }
    }
}

impl Service<Request<Incoming>> for ProxyService {
    type Response = Response<ReplyBody>;
    type Error = Unanswered;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unanswered>> + Send>>;

    /// Always ready: the proxy limits connections, not requests.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { proxy, conn, task } = self.clone();
        Box::pin(async move { proxy.handle(&conn, task, request).await })
    }
}
