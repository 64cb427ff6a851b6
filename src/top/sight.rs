//! What `GET /sight` says, as it is sent: who calls whom, and how that goes.
//!
//! Fields that this version does not know are passed over.

use serde::Deserialize;

/// One moment of the proxy.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sight {
    /// When, RFC 3339 in UTC.
    pub(super) at: String,
    /// Seconds that rates and percentiles are about.
    pub(super) window_seconds: f64,
    /// Over everything.
    pub(super) totals: Totals,
    /// Who calls whom, and who declares to.
    pub(super) edges: Vec<Edge>,
    /// Methods and tools.
    pub(super) tools: Vec<Tool>,
    /// What is open now.
    pub(super) streams: Vec<Stream>,
    /// MCP sessions by route.
    pub(super) sessions: Vec<Session>,
    /// Whether a list is longer than what is sent of it.
    #[serde(default)]
    pub(super) truncated: bool,
}

/// Over all edges.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    /// Since the start.
    pub(super) calls: u64,
    /// Since the start.
    pub(super) errors: u64,
    /// Calls per second.
    pub(super) rate: f64,
    /// Errors per second.
    pub(super) error_rate: f64,
    /// Under way now, streams too.
    pub(super) open_requests: u64,
    /// Event streams and tunnels now.
    pub(super) open_streams: u64,
    /// Routes in the table.
    pub(super) routes: u64,
    /// Hosts that the cluster has and that are not routable.
    pub(super) refused_routes: u64,
}

/// A caller and a route.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edge {
    /// The caller: an Agent, or `unknown`.
    pub(super) from: String,
    /// The host of the route.
    pub(super) to: String,
    /// `mcp` or `a2a`.
    pub(super) protocol: String,
    /// `ok`, `failing`, `slow`, `undeclared`, `unused` or `declared`.
    pub(super) state: String,
    /// Since the start.
    pub(super) calls: u64,
    /// Since the start.
    pub(super) errors: u64,
    /// Calls per second.
    pub(super) rate: f64,
    /// Errors per second.
    pub(super) error_rate: f64,
    /// Median of the window in milliseconds, if there were calls.
    pub(super) p50_ms: Option<f64>,
    /// Where that is only a bound: `below` or `above`.
    pub(super) p50_bound: Option<String>,
    /// 99th percentile of the window in milliseconds, if there were calls.
    pub(super) p99_ms: Option<f64>,
    /// As that of the median.
    pub(super) p99_bound: Option<String>,
    /// Now.
    pub(super) open_streams: u64,
}

/// What is called over an edge.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tool {
    /// The host of the route.
    pub(super) route: String,
    /// An Agent, or `unknown`.
    pub(super) caller: String,
    /// `mcp` or `a2a`.
    pub(super) protocol: String,
    /// Such as `tools/call`.
    pub(super) method: String,
    /// The tool or prompt; empty where the method names none.
    pub(super) tool: String,
    /// Whether the caller declares it, if that is known.
    pub(super) declared: Option<bool>,
    /// Since the start.
    pub(super) calls: u64,
    /// Since the start.
    pub(super) errors: u64,
    /// Calls per second.
    pub(super) rate: f64,
    /// Errors per second.
    pub(super) error_rate: f64,
    /// Median of the window in milliseconds, if there were calls.
    pub(super) p50_ms: Option<f64>,
    /// Where that is only a bound: `below` or `above`.
    pub(super) p50_bound: Option<String>,
    /// 99th percentile of the window in milliseconds, if there were calls.
    pub(super) p99_ms: Option<f64>,
    /// As that of the median.
    pub(super) p99_bound: Option<String>,
}

/// A stream that is open.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stream {
    /// The host of the route.
    pub(super) route: String,
    /// An Agent, or `unknown`.
    pub(super) caller: String,
    /// The path that was asked for.
    pub(super) path: String,
    /// Since it began.
    pub(super) age_seconds: f64,
    /// The hash of its session, if it has one.
    #[serde(default)]
    pub(super) session: Option<String>,
}

/// What has become of a route's sessions, since the start.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    /// The host of the route.
    pub(super) route: String,
    /// Begun by clients.
    pub(super) opened: u64,
    /// Requests that reached their session.
    pub(super) carried: u64,
    /// Begun anew by the proxy, because their server was gone.
    pub(super) revived: u64,
    /// Could not be brought back.
    pub(super) lost: u64,
    /// Calls that may have run and were answered so.
    pub(super) answered_lost: u64,
    /// Ended by clients.
    pub(super) closed: u64,
}

/// Which edge a tool or a stream is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// The caller.
    pub(super) from: String,
    /// The route.
    pub(super) to: String,
    /// Of the calls; streams do not say it.
    pub(super) protocol: String,
}

// === impl Scope ===

impl Scope {
    /// Whether it is this edge.
    #[must_use]
    pub(super) fn is(&self, edge: &Edge) -> bool {
        (&self.from, &self.to, &self.protocol) == (&edge.from, &edge.to, &edge.protocol)
    }

    /// Whether the tool is called over it.
    #[must_use]
    pub(super) fn calls(&self, tool: &Tool) -> bool {
        (&self.from, &self.to, &self.protocol) == (&tool.caller, &tool.route, &tool.protocol)
    }

    /// Whether the stream is between these two.
    #[must_use]
    pub(super) fn carries(&self, stream: &Stream) -> bool {
        (&self.from, &self.to) == (&stream.caller, &stream.route)
    }
}
