//! Who calls whom, as data for people: what is counted beside what is declared.
//!
//! Gives JSON and DOT of one moment; what happened within the last minute comes from two moments. Knows counts, the
//! route table and what Agents say that they use; carries no request.

pub mod dot;
pub mod edges;
pub mod look;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use self::edges::{Edge, edges};
use self::look::{Counts, Look, ToolKey};
use crate::protocol::methods::Protocol;

/// What rates and quantiles are of.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How many edges and tools are told, the busiest first.
const MAX_ROWS: usize = 2_000;
/// How many streams are told, the oldest first.
const MAX_STREAMS: usize = 1_000;

/// Looks of the last minute are kept that are so far apart: each holds every series.
pub const APART: Duration = Duration::from_secs(10);

/// Looks of the last minute, the oldest first.
#[derive(Debug, Default)]
pub struct Looks(VecDeque<Look>);

// === impl Looks ===

impl Looks {
    /// Takes another look; those that are older than the window go, but for the youngest of them.
    pub fn take(&mut self, look: Look) {
        let edge = look.taken.checked_sub(WINDOW);
        while self.0.get(1).is_some_and(|second| edge.is_some_and(|edge| second.taken <= edge)) {
            self.0.pop_front();
        }
        // The youngest is replaced until it is far enough from the one before.
        let before = self.0.len().checked_sub(2).and_then(|at| self.0.get(at));
        let near = before.is_some_and(|before| look.taken < before.taken + APART);
        if near {
            self.0.pop_back();
        }
        self.0.push_back(look);
    }

    /// When the youngest was taken.
    #[must_use]
    pub fn latest(&self) -> Option<Instant> {
        self.0.back().map(|look| look.taken)
    }

    /// What there is to say now; nothing before the first look.
    #[must_use]
    pub fn told(&self, at: SystemTime) -> Value {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else { return json!({}) };
        let window = last.taken.saturating_duration_since(first.taken);
        let told = Told { first, last, window };
        told.json(at)
    }

    /// All edges now, seen and declared.
    #[must_use]
    pub fn edges(&self) -> Vec<Edge> {
        match (self.0.front(), self.0.back()) {
            (Some(first), Some(last)) => edges(first, last),
            _ => Vec::new(),
        }
    }
}

/// Two moments, and what lies between.
struct Told<'l> {
    first: &'l Look,
    last: &'l Look,
    window: Duration,
}

// === impl Told ===

impl Told<'_> {
    fn json(&self, at: SystemTime) -> Value {
        let mut edges = edges(self.first, self.last);
        let unused = unused_tools(&edges);
        let mut truncated = edges.len() > MAX_ROWS;
        edges.sort_by(|a, b| {
            b.recent.calls.cmp(&a.recent.calls).then(b.total.calls.cmp(&a.total.calls))
        });
        edges.truncate(MAX_ROWS);
        let (tools, more_tools) = self.tools(unused);
        let (streams, more_streams) = self.streams();
        truncated |= more_tools || more_streams;
        json!({
            "at": humantime::format_rfc3339_millis(at).to_string(),
            "windowSeconds": self.window.as_secs(),
            "totals": self.totals(),
            "edges": edges.iter().map(|edge| edge.json(self.window)).collect::<Vec<_>>(),
            "tools": tools,
            "streams": streams,
            "sessions": self.sessions(),
            "truncated": truncated,
        })
    }

    fn totals(&self) -> Value {
        let recent = self.last.since(self.first);
        let mut totals = self.last.all().json(&recent, self.window);
        if let Some(map) = totals.as_object_mut() {
            let (requests, streams) = self.last.open();
            map.insert("openRequests".to_owned(), json!(requests));
            map.insert("openStreams".to_owned(), json!(streams));
            map.insert("routes".to_owned(), json!(self.last.routes));
            map.insert("refusedRoutes".to_owned(), json!(self.last.refused));
        }
        totals
    }

    /// Each method and tool of each caller and route, then those that are `unused`, and whether there are more.
    fn tools(&self, unused: Vec<Value>) -> (Vec<Value>, bool) {
        let before = self.first.tools();
        let mut all: Vec<_> = self
            .last
            .tools()
            .into_iter()
            .map(|(key, counts)| {
                let recent = counts.since(before.get(&key));
                (key, counts, recent)
            })
            .collect();
        all.sort_by_key(|(_, _, recent)| std::cmp::Reverse(recent.calls));
        let more = all.len() + unused.len() > MAX_ROWS;
        let rows = all.iter().take(MAX_ROWS).map(|(key, counts, recent)| {
            let declared = self.last.declares(key.caller, key.route, key.tool);
            tool_row(counts.json(recent, self.window), key, declared)
        });
        (rows.chain(unused).take(MAX_ROWS).collect(), more)
    }

    /// The oldest open streams, and whether there are more.
    fn streams(&self) -> (Vec<Value>, bool) {
        let now = self.last.taken;
        let mut all: Vec<_> = self.last.streams().collect();
        all.sort_by_key(|(_, note)| note.started);
        let more = all.len() > MAX_STREAMS;
        let rows = all.iter().take(MAX_STREAMS).map(|(route, note)| {
            json!({
                "route": route,
                "caller": &*note.caller,
                "path": &*note.path,
                "ageSeconds": seconds(now.saturating_duration_since(note.started)),
                "session": note.session.map(|session| format!("{session:08x}")),
            })
        });
        (rows.collect(), more)
    }

    fn sessions(&self) -> Vec<Value> {
        let routes = self.last.sights.iter().filter(|sight| !sight.sessions.is_empty());
        let rows = routes.map(|sight| {
            let count = |wanted: &str| -> u64 {
                let fits = sight.sessions.iter().filter(|((event, _), _)| *event == wanted);
                fits.map(|(_, count)| count).sum()
            };
            json!({
                "route": sight.route,
                "opened": count("opened"),
                "carried": count("carried"),
                "revived": count("revived"),
                "lost": count("lost"),
                "answeredLost": count("answered_lost"),
                "closed": count("closed"),
            })
        });
        rows.collect()
    }
}

/// Tools that callers declare and have never called.
fn unused_tools(edges: &[Edge]) -> Vec<Value> {
    let tools =
        edges.iter().flat_map(|edge| edge.unused_tools.iter().map(move |tool| (edge, tool)));
    let rows = tools.take(MAX_ROWS + 1).map(|(edge, tool)| {
        let key = ToolKey {
            route: &edge.to,
            caller: &edge.from,
            protocol: Protocol::Mcp,
            method: "tools/call",
            tool,
        };
        tool_row(Counts::default().json(&Counts::default(), WINDOW), &key, Some(true))
    });
    rows.collect()
}

/// What is counted of a method or tool, with whose and which it is.
fn tool_row(mut row: Value, key: &ToolKey<'_>, declared: Option<bool>) -> Value {
    if let Some(map) = row.as_object_mut() {
        map.insert("route".to_owned(), json!(key.route));
        map.insert("caller".to_owned(), json!(key.caller));
        map.insert("protocol".to_owned(), json!(key.protocol.word()));
        map.insert("method".to_owned(), json!(key.method));
        map.insert("tool".to_owned(), json!(key.tool));
        map.insert("declared".to_owned(), json!(declared));
    }
    row
}

/// To thousandths.
fn seconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// The graph of one moment: who calls, what is called, and the edges between.
#[must_use]
pub fn graph(edges: &[Edge], window: Duration) -> Value {
    let mut nodes = BTreeMap::<String, Value>::new();
    for edge in edges {
        let kind = if edge.from == "unknown" { "unknown" } else { "agent" };
        let agent = || json!({ "id": edge.from, "kind": kind });
        nodes.entry(edge.from.clone()).or_insert_with(agent);
        if edge.to_node() == edge.to {
            let tools = || json!({ "id": edge.to, "kind": "tools" });
            nodes.entry(edge.to.clone()).or_insert_with(tools);
        } else {
            let agent = json!({ "id": edge.to_node(), "kind": "agent", "route": edge.to });
            nodes.insert(edge.to_node().to_owned(), agent);
        }
    }
    json!({
        "nodes": nodes.into_values().collect::<Vec<_>>(),
        "edges": edges.iter().map(|edge| edge.json(window)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::route::caller::WrittenCallers;
    use crate::route::discovered::{Discovered, Fallback, HostState, OpenHost};
    use crate::route::host::HostKey;
    use crate::route::{ObjectId, RouteTable, Uses};
    use crate::telemetry::metrics::{Metrics, RouteMetrics};
    use crate::telemetry::operations::{ErrorType, Operation};
    use crate::telemetry::streams::StreamNote;

    /// A moment later: where Agent `a/b` uses `t.ns` (only `add`), `c.a` and `idle.ns`, and `a/c` is an Agent too.
    struct World {
        metrics: Metrics,
        tools: RouteMetrics,
        agent: RouteMetrics,
        table: RouteTable,
        looks: Looks,
        sees_calls: bool,
    }

    impl World {
        fn new() -> Self {
            let hosts = [("t.ns", &["add", "sub"][..]), ("c.a", &[]), ("idle.ns", &[])]
                .into_iter()
                .map(|(host, tools)| {
                    (host.into(), tools.iter().map(|name| Box::from(*name)).collect())
                })
                .collect();
            let of = |name| ObjectId::new("a", name);
            let uses = Uses { hosts, anonymous: false };
            let uses = vec![(of("b"), Arc::new(uses)), (of("c"), Arc::default())];
            let mut table = RouteTable::default();
            let written = WrittenCallers { uses, ..WrittenCallers::default() };
            table.callers = table.callers.with(&Arc::new(written));
            let metrics = Metrics::new();
            let (tools, agent) = (metrics.route("t.ns"), metrics.route("c.a"));
            let mut world =
                Self { metrics, tools, agent, table, looks: Looks::default(), sees_calls: true };
            world.look();
            world
        }

        fn look(&mut self) {
            self.looks.take(Look::of(Instant::now(), &self.metrics, &self.table, self.sees_calls));
        }

        fn told(&self) -> Value {
            self.looks.told(SystemTime::UNIX_EPOCH)
        }

        fn call(&self, caller: &'static str, tool: &'static str, error: ErrorType, millis: u64) {
            let (protocol, method) = (Protocol::Mcp, "tools/call");
            let operation = Operation { caller, protocol, method, tool, error };
            self.tools.operation(&operation, Duration::from_millis(millis));
        }

        fn speak(&self, caller: &'static str) {
            let (protocol, method) = (Protocol::A2a, "message/send");
            let error = ErrorType::None;
            let operation = Operation { caller, protocol, method, tool: "", error };
            self.agent.operation(&operation, Duration::from_secs(7));
        }
    }

    fn edges(told: &Value) -> Vec<String> {
        let edges = told["edges"].as_array().unwrap();
        let text = |edge: &Value| {
            let [from, to, state] =
                ["from", "to", "state"].map(|name| edge[name].as_str().unwrap());
            format!("{from} {to} {state} {}/{}", edge["errors"], edge["calls"])
        };
        edges.iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_seen_is_told_beside_what_is_declared() {
        let mut world = World::new();
        world.call("a/b", "add", ErrorType::None, 15);
        world.call("a/b", "add", ErrorType::None, 15);
        world.call("a/b", "other", ErrorType::Tool, 15);
        world.speak("a/b");
        world.call("a/c", "add", ErrorType::None, 15);
        world.call("unknown", "add", ErrorType::None, 15);
        tokio::time::advance(Duration::from_secs(10)).await;
        world.look();
        let told = world.told();
        assert_eq!(
            edges(&told),
            [
                "a/b t.ns undeclared 1/3",
                "a/b c.a slow 0/1",
                "a/c t.ns undeclared 0/1",
                "unknown t.ns ok 0/1",
                "a/b idle.ns unused 0/0",
            ]
        );
        assert_eq!(told["windowSeconds"], 10);
        assert_eq!(told["totals"]["calls"], 6);
        assert_eq!(told["totals"]["rate"], 0.6);
        let tools = told["tools"].as_array().unwrap();
        let add =
            tools.iter().find(|tool| tool["tool"] == "add" && tool["caller"] == "a/b").unwrap();
        assert_eq!((&add["declared"], &add["p50Ms"]), (&json!(true), &json!(15.0)));
        let other = tools.iter().find(|tool| tool["tool"] == "other").unwrap();
        assert_eq!(other["declared"], false);
        let unknown = tools.iter().find(|tool| tool["caller"] == "unknown").unwrap();
        assert_eq!(unknown["declared"], Value::Null);
        let sub = tools.iter().find(|tool| tool["tool"] == "sub").unwrap();
        let told = (&sub["caller"], &sub["declared"], &sub["calls"]);
        assert_eq!(told, (&json!("a/b"), &json!(true), &json!(0)));
        let all = world.looks.edges();
        let edge = all.iter().find(|edge| edge.from == "a/b" && edge.to == "t.ns").unwrap();
        let json = edge.json(WINDOW);
        assert_eq!(json["unusedTools"], json!(["sub"]));
        assert_eq!(json["undeclaredTools"], json!(["other"]));
        assert_eq!(edge.undeclared_tools, [("other".to_owned(), 1)]);
        let text = dot::dot(&all);
        let label = r#"label="3 calls, 1 errors\nundeclared: other\nunused: sub"];"#;
        assert!(text.contains(label), "{text}");
        let of = |name: &str| all.iter().find(|edge| edge.from == name).unwrap();
        assert!(of("a/c").undeclared_tools.is_empty(), "the whole edge is undeclared");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_unused_where_calls_are_not_read() {
        let mut world = World::new();
        world.sees_calls = false;
        tokio::time::advance(Duration::from_secs(10)).await;
        world.look();
        let expected =
            ["a/b c.a declared 0/0", "a/b idle.ns declared 0/0", "a/b t.ns declared 0/0"];
        assert_eq!(edges(&world.told()), expected);
        assert!(world.looks.edges().iter().all(|edge| edge.anonymous));
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_the_last_minute_and_few_looks_are_kept() {
        let mut world = World::new();
        world.call("a/b", "add", ErrorType::Tool, 1);
        for _ in 0..200 {
            tokio::time::advance(Duration::from_secs(1)).await;
            world.look();
        }
        let told = world.told();
        assert!(world.looks.0.len() <= 9, "{}", world.looks.0.len());
        let window = told["windowSeconds"].as_u64().unwrap();
        assert!((60..=70).contains(&window), "{window}");
        assert_eq!((&told["totals"]["calls"], &told["totals"]["rate"]), (&json!(1), &json!(0.0)));
        assert_eq!(edges(&told)[..2], ["a/b t.ns ok 1/1", "a/b c.a unused 0/0"]);
        let seen =
            told["edges"].as_array().unwrap().iter().find(|edge| edge["to"] == "t.ns").unwrap();
        assert_eq!((&seen["state"], &seen["p99Ms"]), (&json!("ok"), &Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_caller_that_is_gone_takes_away_hides_no_call_of_others() {
        let mut world = World::new();
        (0..100).for_each(|_| world.call("a/gone", "add", ErrorType::Tool, 15));
        let known = ["a/b".to_owned()].into();
        let looks = |world: &mut World| {
            world.metrics.forget_callers(&known, Instant::now());
            world.look();
        };
        looks(&mut world);
        tokio::time::advance(Duration::from_secs(300)).await;
        world.look();
        tokio::time::advance(WINDOW).await;
        world.call("a/b", "add", ErrorType::None, 15);
        looks(&mut world);
        let told = world.told();
        assert_eq!(edges(&told)[0], "a/b t.ns ok 0/1");
        let totals = ["calls", "errors", "rate"].map(|name| &told["totals"][name]);
        assert_eq!(totals, [&json!(1), &json!(0), &json!(0.017)]);
        // It calls again, within the window of its calls of before.
        world.call("a/gone", "add", ErrorType::None, 15);
        tokio::time::advance(APART).await;
        world.look();
        assert_eq!(world.told()["totals"]["rate"], json!(0.029));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_with_an_open_stream_keeps_its_series() {
        let world = World::new();
        world.call("a/gone", "add", ErrorType::None, 15);
        let started = Instant::now();
        let note = StreamNote { started, caller: "a/gone".into(), path: "/".into(), session: None };
        let note = Arc::new(note);
        world.tools.note_stream(&note);
        let series = |after: u64| {
            let now = started + Duration::from_secs(after);
            world.metrics.forget_callers(&std::collections::BTreeSet::new(), now);
            world.metrics.render().contains("caller=\"a/gone\"")
        };
        assert!([0, 300, 600].into_iter().all(series));
        drop(note);
        assert!(series(601) && !series(901));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_was_looked_at_ends_all_the_same() {
        let mut world = World::new();
        let (started, session) = (Instant::now(), Some(0x0a1b));
        let note = StreamNote { started, caller: "a/b".into(), path: "/mcp".into(), session };
        let note = Arc::new(note);
        world.tools.note_stream(&note);
        tokio::time::advance(Duration::from_millis(2_500)).await;
        world.look();
        let stream = json!({
            "route": "t.ns", "caller": "a/b", "path": "/mcp", "ageSeconds": 2.5, "session": "00000a1b",
        });
        assert_eq!(world.told()["streams"], json!([stream]));
        drop(note);
        world.look();
        assert_eq!(world.told()["streams"], json!([]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_graph_joins_an_agents_route_with_the_agent() {
        let mut world = World::new();
        world.speak("a/b");
        world.call("a/c", "add", ErrorType::None, 1);
        world.call("quo\"te", "add", ErrorType::None, 1);
        world.look();
        let edges = world.looks.edges();
        let graph = graph(&edges, WINDOW);
        let nodes = graph["nodes"].as_array().unwrap();
        let agent = nodes.iter().find(|node| node["id"] == "a/c").unwrap();
        assert_eq!(agent["route"], "c.a");
        let tools = nodes.iter().find(|node| node["id"] == "t.ns").unwrap();
        assert_eq!(tools["kind"], "tools");
        let text = dot::dot(&edges);
        for line in [
            "  \"a/b\" -> \"a/c\" [color=goldenrod, label=\"1 calls, 0 errors\"];",
            "  \"a/c\" -> \"t.ns\" [style=dashed, color=darkorange, label=\"1 calls, 0 errors\"];",
            "  \"a/b\" -> \"idle.ns\" [style=dotted, color=gray];",
            "  \"quo\\\"te\" -> \"t.ns\" [color=black, label=\"1 calls, 0 errors\"];",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    /// A host of the cluster that can be reached.
    fn open(host: &str, agent: Option<(&str, &str)>) -> (HostKey, Option<Arc<Discovered>>) {
        let open = OpenHost {
            rules: Vec::new(),
            foreign: HashMap::new(),
            ports: Vec::new(),
            fallback: Fallback::Undecided("".into()),
            agent: agent.map(|(namespace, name)| Box::new(ObjectId::new(namespace, name))),
            paths: &[],
            callers: None,
        };
        let state = HostState::Open(open);
        let found = Discovered { host: host.into(), state, notes: Vec::new(), since: None };
        (HostKey::parse(host, "cluster.local").unwrap().0, Some(Arc::new(found)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_only_answers_is_an_agent_in_the_graph() {
        let mut world = World::new();
        world.call("a/c", "add", ErrorType::None, 1);
        for (host, agent) in
            [("idle.ns", Some(("ns", "idle"))), ("t.ns", None), ("pod-0.t.ns", Some(("ns", "t")))]
        {
            let (key, found) = open(host, agent);
            world.table.set_discovered(key, found);
        }
        world.look();
        let edges = world.looks.edges();
        let graph = graph(&edges, WINDOW);
        let nodes = graph["nodes"].as_array().unwrap();
        let answers = json!({ "id": "ns/idle", "kind": "agent", "route": "idle.ns" });
        assert!(nodes.contains(&answers), "{nodes:?}");
        assert!(nodes.contains(&json!({ "id": "t.ns", "kind": "tools" })), "{nodes:?}");
        let edge = edges.iter().find(|edge| edge.to == "idle.ns").unwrap();
        assert_eq!((edge.state(), edge.protocol), ("unused", Protocol::A2a));
        assert!(dot::dot(&edges).contains("\"a/b\" -> \"ns/idle\""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_shown_as_the_agent_that_owns_it_whatever_its_name() {
        let mut world = World::new();
        world.call("ns/t", "add", ErrorType::None, 1);
        world.call("ns/chat", "add", ErrorType::None, 1);
        // `chat` and `c` have Services of other names; `t` calls, but the Service of its name is a tool server's.
        let hosts =
            [("idle.ns", Some(("ns", "chat"))), ("main.a", Some(("a", "c"))), ("t.ns", None)];
        for (host, agent) in hosts {
            let (key, found) = open(host, agent);
            world.table.set_discovered(key, found);
        }
        let other = world.metrics.route("main.a:8080");
        let (protocol, method, error) = (Protocol::A2a, "message/send", ErrorType::None);
        let spoken = Operation { caller: "a/b", protocol, method, tool: "", error };
        other.operation(&spoken, Duration::ZERO);
        world.look();
        let edges = world.looks.edges();
        let leads = |from: &str| {
            let of = edges.iter().filter(|edge| edge.from == from);
            of.map(|edge| (edge.to.as_str(), edge.to_node(), edge.state())).collect::<Vec<_>>()
        };
        assert_eq!(leads("ns/chat"), [("t.ns", "t.ns", "ok")]);
        let (called, unused) = (("main.a:8080", "a/c", "ok"), ("idle.ns", "ns/chat", "unused"));
        assert_eq!(leads("a/b"), [called, unused, ("t.ns", "t.ns", "unused")]);
        let graph = graph(&edges, WINDOW);
        let chat = json!({ "id": "ns/chat", "kind": "agent", "route": "idle.ns" });
        let nodes = graph["nodes"].as_array().unwrap();
        assert!(nodes.contains(&chat), "{nodes:?}");
        assert!(!nodes.iter().any(|node| node["id"] == "ns/idle"), "{nodes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_declares_a_service_or_its_agent_declares_the_route() {
        let edge = |owned: &str, agent: &str, is_called: bool| {
            let mut world = World::new();
            let (key, found) = open(owned, Some(("ns", agent)));
            world.table.set_discovered(key, found);
            // Its series are there as long as it is.
            let route = world.metrics.route(owned);
            if is_called {
                let (protocol, method, error) = (Protocol::Mcp, "tools/call", ErrorType::None);
                let call = Operation { caller: "a/b", protocol, method, tool: "", error };
                route.operation(&call, Duration::ZERO);
            }
            world.look();
            let mut edges = world.looks.edges();
            edges.retain(|edge| edge.to.ends_with(".ns") && edge.to != "t.ns");
            let edge = |edge: &Edge| (edge.to.clone(), edge.to_node().to_owned(), edge.state());
            edges.iter().map(edge).collect::<Vec<_>>()
        };
        let is = |to: &str, node: &str, state| vec![(to.to_owned(), node.to_owned(), state)];
        // A tool server's object names the Service, an Agent's the Agent.
        assert_eq!(edge("idle.ns", "chat", true), is("idle.ns", "ns/chat", "ok"));
        assert_eq!(edge("main.ns", "idle", true), is("main.ns", "ns/idle", "ok"));
        // That nobody has called yet.
        assert_eq!(edge("main.ns", "idle", false), is("idle.ns", "ns/idle", "unused"));
    }
}
