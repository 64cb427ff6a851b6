//! The real program on free ports, with scripted backends that speak raw bytes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario that panics has failed, which is what it is for"
)]

mod support;

mod a2a_rest;
mod admin;
mod admin_api;
#[cfg(feature = "kube")]
mod api;
mod balance;
mod cards;
mod chain;
mod dashboards;
mod deadlines;
#[cfg(feature = "kube")]
mod discovery;
mod docs;
#[cfg(feature = "kube")]
mod doctor;
mod early;
mod ends;
mod eras;
mod errors;
mod events;
mod extended_cards;
mod framing;
mod goaway;
#[cfg(feature = "kube")]
mod golden;
mod grpc;
mod h2;
mod h2c;
mod hold;
mod layers;
mod limits;
mod logging;
mod long;
mod mcp_server;
mod panics;
mod program;
mod properties;
mod relay;
mod reload;
mod responses;
mod retry;
mod reuse;
mod runtimes;
mod scanners;
mod secrets;
mod session_age;
mod session_log;
#[cfg(feature = "kube")]
mod session_pods;
mod session_rest;
mod session_streams;
mod sessions;
mod sessions_core;
mod sessions_legacy;
mod sessions_replicas;
mod sight;
mod stalled;
mod subscriptions;
mod tasks;
mod terminal;
mod tls;
#[cfg(feature = "traces")]
mod traces;
mod unread;
mod upgrades;
mod urls;
mod workers;
