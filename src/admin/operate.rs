//! What operators ask and order: the configuration, how a request would be routed, a drain.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;

use super::Admin;
use super::answer::{json, text};
use crate::drain::Phase;
use crate::explain::{self, Question};

pub(super) async fn config(State(admin): State<Arc<Admin>>) -> Response {
    json(&admin.config.load())
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Response {
    match Question::from_query(&query.unwrap_or_default()) {
        Ok(question) => {
            let (view, proxy) = (admin.config.load(), &admin.proxy);
            json(&explain::explain(&proxy.routes(), proxy.limits(), &view, &question))
        }
        Err(wrong) => text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    }
}

pub(super) async fn drain(State(admin): State<Arc<Admin>>) -> Response {
    admin.trigger.advance(Phase::Draining);
    text(StatusCode::ACCEPTED, "draining\n")
}
