//! Every metric's name and help text, and the buckets of durations.
//!
//! Plain data, which a test compares with the docs.

/// Bucket bounds of every duration, in microseconds: from loopback calls to agents that think for minutes.
pub const BOUNDS: [u64; 17] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
];

/// Bucket bounds of the duration of operations, in microseconds: those of OpenTelemetry's conventions for MCP.
pub const OPERATION_BOUNDS: [u64; 14] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// Bounds below the lowest of those, in microseconds: for people, who want to know whether a call took one millisecond
/// or nine. No series has them.
pub const FINE_BOUNDS: [u64; 4] = [500, 1_000, 2_000, 5_000];

/// Seconds that calls of MCP took, by caller, method, tool and error.
pub const MCP_SECONDS: &str = "kagent_proxy_mcp_operation_duration_seconds";
/// Seconds that calls of A2A took, by caller, method and error.
pub const A2A_SECONDS: &str = "kagent_proxy_a2a_operation_duration_seconds";
/// Series of calls in use.
pub const OPERATION_SERIES: &str = "kagent_proxy_operation_series";
/// How many of them there may be.
pub const OPERATION_SERIES_LIMIT: &str = "kagent_proxy_operation_series_limit";
/// Edges of the graph that Agents declare, by whether they are used.
pub const DECLARED_EDGES: &str = "kagent_proxy_declared_edges";
/// Calls of Agents that declare what they use, but not this.
pub const UNDECLARED_CALLS: &str = "kagent_proxy_undeclared_calls_total";
/// Headers of MCP that say something else than the body.
pub const HEADER_MISMATCH: &str = "kagent_proxy_mcp_header_mismatch_total";
/// Seconds since the oldest open stream began.
pub const OLDEST_STREAM: &str = "kagent_proxy_oldest_stream_seconds";
/// Finished requests, by route, class, status and outcome.
pub const REQUESTS: &str = "kagent_proxy_requests_total";
/// Seconds from the request's arrival to the headers of the response.
pub const RESPONSE_HEADERS_SECONDS: &str = "kagent_proxy_response_headers_seconds";
/// Seconds from the request's arrival to the end of the response.
pub const WHOLE_SECONDS: &str = "kagent_proxy_request_seconds";
/// Seconds from the request's arrival to the end of the first event of an event stream.
pub const FIRST_EVENT_SECONDS: &str = "kagent_proxy_first_event_seconds";
/// Answers that are under way.
pub const OPEN: &str = "kagent_proxy_open_requests";
/// Event streams and tunnels that are under way.
pub const OPEN_STREAMS: &str = "kagent_proxy_open_streams";
/// Events passed to clients.
pub const EVENTS: &str = "kagent_proxy_events_total";
/// Keep-alive comments written into silent event streams.
pub const COMMENTS: &str = "kagent_proxy_keep_alive_comments_total";
/// Exchanges broken off, by side.
pub const ABORTS: &str = "kagent_proxy_aborts_total";
/// Informational responses (1xx) of backends, which are not passed on.
pub const INFORMATIONAL: &str = "kagent_proxy_informational_dropped_total";
/// Bytes of requests passed to backends.
pub const REQUEST_BYTES: &str = "kagent_proxy_request_bytes_total";
/// Agent cards, by what became of them.
pub const CARDS: &str = "kagent_proxy_cards_total";
/// Bytes of responses passed to clients.
pub const BYTES: &str = "kagent_proxy_response_bytes_total";
/// Requests that wait for a route or a backend.
pub const HELD: &str = "kagent_proxy_held_requests";
/// Requests answered by the proxy itself, by reason.
pub const REJECTED: &str = "kagent_proxy_rejected_total";
/// Upstream connections: opened, reused, discarded.
pub const POOL: &str = "kagent_proxy_upstream_connections_total";
/// Endpoints ejected for a while because they failed.
pub const EJECTIONS: &str = "kagent_proxy_ejections_total";
/// What happens to MCP sessions, by event and cause.
pub const SESSIONS: &str = "kagent_proxy_sessions_total";
/// Letters to other replicas about sessions, by whether they were answered.
pub const SESSION_PEERS_ASKED: &str = "kagent_proxy_session_peers_asked_total";
/// Other replicas that answer.
pub const SESSION_PEERS: &str = "kagent_proxy_session_peers";
/// Whether replicas have keys of their own for sessions.
pub const SESSION_KEYS_SPLIT: &str = "kagent_proxy_session_keys_split";
/// Requests sent again (D11).
pub const RETRIES: &str = "kagent_proxy_retries_total";
/// Changed configurations, by what became of them.
pub const RELOADS: &str = "kagent_proxy_config_reloads_total";
/// Background tasks that panicked, by name.
pub const BACKGROUND_FAILED: &str = "kagent_proxy_background_tasks_failed_total";
/// Whether the watch of a kind of object works.
pub const DISCOVERY_UP: &str = "kagent_proxy_discovery_up";
/// Objects known, by kind.
pub const DISCOVERY_OBJECTS: &str = "kagent_proxy_discovery_objects";
/// Changes of objects seen, by kind.
pub const DISCOVERY_EVENTS: &str = "kagent_proxy_discovery_events_total";
/// Failures of watches, by kind.
pub const DISCOVERY_ERRORS: &str = "kagent_proxy_discovery_errors_total";
/// Endpoints that are not dialled, by why their address does not count.
pub const DISCOVERY_LEFT_OUT: &str = "kagent_proxy_discovery_endpoints_left_out";
/// Whether every object of the cluster has been seen once.
pub const DISCOVERY_SYNCED: &str = "kagent_proxy_discovery_synced";
/// Open connections of clients, by worker.
pub const WORKER_CONNECTIONS: &str = "kagent_proxy_worker_connections";
/// Lines of the log that were dropped, by cause.
pub const LOG_DROPPED: &str = "kagent_proxy_log_lines_dropped_total";
/// Spans that a receiver has taken.
pub const SPANS_EXPORTED: &str = "kagent_proxy_spans_exported_total";
/// Spans that were dropped, by cause.
pub const SPANS_DROPPED: &str = "kagent_proxy_spans_dropped_total";
/// Panics of the program, whatever became of them.
pub const PANICS: &str = "kagent_proxy_panics_total";
/// Always 1; the version is a label.
pub const BUILD: &str = "kagent_proxy_build_info";

/// Name and help text of every metric; the table of docs/metrics-and-logs.md is compared with it.
pub const HELP: &[(&str, &str)] = &[
    (
        MCP_SECONDS,
        "Seconds that calls of MCP took, by route, caller, method, tool and error; buckets of OpenTelemetry's conventions",
    ),
    (A2A_SECONDS, "The same for calls of A2A, by route, caller, method and error"),
    (OPERATION_SERIES, "Series of the two metrics above that are in use, by every worker"),
    (OPERATION_SERIES_LIMIT, "How many of them there may be; calls beyond are counted as other"),
    (
        DECLARED_EDGES,
        "1 for each route that an Agent says it uses, by caller, route and state: used or unused",
    ),
    (
        UNDECLARED_CALLS,
        "Calls by Agents to routes or tools that they do not say they use, by caller and route",
    ),
    (
        HEADER_MISMATCH,
        "Calls whose Mcp-Method or Mcp-Name header says something else than their body",
    ),
    (REQUESTS, "Finished requests by route, class, status and outcome"),
    (RESPONSE_HEADERS_SECONDS, "Seconds from the request's arrival to the headers of the response"),
    (WHOLE_SECONDS, "Seconds from the request's arrival to the end of the response"),
    (
        FIRST_EVENT_SECONDS,
        "Seconds from the request's arrival to the end of a stream's first event",
    ),
    (OPEN, "Requests that are under way"),
    (OPEN_STREAMS, "Event streams and tunnels that are under way"),
    (OLDEST_STREAM, "Seconds since the oldest of them began"),
    (EVENTS, "Events passed to clients"),
    (COMMENTS, "Keep-alive comments written into silent event streams"),
    (ABORTS, "Exchanges broken off, by side: client or upstream"),
    (
        CARDS,
        "Agent cards: rewritten, passed as they are, signature removed, interfaces of gRPC left out",
    ),
    (INFORMATIONAL, "Informational responses (1xx) of backends, which are not passed on"),
    (REQUEST_BYTES, "Bytes of requests passed to backends"),
    (BYTES, "Bytes of responses passed to clients"),
    (HELD, "Requests that wait for a route or a backend"),
    (REJECTED, "Requests answered by the proxy itself, by reason"),
    (POOL, "Upstream connections opened, reused and discarded"),
    (EJECTIONS, "Endpoints ejected for a while because they failed"),
    (
        SESSIONS,
        "MCP sessions by event and cause: opened, carried (requests), revived, lost, answered_lost (calls), closed; task (requests that went where their task is)",
    ),
    (
        SESSION_PEERS_ASKED,
        "Questions to other replicas about sessions, by result: answered, or silent for 200 to 400 ms",
    ),
    (SESSION_PEERS, "Other replicas that answer questions about sessions"),
    (
        SESSION_KEYS_SPLIT,
        "1 where several replicas have no common key: ids of sessions pass as they are",
    ),
    (RETRIES, "Requests retried on another connection"),
    (
        RELOADS,
        "Changed configurations: applied or refused; rotated: TLS files alone, beside a refused one",
    ),
    (BACKGROUND_FAILED, "Background tasks that panicked and were started again, by name"),
    (
        DISCOVERY_UP,
        "Whether the watch of a kind of object works; 0 too where RBAC or the API lack it",
    ),
    (DISCOVERY_OBJECTS, "Objects of the cluster that are known, by kind"),
    (DISCOVERY_EVENTS, "Changes of the cluster's objects, by kind"),
    (DISCOVERY_ERRORS, "Failures of watches, by kind; the last known table stays in force"),
    (
        DISCOVERY_LEFT_OUT,
        "Endpoints in EndpointSlices that are not dialled, by reason: whose address they claim",
    ),
    (DISCOVERY_SYNCED, "Whether all objects of the cluster have been listed once"),
    (
        WORKER_CONNECTIONS,
        "Open connections of clients by worker, where each worker has a scheduler of its own",
    ),
    (
        LOG_DROPPED,
        "Log lines dropped: queue_full where nobody reads standard error, write_failed where it cannot be written",
    ),
    (SPANS_EXPORTED, "Spans that the receiver of traces has taken"),
    (
        SPANS_DROPPED,
        "Spans dropped, by cause: queue_full where the receiver is slow or away, send_failed, rejected by the receiver",
    ),
    (PANICS, "Panics of the program; each is logged with its place"),
    (BUILD, "Always 1, with the version as a label"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_the_same_table() {
        let docs = include_str!("../../docs/metrics-and-logs.md");
        let table = docs.split("| name |").nth(1).unwrap().split("\n\n").next().unwrap();
        let written: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> =
            HELP.iter().map(|(name, help)| format!("| `{name}` | {help} |")).collect();
        assert_eq!(written, expected);
    }
}
