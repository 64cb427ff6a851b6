//! How the program is: alive, ready, and in numbers. For everyone.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Admin;
use super::answer::text;
use crate::drain::Phase;

pub(super) async fn livez() -> Response {
    text(StatusCode::OK, "ok\n")
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    if admin.watch.phase() != Phase::Serving {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match admin.readiness.waiting() {
        Some(what) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
        None => text(StatusCode::OK, "ready\n"),
    }
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    text(StatusCode::OK, admin.metrics.render())
}
