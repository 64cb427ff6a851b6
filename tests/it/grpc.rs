//! Calls of gRPC: refusals that its clients can read, and ends that they cannot take for a result.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::{Limits, Scheme};
use tokio::net::TcpStream;

use crate::api::Api;
use crate::discovery::{discovering, marked, service, started};
use crate::h2c::{H2cBackend, Script, script};
use crate::program::Program;
use crate::support::{BOUND, Backend, TestProxy, Vacant, config, route};

const SEND: &str = "/lf.a2a.v1.A2AService/SendMessage";

async fn connect(address: std::net::SocketAddr) -> SendRequest<Script> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

/// A call of one message, as far as this matters.
fn call(path: &str, target: Option<&str>, kind: &str) -> Request<Script> {
    let (feed, body) = script();
    feed.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01")))).unwrap();
    let mut request = Request::post(format!("http://p.ns{path}"))
        .header("content-type", kind)
        .header("te", "trailers");
    if let Some(target) = target {
        request = request.header("x-kagent-host", target);
    }
    request.body(body).unwrap()
}

async fn ask(sender: &mut SendRequest<Script>, request: Request<Script>) -> Response<Incoming> {
    tokio::time::timeout(BOUND, sender.send_request(request)).await.expect("late").unwrap()
}

fn field<'r>(response: &'r Response<Incoming>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn trailers(status: &'static str) -> HeaderMap {
    let fields = [("grpc-status", status), ("grpc-message", "it%20is"), ("x-own-bin", "AAE")];
    let field =
        |(name, value): (&'static str, _)| (name.parse().unwrap(), HeaderValue::from_static(value));
    fields.into_iter().map(field).collect()
}

/// The head of a backend's response.
fn begun(body: Script) -> Response<Script> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// A proxy with a backend, with a port where nobody listens, and with one whose responses are never there in time.
async fn start() -> (TestProxy, H2cBackend, Backend) {
    let backend = H2cBackend::start().await;
    let mute = Backend::start().await;
    let mut dead = route("dead.ns", "/", Scheme::H2c, &[Vacant::new().port()]);
    dead.to.hold.request = Duration::from_millis(50);
    let mut silent = route("silent.ns", "/", Scheme::H2c, &[backend.0]);
    silent.to.timeouts.unary.head = Some(Duration::from_millis(100));
    let routes = vec![
        route("s.ns", "/", Scheme::H2c, &[backend.0]),
        route("limited.ns", "/only", Scheme::H2c, &[backend.0]),
        route("broken.ns", "/", Scheme::Http, &[mute.port()]),
        dead,
        silent,
    ];
    (TestProxy::start(config(routes)).await, backend, mute)
}

#[tokio::test]
async fn a_refusal_is_a_head_that_ends_the_stream_with_code_reason_and_message() {
    let (proxy, _backend, mute) = start().await;
    let mut client = connect(proxy.address).await;
    let breaks_off = async { drop(mute.accept().await.until("\r\n\r\n").await) };
    let calls = async {
        for (target, code, reason, retry) in [
            (None, "3", "missing_target", ""),
            (Some("10.0.0.1"), "3", "bad_target", ""),
            (Some("s.nz"), "14", "unknown_target", "1"),
            (Some("dead.ns"), "14", "no_ready_endpoint", "1"),
            (Some("silent.ns"), "4", "head_timeout", ""),
            (Some("broken.ns"), "2", "upstream_reset", ""),
        ] {
            for kind in ["application/grpc", "application/grpc+proto"] {
                if target == Some("broken.ns") && kind != "application/grpc" {
                    continue;
                }
                let response = ask(&mut client, call(SEND, target, kind)).await;
                assert_eq!(response.status(), 200, "{reason}");
                assert_eq!(field(&response, "content-type"), "application/grpc");
                assert_eq!(field(&response, "grpc-status"), code, "{reason}");
                assert_eq!(field(&response, "x-kagent-proxy-error"), reason);
                assert_eq!(field(&response, "retry-after"), retry, "{reason}");
                let message = field(&response, "grpc-message");
                assert!(message.starts_with(&format!("kagent-proxy: {reason}: ")), "{message}");
                assert!(!response.headers().contains_key("content-length"), "{response:?}");
                assert!(response.body().is_end_stream(), "{reason}: the head is all");
            }
        }
        let response = ask(&mut client, call(SEND, Some("s.nz"), "application/grpc")).await;
        let message = field(&response, "grpc-message");
        assert!(message.contains("; candidates: s.ns; add a route; "), "{message}");
    };
    tokio::join!(calls, breaks_off);
    let metrics = proxy.admin("/metrics").await;
    for line in [
        "kagent_proxy_rejected_total{reason=\"unknown_target\"} 3",
        "kagent_proxy_rejected_total{reason=\"no_ready_endpoint\"} 2",
        "kagent_proxy_requests_total{route=\"dead.ns\",class=\"unary\",status=\"200\",outcome=\"refused\"} 2",
        "error_type=\"no_ready_endpoint\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_call_of_grpc_is_refused_as_ever() {
    let (proxy, ..) = start().await;
    let mut client = connect(proxy.address).await;
    for kind in ["application/grpc-web+proto", "application/json", "application/grpcs"] {
        let response = ask(&mut client, call(SEND, Some("no.ns"), kind)).await;
        assert_eq!(response.status(), 503, "{kind}");
        assert_eq!(field(&response, "grpc-status"), "");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.ends_with(b"}"), "{body:?}");
    }
    let mut get = call(SEND, Some("no.ns"), "application/grpc");
    *get.method_mut() = http::Method::GET;
    assert_eq!(ask(&mut client, get).await.status(), 503);
    let old = proxy
        .ask(
            "POST /x HTTP/1.1\r\nhost: p\r\nx-kagent-host: no.ns\r\nconnection: close\r\n\
             content-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
    assert!(old.starts_with("HTTP/1.1 503 unknown_target\r\n"), "{old}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_backend_says_of_a_call_passes_as_it_is() {
    let (proxy, mut backend, _) = start().await;
    let mut client = connect(proxy.address).await;
    // A message and trailers.
    let asked = client.send_request(call(SEND, Some("s.ns"), "application/grpc"));
    let (request, answer) = backend.accept().await;
    assert_eq!(request.headers()["te"], "trailers");
    let (feed, body) = script();
    feed.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))).unwrap();
    feed.send(Ok(Frame::trailers(trailers("5")))).unwrap();
    drop(feed);
    answer.send(begun(body)).ok().unwrap();
    let response = asked.await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers("5")));
    // Trailers only.
    let asked = client.send_request(call(SEND, Some("s.ns"), "application/grpc"));
    let (_, answer) = backend.accept().await;
    let (feed, body) = script();
    drop(feed);
    let mut response = begun(body);
    response.headers_mut().extend(trailers("12"));
    answer.send(response).ok().unwrap();
    let response = asked.await.unwrap();
    assert_eq!((field(&response, "grpc-status"), field(&response, "x-own-bin")), ("12", "AAE"));
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    // What is no gRPC at all.
    let asked = client.send_request(call(SEND, Some("s.ns"), "application/grpc"));
    let (_, answer) = backend.accept().await;
    let (feed, body) = script();
    feed.send(Ok(Frame::data(Bytes::from_static(b"busy")))).unwrap();
    drop(feed);
    let plain = Response::builder().status(503).header("content-type", "text/plain");
    answer.send(plain.body(body).unwrap()).ok().unwrap();
    let response = asked.await.unwrap();
    assert_eq!((response.status().as_u16(), field(&response, "grpc-status")), (503, ""));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "busy");
    drop(client);
    proxy.stop().await;
}

/// The port of its Service says which protocol it speaks.
#[tokio::test]
async fn a_call_reaches_a_service_that_says_h2c_and_its_trailers_come_back() {
    let api = Api::start().await;
    let mut backend = H2cBackend::start().await;
    let mut agent = service("a", "agent", backend.0, marked());
    agent["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c".into();
    api.put("services", agent);
    let proxy = started(discovering(&api)).await;
    let mut client = connect(proxy.address).await;
    let asked = client.send_request(call(SEND, Some("agent.a"), "application/grpc"));
    let (request, answer) = backend.accept().await;
    assert_eq!(
        (request.uri().path(), &request.headers()["te"]),
        (SEND, &"trailers".parse().unwrap())
    );
    let (feed, body) = script();
    feed.send(Ok(Frame::trailers(trailers("5")))).unwrap();
    drop(feed);
    answer.send(begun(body)).ok().unwrap();
    let whole = asked.await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers("5")));
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_reset_and_no_clean_end() {
    let (proxy, mut backend, _) = start().await;
    let mut client = connect(proxy.address).await;
    for breaks_off in [true, false] {
        let asked = client.send_request(call(SEND, Some("s.ns"), "application/grpc"));
        let (_, answer) = backend.accept().await;
        let (feed, body) = script();
        feed.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))).unwrap();
        answer.send(begun(body)).ok().unwrap();
        let mut body = asked.await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap().len(), 5);
        match breaks_off {
            true => feed.send(Err(std::io::Error::other("a test's"))).unwrap(),
            false => feed.send(Ok(Frame::trailers(trailers("0")))).unwrap(),
        }
        drop(feed);
        let end = body.frame().await.unwrap();
        assert_eq!(end.is_err(), breaks_off, "{end:?}");
        if let Err(error) = end {
            let reset = std::error::Error::source(&error).unwrap().downcast_ref::<h2::Error>();
            assert!(reset.is_some_and(|reset| reset.is_reset() && reset.is_remote()), "{error:?}");
        }
    }
    drop(client);
    proxy.stop().await;
}

/// As long as a task may take: no limit of answers cuts it.
#[tokio::test]
async fn a_stream_of_a2a_has_the_limits_of_streams() {
    let mut backend = H2cBackend::start().await;
    let mut short = route("s.ns", "/", Scheme::H2c, &[backend.0]);
    let limit = Some(Duration::from_millis(500));
    short.to.timeouts.unary = Limits { head: limit, idle: limit, total: limit };
    let proxy = TestProxy::start(config(vec![short])).await;
    let mut client = connect(proxy.address).await;
    for (path, status) in [("/lf.a2a.v1.A2AService/SubscribeToTask", "0"), (SEND, "")] {
        let asked = client.send_request(call(path, Some("s.ns"), "application/grpc"));
        let (_, answer) = backend.accept().await;
        let (feed, body) = script();
        feed.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))).unwrap();
        answer.send(begun(body)).ok().unwrap();
        let mut stream = asked.await.unwrap().into_body();
        stream.frame().await.unwrap().unwrap();
        if status.is_empty() {
            assert!(stream.frame().await.unwrap().is_err(), "the limit of answers is over");
            continue;
        }
        let metrics = proxy.admin("/metrics").await;
        assert!(metrics.contains("kagent_proxy_open_streams{route=\"s.ns\"} 1\n"), "{metrics}");
        // By the end of this one the stream has outlived the limit.
        let limited = client.send_request(call(SEND, Some("s.ns"), "application/grpc"));
        let _unanswered = backend.accept().await;
        assert_eq!(field(&limited.await.unwrap(), "x-kagent-proxy-error"), "head_timeout");
        feed.send(Ok(Frame::trailers(trailers("0")))).unwrap();
        drop(feed);
        assert!(stream.frame().await.unwrap().unwrap().is_trailers());
    }
    drop(client);
    proxy.stop().await;
}

/// The status of HTTP is 200 whatever a call has come to: the sight of calls and the log say what gRPC says.
#[tokio::test]
async fn calls_of_a2a_are_counted_by_method_and_code() {
    let mut backend = H2cBackend::start().await;
    let target = format!("s.ns=h2c://127.0.0.1:{}", backend.0);
    let mut program = Program::start(&["--route", &target], &[]).await;
    let mut client = connect(program.address).await;
    for (path, status) in [
        (SEND, Some("0")),
        (SEND, Some("14")),
        (SEND, None),
        ("/a2a.v1.A2AService/TaskSubscription", Some("0")),
        ("/lf.a2a.v1.A2AService/Mine", Some("99")),
        ("/own.Service/SendMessage", Some("0")),
    ] {
        let asked = client.send_request(call(path, Some("s.ns"), "application/grpc"));
        let (_, answer) = backend.accept().await;
        let (feed, body) = script();
        feed.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")))).unwrap();
        if let Some(status) = status {
            feed.send(Ok(Frame::trailers(trailers(status)))).unwrap();
        }
        drop(feed);
        answer.send(begun(body)).ok().unwrap();
        asked.await.unwrap().into_body().collect().await.unwrap();
        let line = program.logs("\"target\":\"access\"").await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let code = status.map(|status| if status == "99" { 2 } else { status.parse().unwrap() });
        assert_eq!(line.get("grpc_status").and_then(serde_json::Value::as_u64), code, "{line}");
        assert_eq!(line["status"], 200, "{line}");
    }
    drop(client);
    let mut admin = TcpStream::connect(program.admin).await.unwrap();
    let metrics = {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let get = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        admin.write_all(get).await.unwrap();
        let mut text = String::new();
        admin.read_to_string(&mut text).await.unwrap();
        text
    };
    let name =
        "kagent_proxy_a2a_operation_duration_seconds_count{route=\"s.ns\",caller=\"unknown\",";
    let mut calls: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix(name)).collect();
    calls.sort_unstable();
    let expected = [
        "a2a_method_name=\"SendMessage\",error_type=\"\"} 1",
        "a2a_method_name=\"SendMessage\",error_type=\"UNAVAILABLE\"} 1",
        "a2a_method_name=\"SendMessage\",error_type=\"unanswered\"} 1",
        "a2a_method_name=\"SubscribeToTask\",error_type=\"\"} 1",
        "a2a_method_name=\"other\",error_type=\"UNKNOWN\"} 1",
    ];
    assert_eq!(calls, expected, "{metrics}");
    assert!(!metrics.contains("kagent_proxy_mcp_operation_duration_seconds_count{"), "{metrics}");
}
