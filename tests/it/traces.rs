//! Traces: one span for each exchange, joined to those before and behind it, and what a receiver that is slow, away or
//! picky costs.

use std::collections::BTreeSet;

use kagent_proxy::config::{Config, OtlpProtocol, Secret, TracesConfig};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::support::receiver::{Answer, Receiver, said};
use crate::support::{BOUND, Backend, GET, LAST_GET, LAST_OK, OK, TestProxy, Vacant, start_with};
use crate::tls::{Authority, inline, server_tls};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Http, OtlpProtocol::Grpc];

/// A proxy that sends its spans to this receiver, and the backend behind it.
async fn tracing(
    receiver: &Receiver,
    change: impl FnOnce(&mut TracesConfig),
) -> (TestProxy, Backend) {
    start_with(|config: &mut Config| {
        *config.traces = receiver.config();
        change(&mut config.traces);
    })
    .await
}

/// A GET with these fields besides.
fn get(fields: &str) -> String {
    LAST_GET.replacen("\r\n\r\n", &format!("\r\n{fields}\r\n"), 1)
}

/// The values of a field in a head.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let field = |line: &'h str| line.split_once(": ").filter(|(is, _)| *is == name);
    head.lines().filter_map(|line| Some(field(line)?.1)).collect()
}

/// Trace, span and flags of a head's only `traceparent`.
fn context(head: &str) -> (String, String, String) {
    let [value] = values(head, "traceparent")[..] else { panic!("{head}") };
    let parts: Vec<_> = value.split('-').map(str::to_owned).collect();
    let [version, trace, span, flags] = &parts[..] else { panic!("{value}") };
    assert_eq!(version, "00", "{value}");
    (trace.clone(), span.clone(), flags.clone())
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trace, span and its parent.
fn ids(span: &Span) -> (String, String, String) {
    (hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id))
}

/// A call of a tool with everything that nobody may see again, and its answer.
fn secret_call() -> (String, String) {
    let body = r#"{"jsonrpc":"2.0","id":"id-hunter2","method":"tools/call","params":{"name":"add","arguments":{"a":"body-hunter2"}}}"#;
    let result = r#"{"jsonrpc":"2.0","id":"id-hunter2","result":{"content":[{"text":"body-hunter2"}],"isError":true}}"#;
    let request = format!(
        "POST /mcp?key=query-hunter2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\
         content-type: application/json\r\nconnection: close\r\ntraceparent: {PARENT}\r\n\
         tracestate: rojo=00f067aa0ba902b7\r\nauthorization: Bearer head-hunter2\r\n\
         mcp-session-id: session-hunter2\r\nx-kagent-root-context-id: ctx-1\r\n\
         tracestate: congo=t61rcWkgMzE\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{result}",
        result.len()
    );
    (request, answer)
}

const SAID_OF_CALL: [&str; 11] = [
    "url.path=/mcp",
    "server.address=s.ns",
    "mcp.method.name=tools/call",
    "gen_ai.operation.name=execute_tool",
    "gen_ai.tool.name=add",
    "error.type=tool_error",
    "http.response.status_code=200",
    "kagent_proxy.route=s.ns",
    "kagent_proxy.caller=unknown",
    "kagent_proxy.conversation=ctx-1",
    "network.peer.address=127.0.0.1",
];

#[tokio::test]
async fn a_span_is_the_child_of_its_client_and_the_parent_of_its_backend() {
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, &[]).await;
        let file = std::env::temp_dir()
            .join(format!("kagent-proxy-traces-{}-{protocol:?}", std::process::id()));
        std::fs::write(&file, "x-key = k%20v\n").unwrap();
        let (proxy, backend) = tracing(&receiver, |traces| {
            traces.headers = Some(Secret::File(file.clone()));
            traces.resource = vec![("k8s.pod.name".to_owned(), "p-1".to_owned())];
        })
        .await;
        let (request, answer) = secret_call();
        let mut client = proxy.connect().await;
        client.send(&request).await;
        let mut call = backend.accept().await;
        let sent = call.until("}}}").await;
        call.send(&answer).await;
        client.rest().await;
        proxy.stop().await;
        std::fs::remove_file(&file).unwrap();

        let (trace, ours, flags) = context(&sent);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        assert_ne!(ours, "00f067aa0ba902b7");
        let states = values(&sent, "tracestate");
        assert_eq!(states, ["rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE"]);
        let batches = receiver.batches();
        let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
        let path = match protocol {
            OtlpProtocol::Http => "/v1/traces",
            OtlpProtocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        };
        assert_eq!((batch.path.as_str(), &batch.headers["x-key"]), (path, &"k v".parse().unwrap()));
        for expected in ["service.name=kagent-proxy", "k8s.pod.name=p-1"] {
            assert!(batch.resource.iter().any(|is| is == expected), "{:?}", batch.resource);
        }
        let [span] = &batch.spans[..] else { panic!("{:?}", batch.spans) };
        assert_eq!(ids(span), (TRACE.to_owned(), ours, "00f067aa0ba902b7".to_owned()));
        assert_eq!(span.trace_state, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        assert_eq!((span.name.as_str(), span.kind()), ("tools/call add", SpanKind::Server));
        assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
        let attributes = said(&span.attributes);
        for expected in SAID_OF_CALL {
            assert!(attributes.iter().any(|is| is == expected), "{expected} not in {attributes:?}");
        }
        // No body, no credential, no query, no id of a session or of a call.
        let whole = String::from_utf8_lossy(&batch.body).into_owned();
        assert!(!whole.contains("hunter2"), "{whole}");
    }
}

/// An event stream that its client leaves; the head that its backend got.
async fn left_stream(proxy: &TestProxy, backend: &Backend) -> String {
    let mut client = proxy.connect().await;
    client.send(&GET.replacen("\r\n\r\n", "\r\naccept: text/event-stream\r\n\r\n", 1)).await;
    let mut call = backend.accept().await;
    let head = call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").await;
    client.until("data: 1\n\n").await;
    drop(client);
    call.rest().await;
    head
}

/// Two requests; the second one meets a connection that closes, and is sent once more in the same span.
async fn repeated(proxy: &TestProxy, backend: &Backend) -> [String; 2] {
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call = backend.accept().await;
    let before = call.until("\r\n\r\n").await;
    call.send(OK).await;
    client.until("ok").await;
    client.send(GET).await;
    let first = call.until("\r\n\r\n").await;
    drop(call);
    let again = backend.answer(LAST_OK).await;
    client.until("ok").await;
    assert_eq!(context(&first), context(&again));
    [before, again]
}

#[tokio::test]
async fn each_exchange_makes_one_span_whatever_becomes_of_it() {
    let receiver = Receiver::start(OtlpProtocol::Http, &[]).await;
    let (proxy, backend) = tracing(&receiver, |_| {}).await;
    let mut begun = BTreeSet::new();
    let mut note = |head: &str| {
        let (trace, span, flags) = context(head);
        assert_eq!(flags, "03", "sampled, and the id is random");
        assert!(begun.insert((trace, span)));
    };
    // Two on one connection.
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(GET).await;
        let mut call = backend.accept().await;
        note(&call.until("\r\n\r\n").await);
        call.send(LAST_OK).await;
        client.until("ok").await;
    }
    drop(client);
    // Refused by the proxy.
    for (host, status) in [("nobody.ns", "503"), ("a b", "400")] {
        let refused = proxy.ask(&LAST_GET.replace("s.ns", host)).await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status}")), "{refused}");
    }
    note(&left_stream(&proxy, &backend).await);
    // A backend that breaks off.
    let (broken, head) = tokio::join!(
        proxy.ask(LAST_GET),
        backend.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nok")
    );
    assert!(broken.starts_with("HTTP/1.1 200"), "{broken}");
    note(&head);
    repeated(&proxy, &backend).await.iter().for_each(|head| note(head));
    proxy.stop().await;

    let spans = receiver.spans();
    assert_eq!(spans.len(), 8, "{spans:#?}");
    let made: BTreeSet<_> = spans.iter().map(|span| (ids(span).0, ids(span).1)).collect();
    assert_eq!(made.len(), 8, "each is another one");
    assert!(made.is_superset(&begun), "{made:?} {begun:?}");
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
    let outcome = |word: &str| {
        let word = format!("kagent_proxy.outcome={word}");
        spans.iter().filter(|span| said(&span.attributes).contains(&word)).collect::<Vec<_>>()
    };
    assert_eq!(outcome("complete").len(), 4);
    assert_eq!(outcome("refused").len(), 2);
    let [left] = outcome("client_gone")[..] else { panic!("{spans:#?}") };
    assert!(left.status.is_none(), "so a stream ends: {left:?}");
    let [broken] = outcome("upstream_broke")[..] else { panic!("{spans:#?}") };
    assert!(said(&broken.attributes).contains(&"error.type=upstream_broke".to_owned()));
}

#[tokio::test]
async fn what_is_not_traced_here_passes_byte_for_byte() {
    let untaken = [
        format!("traceparent: {}-00\r\ntracestate: a=1,\r\n", &PARENT[..52]),
        format!("TraceParent: {}-02\r\n", &PARENT[..52]),
        format!("traceparent: cc-{TRACE}-00f067aa0ba902b7-00-later\r\n"),
    ];
    let unreadable = [
        String::new(),
        "traceparent: none\r\ntracestate: a=1\r\n".to_owned(),
        format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n"),
    ];
    let receiver = Receiver::start(OtlpProtocol::Http, &[]).await;
    let off = start_with(|_| {}).await;
    let none_begin = tracing(&receiver, |traces| traces.ratio = 0.0).await;
    let all_begin = tracing(&receiver, |_| {}).await;
    let same = async |(proxy, backend): &(TestProxy, Backend), fields: &str| {
        let request = get(fields);
        let (answer, head) = tokio::join!(proxy.ask(&request), backend.answer(LAST_OK));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let lower = fields.replace("TraceParent", "traceparent");
        for name in ["traceparent", "tracestate"] {
            assert_eq!(values(&head, name), values(&lower, name), "{fields}");
        }
    };
    for fields in untaken.iter().chain(&unreadable) {
        same(&off, fields).await;
        same(&none_begin, fields).await;
    }
    same(&off, &format!("traceparent: {PARENT}\r\n")).await;
    for fields in &untaken {
        same(&all_begin, fields).await;
    }
    for (proxy, _) in [off, none_begin, all_begin] {
        proxy.stop().await;
    }
    assert_eq!(receiver.spans(), []);
}

#[tokio::test]
async fn a_trace_begins_anew_where_its_parent_cannot_be_read() {
    let receiver = Receiver::start(OtlpProtocol::Http, &[]).await;
    let (proxy, backend) = tracing(&receiver, |_| {}).await;
    for fields in [
        "tracestate: a=1\r\n".to_owned(),
        format!("traceparent: {PARENT}-later\r\ntracestate: a=1\r\n"),
        format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\n"),
    ] {
        let request = get(&fields);
        let (_, head) = tokio::join!(proxy.ask(&request), backend.answer(LAST_OK));
        assert_ne!(context(&head).0, TRACE);
        assert_eq!(values(&head, "tracestate"), [""; 0], "{head}");
    }
    proxy.stop().await;
    assert_eq!(receiver.spans().len(), 3);
    // One that is begun and not taken: whoever comes next knows, and nobody traces a part of it.
    let (proxy, backend) = tracing(&receiver, |traces| traces.ratio = 1e-12).await;
    let (_, head) = tokio::join!(proxy.ask(LAST_GET), backend.answer(LAST_OK));
    assert_eq!(context(&head).2, "02");
    proxy.stop().await;
    assert_eq!(receiver.spans(), []);
}

#[tokio::test]
async fn callers_are_not_followed_where_the_configuration_says_so() {
    let receiver = Receiver::start(OtlpProtocol::Http, &[]).await;
    let (proxy, backend) = tracing(&receiver, |traces| traces.follow_callers = false).await;
    let unsampled = get(&format!("traceparent: {}-00\r\n", &PARENT[..52]));
    let (_, head) = tokio::join!(proxy.ask(&unsampled), backend.answer(LAST_OK));
    assert_eq!((context(&head).0.as_str(), context(&head).2.as_str()), (TRACE, "01"));
    proxy.stop().await;
    assert_eq!(receiver.spans().len(), 1);
}

#[tokio::test]
async fn a_receiver_with_a_certificate_is_checked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = server_tls(&authority.issue("localhost"), None, false);
    for protocol in BOTH {
        let receiver = Receiver::start_with(protocol, &[], Some(&tls)).await;
        for (ca, spans) in [(&stranger, 0), (&authority, 1)] {
            let (proxy, _backend) =
                tracing(&receiver, |traces| traces.tls.ca = Some(inline(&ca.pem()))).await;
            proxy.ask(&LAST_GET.replace("s.ns", "nobody.ns")).await;
            proxy.stop().await;
            assert_eq!(receiver.spans().len(), spans, "{protocol:?}");
        }
    }
}

/// So many requests, refused and answered at once, on one connection.
async fn refusals(proxy: &TestProxy, requests: usize) {
    let request = GET.replace("s.ns", "a b");
    let mut client = proxy.connect().await;
    for _ in 0..requests {
        client.send(&request).await;
        client.until("}").await;
    }
}

/// The value of a metric, once it is at least this.
async fn at_least(proxy: &TestProxy, metric: &str, least: u64) -> u64 {
    let look = async {
        loop {
            let text = proxy.admin("/metrics").await;
            let value = text.lines().find_map(|line| line.strip_prefix(metric));
            let value = value.unwrap_or_else(|| panic!("no {metric}")).trim().parse().unwrap();
            if value >= least {
                return value;
            }
            // Between two looks at a counter.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, look).await.unwrap_or_else(|_| panic!("{metric} below {least}"))
}

const EXPORTED: &str = "kagent_proxy_spans_exported_total";
const REJECTED: &str = "kagent_proxy_spans_dropped_total{cause=\"rejected\"}";
const FAILED: &str = "kagent_proxy_spans_dropped_total{cause=\"send_failed\"}";
const FULL: &str = "kagent_proxy_spans_dropped_total{cause=\"queue_full\"}";

#[tokio::test]
async fn what_becomes_of_batches_is_counted() {
    for protocol in BOTH {
        // The first is tried again, and taken but for three; the next one never is.
        let answers = [Answer::Status(503), Answer::Rejected(3), Answer::Status(400)];
        let receiver = Receiver::start(protocol, &answers).await;
        let (proxy, _backend) = tracing(&receiver, |_| {}).await;
        refusals(&proxy, 512).await;
        assert_eq!(at_least(&proxy, REJECTED, 1).await, 3);
        assert_eq!(at_least(&proxy, EXPORTED, 1).await, 509);
        refusals(&proxy, 512).await;
        assert_eq!(at_least(&proxy, FAILED, 1).await, 512);
        refusals(&proxy, 512).await;
        assert_eq!(at_least(&proxy, EXPORTED, 510).await, 1021);
        assert_eq!(at_least(&proxy, FULL, 0).await, 0);
        proxy.stop().await;
        assert_eq!(receiver.spans().len(), 1024);
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_costs_spans_and_no_request() {
    let stuck = Backend::start().await;
    let (proxy, _backend) = start_with(|config| {
        let url = format!("http://127.0.0.1:{}/v1/traces", stuck.port());
        config.traces.endpoint = Some(url.parse().unwrap());
    })
    .await;
    // A batch and a queue of them, and some more.
    let asked = async {
        refusals(&proxy, 512).await;
        let mut held = stuck.accept().await;
        held.until("\r\n\r\n").await;
        refusals(&proxy, 2048).await;
        assert_eq!(at_least(&proxy, FULL, 0).await, 0);
        refusals(&proxy, 40).await;
        assert_eq!(at_least(&proxy, FULL, 40).await, 40);
        held
    };
    let held = asked.await;
    assert_eq!(at_least(&proxy, EXPORTED, 0).await, 0);
    // Nobody is there any more at the end either.
    drop((stuck, held));
    proxy.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_does_not_keep_the_program() {
    let nobody = Vacant::new();
    let (proxy, backend) = start_with(|config| {
        let url = format!("http://127.0.0.1:{}/v1/traces", nobody.port());
        config.traces.endpoint = Some(url.parse().unwrap());
    })
    .await;
    let (answer, _) = tokio::join!(proxy.ask(LAST_GET), backend.answer(LAST_OK));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_at_the_start() {
    let receiver = Receiver::start(OtlpProtocol::Http, &[]).await;
    let mut config = crate::support::config(Vec::new());
    *config.traces = receiver.config();
    config.traces.headers = Some(Secret::File("/nonexistent/h".into()));
    let refused = TestProxy::refused(config.clone()).await;
    assert!(refused.starts_with("traces.headersFile /nonexistent/h: cannot be read"), "{refused}");
    config.traces.headers = None;
    config.traces.tls.ca = Some(Secret::File("/nonexistent/ca".into()));
    let refused = TestProxy::refused(config).await;
    assert!(refused.starts_with("traces.tls.caFile /nonexistent/ca: "), "{refused}");
}
