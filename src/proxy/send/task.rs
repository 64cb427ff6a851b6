//! Where a request goes first that names a task (A2A, MCP): to the endpoint that has begun it.
//!
//! Where that is not known, gone or cannot be dialled, the request goes wherever any goes. Reads no more of a body
//! than what names the task, and of most requests nothing. Never knows a response.

use http::{Method, Request};

use super::dial;
use super::retry::Retry;
use crate::body::RequestBody;
use crate::config::SessionMode;
use crate::headers::mcp::HeadTask;
use crate::protocol::tasks::{RestPath, TaskRequest};
use crate::proxy::way::Way;
use crate::route::Route;
use crate::session::Sessions;
use crate::session::tasks::TaskKey;
use crate::telemetry::family::SessionEvent;
use crate::upstream::{ConnectError, EndpointId, Lease, Want};

/// The endpoint that has the task.
#[derive(Debug)]
pub struct TaskHome {
    endpoint: EndpointId,
    /// It has had the request.
    tried: bool,
}

// === impl TaskHome ===

impl TaskHome {
    /// Whether it matters if the request names a task: only JSON that is posted does, or a path; only among several
    /// endpoints there is a choice, and somebody has to know a task.
    #[must_use]
    pub fn is_wanted(sessions: &Sessions, way: &Way, request: &Request<RequestBody>) -> bool {
        way.route.cluster.has_several()
            && (is_posted_json(request) || may_be_task_path(request))
            && way.route.config.to.sessions != SessionMode::Pass
            && sessions.may_know_a_task()
    }

    /// Finds it, if the request names a task and anybody knows it.
    pub async fn find(
        sessions: &Sessions,
        way: &Way,
        request: &mut Request<RequestBody>,
    ) -> Option<Box<Self>> {
        let route = &way.route;
        let task = TaskKey::new(&route.config.host, &named(request).await?);
        let is_there = |id: &EndpointId| route.cluster.pick(Want::Pinned(id), &[]).is_some();
        let endpoint = sessions.endpoint_of(task, is_there).await?;
        Some(Box::new(Self { endpoint, tried: false }))
    }

    /// A lease from it: once on any connection, once more on a new one, for an idle one may have closed. After that,
    /// and where it cannot be dialled, from any endpoint.
    ///
    /// # Errors
    /// As [`dial::lease`].
    pub async fn lease(
        home: &mut Option<Box<Self>>,
        route: &Route,
        http1: bool,
        retry: &Retry<'_>,
    ) -> Result<Lease, Option<ConnectError>> {
        if let Some(mut pinned) = home.take()
            && let Ok(lease) = dial::to(route, &pinned.endpoint, pinned.tried, http1).await
        {
            if !pinned.tried {
                route.metrics.session(SessionEvent::Task);
                pinned.tried = true;
                *home = Some(pinned);
            }
            return Ok(lease);
        }
        dial::lease(route, http1, retry).await
    }
}

/// Paths of tasks are a common thing: only those of A2A count, by a header or a query of 1.0, or by 0.3's place for them.
fn may_be_task_path(request: &Request<RequestBody>) -> bool {
    let (path, map) = (request.uri().path(), request.headers());
    path.contains("/tasks/")
        && (path.contains("/v1/tasks/")
            || map.contains_key("a2a-version")
            || request.uri().query().is_some_and(|query| query.contains("A2A-Version=")))
}

fn is_posted_json(request: &Request<RequestBody>) -> bool {
    *request.method() == Method::POST && request.body().upload().tap.is_listening()
}

/// The task that a request names, by its path, by its head or by the first bytes of its body.
async fn named(request: &mut Request<RequestBody>) -> Option<String> {
    let path = RestPath::of(request.uri().path(), *request.method() == Method::POST);
    let mut message = match path {
        RestPath::Names(task) => return Some(task.into_owned()),
        RestPath::Sends => TaskRequest::rest(),
        RestPath::Other => TaskRequest::default(),
    };
    match HeadTask::of(request.headers()) {
        HeadTask::Named(task) => return Some(task.into_owned()),
        HeadTask::Other => return None,
        HeadTask::Unsaid if !is_posted_json(request) => return None,
        HeadTask::Unsaid => {}
    }
    let is_enough = |bytes: &[u8]| {
        message.feed(bytes);
        message.is_settled()
    };
    request.body_mut().peek(is_enough).await;
    message.task()
}
