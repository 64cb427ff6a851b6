//! A moment of a proxy, for tests, as the admin API sends it.

use super::sight::Sight;

const SIGHT: &str = r#"{
 "at": "2026-11-27T18:00:00.123Z", "windowSeconds": 60,
 "totals": {"calls": 1234, "errors": 4, "rate": 2.5, "errorRate": 0.1, "openRequests": 4, "openStreams": 3,
            "routes": 10, "refusedRoutes": 2},
 "edges": [
  {"from": "team-a/parent", "to": "tools.team-a", "protocol": "mcp", "state": "ok", "declared": true, "calls": 1200,
   "errors": 1, "rate": 2.0, "errorRate": 0.1, "p50Ms": 3.1, "p99Ms": 20.0, "openStreams": 1, "later": {}},
  {"from": "team-a/parent", "to": "helper.team-a", "protocol": "a2a", "state": "slow", "declared": true, "calls": 30,
   "errors": 3, "rate": 0.5, "errorRate": 0.0, "p50Ms": 6200.0, "p99Ms": 9000.0, "openStreams": 2},
  {"from": "unknown", "to": "tools.team-a", "protocol": "mcp", "state": "undeclared", "declared": null, "calls": 4,
   "errors": 0, "rate": 0.02, "errorRate": 0.0, "p50Ms": 40.0, "p99Ms": 41.0, "openStreams": 0},
  {"from": "team-a/parent", "to": "idle.team-b", "protocol": "mcp", "state": "unused", "declared": true, "calls": 0,
   "errors": 0, "rate": 0.0, "errorRate": 0.0, "p50Ms": null, "p99Ms": null, "openStreams": 0}
 ],
 "tools": [
  {"route": "tools.team-a", "caller": "team-a/parent", "protocol": "mcp", "method": "tools/call", "tool": "add",
   "declared": true, "calls": 900, "errors": 0, "rate": 1.4, "errorRate": 0.0, "p50Ms": 2.0, "p99Ms": 9.0},
  {"route": "tools.team-a", "caller": "team-a/parent", "protocol": "mcp", "method": "tools/call",
   "tool": "\u001b[2Jevil", "declared": false, "calls": 9, "errors": 9, "rate": 0.4, "errorRate": 0.4, "p50Ms": 2.0,
   "p99Ms": 9.0},
  {"route": "tools.team-a", "caller": "team-a/parent", "protocol": "mcp", "method": "tools/list", "tool": "",
   "declared": null, "calls": 291, "errors": 1, "rate": 0.2, "errorRate": 0.0, "p50Ms": 2.0, "p99Ms": 9.0},
  {"route": "helper.team-a", "caller": "team-a/parent", "protocol": "a2a", "method": "message/send", "tool": "",
   "declared": null, "calls": 30, "errors": 3, "rate": 0.1, "errorRate": 0.0, "p50Ms": 6200.0, "p99Ms": 9000.0}
 ],
 "streams": [
  {"route": "tools.team-a", "caller": "team-a/parent", "path": "/mcp", "ageSeconds": 12.5, "session": "00000a1b"},
  {"route": "helper.team-a", "caller": "team-a/parent", "path": "/", "ageSeconds": 7380.0}
 ],
 "sessions": [
  {"route": "tools.team-a", "opened": 2, "carried": 40, "revived": 1, "lost": 0, "answeredLost": 0, "closed": 1},
  {"route": "idle.team-b", "opened": 1, "carried": 4, "revived": 0, "lost": 1, "answeredLost": 0, "closed": 0}
 ],
 "truncated": false
}"#;

pub(super) fn sight() -> Sight {
    serde_json::from_str(SIGHT).unwrap()
}
