//! Protocol sight: sans-I/O scanners that take bytes and return facts.
//!
//! Never a socket, a clock, a header map or `async`. The bodies in `proxy/` and the connections in
//! `listener/` feed them.

pub mod answered;
pub mod batch;
pub mod calls;
pub mod event_data;
pub mod grpc;
pub mod h2_frames;
pub mod h2_heads;
pub mod json_text;
pub mod jsonrpc;
pub mod mcp;
pub mod methods;
pub mod outcomes;
pub mod places;
pub mod sse;
pub mod subscription;
pub mod tasks;
pub mod tool_list;
pub mod trace_context;
