//! Which task a response begins, read while it passes, so that what comes later for the task finds its endpoint.
//!
//! Sees bytes and holds none back. Never knows where a request goes.

use std::sync::Arc;

use http::Response;
use http::header::CONTENT_ENCODING;

use crate::body::Upload;
use crate::config::SessionMode;
use crate::protocol::tasks::{RestPath, TaskAnswer, TaskRequest};
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::route::Route;
use crate::session::Sessions;
use crate::session::tasks::TaskKey;
use crate::upstream::{EndpointId, Leased};
use crate::workers::near::Near;

/// Looks for a task in a response.
#[derive(Debug)]
pub struct TaskWatch {
    answer: TaskAnswer,
    endpoint: EndpointId,
    route: Near<Route>,
    sessions: Arc<Sessions>,
}

// === impl TaskWatch ===

impl TaskWatch {
    /// For a response that may begin a task of which it matters where it is: not where there is one endpoint, and not
    /// in a session, whose requests find their endpoint anyway. It is a stream if `events`.
    #[must_use]
    pub fn of(
        response: &Response<Leased>,
        events: bool,
        (facts, way, upload): (&Facts, &Way, &Upload),
        sessions: &Arc<Sessions>,
    ) -> Option<Box<Self>> {
        let route = &way.route;
        let wanted = route.cluster.has_several()
            && way.session.is_none()
            && route.config.to.sessions != SessionMode::Pass
            && response.status().is_success()
            && !response.headers().contains_key(CONTENT_ENCODING);
        if !wanted {
            return None;
        }
        let answer = match RestPath::of(facts.path.path(), !facts.is_get) {
            RestPath::Sends => TaskAnswer::rest(events),
            _ if TaskRequest::of(&upload.tap.start()?).may_begin_task() => TaskAnswer::new(events),
            _ => return None,
        };
        Some(Box::new(Self {
            answer,
            endpoint: response.body().endpoint().id(),
            route: route.clone(),
            sessions: Arc::clone(sessions),
        }))
    }

    /// The next bytes pass. Whether it is done.
    pub fn pass(&mut self, bytes: &[u8]) -> bool {
        self.answer.feed(bytes);
        if let Some(task) = self.answer.task() {
            let task = TaskKey::new(&self.route.config.host, task);
            self.sessions.tasks.note(task, self.endpoint.clone());
        }
        self.answer.is_done()
    }
}
