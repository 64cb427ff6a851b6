//! Which requests begin a span, what their next hop is told, and what a span says.

use std::time::Duration;

use super::*;
use crate::telemetry::operations::ErrorType;
use crate::telemetry::record::Outcome;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// How the client has come.
const VIA: (&str, Version) = ("http", Version::HTTP_11);

fn traces(ratio: f64) -> (Traces, WaitingSpans) {
    Traces::new(&TracesConfig { ratio, ..TracesConfig::default() }, Counter::noop())
}

fn begin(traces: &Traces, fields: &[(&'static str, &'static str)]) -> Option<Box<Hop>> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    traces.begin(&headers, "http", Version::HTTP_11)
}

fn record() -> Record<'static> {
    Record {
        grpc_status: None,
        peer: "[::ffff:10.0.0.7]:4711",
        method: "POST",
        path: "/mcp",
        target: "tools.team-a",
        route: "tools.team-a",
        class: "unary",
        status: 200,
        outcome: Outcome::Complete,
        session: Some(7),
        care: "",
        caller: "team-a/parent",
        caller_by: "pod",
        protocol: "mcp",
        rpc_method: "tools/call",
        tool: "add",
        rpc_error: Some(ErrorType::None),
        calls: 1,
        conversation: "ctx-1",
        traceparent: "",
        bytes: 30,
        is_stream: false,
        events: 0,
        request_bytes: 20,
        connect: None,
        response_headers: None,
        first: None,
        whole: Duration::from_millis(7),
    }
}

fn hop() -> Hop {
    let context = TraceContext { trace: 1, span: 2, flags: SAMPLED };
    let (scheme, version) = ("http", Version::HTTP_11);
    Hop { context, parent: 3, state: "a=b".into(), scheme, version }
}

/// The span of a record, and its attributes as text.
fn span(record: &Record<'_>) -> (FinishedSpan, Vec<String>) {
    let span = FinishedSpan::of(record, &hop(), SystemTime::now());
    let shown = |(name, value): &(&str, Attribute)| match value {
        Attribute::Text(text) => format!("{name}={text}"),
        Attribute::Number(number) => format!("{name}={number}"),
    };
    let attributes = span.attributes.iter().map(shown).collect();
    (span, attributes)
}

#[test]
fn a_sampled_caller_is_followed_and_others_go_on_as_they_came() {
    let (traces, _waiting) = traces(0.0);
    let state = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
    let hop = begin(&traces, &state).unwrap();
    assert_eq!(hop.context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!((hop.parent, hop.context.flags), (0x00f0_67aa_0ba9_02b7, SAMPLED));
    assert_ne!(hop.context.span, hop.parent);
    assert_eq!((&*hop.state, hop.begins()), ("a=1,b=2", false));
    let told = hop.traceparent().unwrap();
    let told = TraceContext::parse(told.as_bytes()).unwrap();
    assert_eq!(told, hop.context);
    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for fields in [&[("traceparent", unsampled)][..], &[("traceparent", "none")], &[]] {
        assert_eq!(begin(&traces, fields), None, "{fields:?}");
    }
    assert_eq!(begin(&Traces::off(), &state), None);
}

#[test]
fn what_has_no_caller_that_can_be_read_begins_a_trace() {
    let (traces, _waiting) = traces(1.0);
    let later: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x";
    for fields in [
        &[][..],
        &[("tracestate", "a=1")],
        &[("traceparent", later), ("tracestate", "a=1")],
        &[("traceparent", PARENT), ("traceparent", PARENT)],
    ] {
        let hop = begin(&traces, fields).unwrap();
        assert!(hop.begins() && hop.state.is_empty(), "{fields:?}");
        assert_eq!(hop.context.flags, SAMPLED | RANDOM);
        let other = begin(&traces, fields).unwrap();
        assert_ne!(hop.context.trace, other.context.trace);
        assert_ne!(hop.context.span, other.context.span);
    }
}

#[test]
fn what_is_begun_and_not_taken_is_told_to_the_next_hop_and_makes_no_span() {
    let (traces, mut waiting) = traces(f64::MIN_POSITIVE.max(1e-12));
    let hop = begin(&traces, &[]).unwrap();
    assert_eq!(hop.context.flags, RANDOM);
    traces.finish(&record(), Some(&hop), None, VIA);
    assert!(waiting.try_recv().is_err());
}

#[test]
fn what_finds_no_room_is_counted_and_waits_for_nothing() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let lost = Arc::new(AtomicU64::new(0));
    let counter = Counter::from_arc(Arc::clone(&lost));
    let (traces, mut waiting) = Traces::new(&TracesConfig::default(), counter);
    let hop = begin(&traces, &[]).unwrap();
    for _ in 0..MAX_WAITING + 3 {
        traces.finish(&record(), Some(&hop), None, VIA);
    }
    assert_eq!(lost.load(Ordering::Relaxed), 3);
    assert_eq!(std::iter::from_fn(|| waiting.try_recv().ok()).count(), MAX_WAITING);
}

#[test]
fn a_call_of_a_tool_is_named_by_it_and_says_what_the_conventions_ask_for() {
    let (span, attributes) = span(&record());
    assert_eq!((&*span.name, span.failed), ("tools/call add", false));
    assert_eq!((span.context, span.parent, &*span.state), (hop().context, 3, "a=b"));
    assert_eq!(span.end.duration_since(span.start).unwrap(), Duration::from_millis(7));
    let expected = [
        "http.request.method=POST",
        "url.scheme=http",
        "url.path=/mcp",
        "server.address=tools.team-a",
        "http.response.status_code=200",
        "network.protocol.version=1.1",
        "network.peer.address=10.0.0.7",
        "network.peer.port=4711",
        "http.request.body.size=20",
        "http.response.body.size=30",
        "mcp.method.name=tools/call",
        "gen_ai.operation.name=execute_tool",
        "gen_ai.tool.name=add",
        "kagent_proxy.route=tools.team-a",
        "kagent_proxy.caller=team-a/parent",
        "kagent_proxy.caller_by=pod",
        "kagent_proxy.conversation=ctx-1",
        "kagent_proxy.class=unary",
        "kagent_proxy.outcome=complete",
    ];
    assert_eq!(attributes, expected);
}

#[test]
fn other_calls_are_named_by_their_method_and_the_rest_by_that_of_http() {
    let call = record();
    for (protocol, rpc_method, tool, method, name, attribute) in [
        ("mcp", "prompts/get", "ask", "POST", "prompts/get ask", "gen_ai.prompt.name=ask"),
        ("mcp", "tools/list", "", "POST", "tools/list", "mcp.method.name=tools/list"),
        ("a2a", "message/send", "", "POST", "message/send", "a2a.method.name=message/send"),
        ("", "", "", "GET", "GET", "http.request.method=GET"),
        ("", "", "", "PURGE", "HTTP", "http.request.method_original=PURGE"),
    ] {
        let (span, attributes) = span(&Record { protocol, rpc_method, tool, method, ..call });
        assert_eq!(&*span.name, name);
        assert!(attributes.iter().any(|is| is == attribute), "{attributes:?}");
        let executes = attributes.iter().any(|is| is.starts_with("gen_ai.operation.name"));
        assert!(!executes, "{attributes:?}");
    }
}

#[test]
fn what_went_wrong_is_told_in_one_word() {
    let call = record();
    let plain = Record { protocol: "", rpc_method: "", tool: "", rpc_error: None, ..call };
    for (record, error) in [
        (Record { rpc_error: Some(ErrorType::Tool), ..call }, Some("tool_error")),
        (Record { rpc_error: Some(ErrorType::Code(-32602)), ..call }, Some("-32602")),
        (Record { rpc_error: Some(ErrorType::Word("client_gone")), ..call }, Some("client_gone")),
        (Record { outcome: Outcome::Refused("no_route"), status: 404, ..plain }, Some("no_route")),
        (Record { outcome: Outcome::UpstreamBroke, ..plain }, Some("upstream_broke")),
        (Record { status: 503, ..plain }, Some("503")),
        // The client's fault is no error of a server's span.
        (Record { status: 404, ..plain }, None),
        // So a stream ends.
        (Record { outcome: Outcome::ClientGone, class: "stream", ..plain }, None),
        (Record { outcome: Outcome::Drained, class: "stream", ..plain }, None),
    ] {
        let (span, attributes) = span(&record);
        let is = attributes.iter().find_map(|is| is.strip_prefix("error.type="));
        assert_eq!((is, span.failed), (error, error.is_some()), "{record:?}");
        let code = attributes.iter().find_map(|is| is.strip_prefix("rpc.response.status_code="));
        assert_eq!(code, error.filter(|_| matches!(record.rpc_error, Some(ErrorType::Code(_)))));
    }
}

#[test]
fn texts_are_cut_and_what_is_not_known_is_not_said() {
    let path = format!("/{}", "ä".repeat(200));
    let unknown = Record {
        path: &path,
        target: "",
        route: "",
        caller: "",
        caller_by: "",
        conversation: "",
        status: 0,
        bytes: 0,
        calls: 3,
        events: 9,
        ..record()
    };
    let (_, attributes) = span(&unknown);
    let cut = attributes.iter().find_map(|is| is.strip_prefix("url.path=")).unwrap();
    assert_eq!(cut, format!("/{}", "ä".repeat(127)));
    assert!(attributes.iter().all(|is| !is.ends_with('=')), "{attributes:?}");
    for is in ["kagent_proxy.calls=3", "kagent_proxy.events=9"] {
        assert!(attributes.iter().any(|attribute| attribute == is), "{attributes:?}");
    }
}

#[test]
fn a_long_state_is_left_to_the_next_hop() {
    let mut headers = HeaderMap::new();
    headers.append(TRACESTATE, format!("a={}", "x".repeat(MAX_STATE)).parse().unwrap());
    assert_eq!(&*state(&headers), "");
    headers.insert(TRACESTATE, format!("a={}", "x".repeat(MAX_STATE - 2)).parse().unwrap());
    assert_eq!(state(&headers).len(), MAX_STATE);
}

#[test]
fn what_a_message_says_of_its_trace_counts_where_its_headers_say_nothing() {
    const TOLD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let told = TraceContext::parse(TOLD.as_bytes()).unwrap();
    let unsampled = TraceContext { flags: 0, ..told };
    let header: &[(&str, &str)] = &[("traceparent", PARENT)];
    let (joined, followed) =
        ((told.trace, told.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0xf0_67aa_0ba9_02b7));
    let unsampled_header: &[(&str, &str)] =
        &[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")];
    for (ratio, fields, said, expected, begins) in [
        (0.0, &[][..], Some(told), Some(joined), false),
        (0.0, &[("traceparent", "?")], Some(told), Some(joined), false),
        (0.0, &[], Some(unsampled), None, false),
        (0.0, &[], None, None, false),
        (0.0, header, Some(told), Some(followed), false),
        (0.0, unsampled_header, Some(told), None, false),
        // The backend is told of the trace that begins here, so the span is in that one too.
        (1.0, &[], Some(told), Some(joined), true),
        (1.0, &[], Some(unsampled), None, true),
        (1.0, header, Some(told), Some(followed), false),
    ] {
        let (traces, mut waiting) = traces(ratio);
        let hop = begin(&traces, fields);
        let traceparent = fields.first().map_or("", |(_, value)| *value);
        traces.finish(&Record { traceparent, ..record() }, hop.as_deref(), said, VIA);
        let spans: Vec<_> = std::iter::from_fn(|| waiting.try_recv().ok()).collect();
        let (roots, others): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.parent == 0);
        let found = others.first().map(|span| (span.context.trace, span.parent));
        assert_eq!(
            (found, others.len()),
            (expected, usize::from(expected.is_some())),
            "{fields:?}"
        );
        assert_eq!(roots.len(), usize::from(begins), "{ratio} {fields:?} {said:?}");
        let own = hop.as_ref().map(|hop| hop.context.span);
        assert!(own.is_none_or(|own| spans.iter().all(|span| span.context.span == own)));
    }
}
