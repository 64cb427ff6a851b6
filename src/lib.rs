//! kagent-proxy: the reverse proxy behind kagent's `proxy.url`.

pub mod config;
