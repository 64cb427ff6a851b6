//! kagent-proxy: the reverse proxy behind kagent's `proxy.url`.
//!
//! ```text
//! TcpStream ─ listener ─▶ Request
//!    │
//!    ▼ proxy
//! Fields ───────▶ Facts ─────────▶ response, way ─▶ Reply ──▶ ReplyBody ──▶ metrics, access line
//! request/fields  request/facts    send             reply     reply/body    record
//! ```
//!
//! Modules in reading order, in groups; each may use only those of the groups below its own.

#[cfg(all(feature = "mutant-repeats", not(debug_assertions)))]
compile_error!("mutant-repeats sends calls twice; it is for tests/chaos and must not be shipped");

pub mod app;

pub mod reload;

pub mod admin;
pub mod listener;

#[cfg(feature = "kube")]
pub mod doctor;
pub mod explain;
pub mod sight;
pub mod tap;
pub mod top;

#[cfg(feature = "kube")]
pub mod discovery;
pub mod proxy;
pub mod static_routes;

pub mod route;

pub mod session;

#[cfg(feature = "traces")]
pub mod otlp;
pub mod upstream;

pub mod body;
pub mod supervise;
pub mod tls;

pub mod telemetry;

pub mod config;

pub mod admin_client;
pub mod cli;

pub mod columns;
#[cfg(feature = "demo")]
pub mod demo;
pub mod drain;
pub mod headers;
pub mod protocol;
pub mod readiness;
pub mod rewrite;
pub mod socket;
pub mod workers;

pub mod authority;
pub mod backoff;
pub mod plain_path;
