//! How large a response's headers may be: the same over both versions of HTTP, and named when it is more.

use std::io;

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::{Config, Scheme};
use tokio::net::TcpListener;

use crate::support::{Backend, LAST_GET, TestProxy, config, route};

/// So many fields, and so many bytes in the last one.
type Fields = (usize, usize);

fn fields((count, bytes): Fields) -> Vec<(String, String)> {
    let mut all: Vec<_> = (1..count).map(|n| (format!("x-{n}"), "1".to_owned())).collect();
    all.push(("x-last".to_owned(), "y".repeat(bytes)));
    all
}

/// What a client reads of an HTTP/1.1 backend's response with these fields.
async fn over_http1(sent: Fields, change: impl FnOnce(&mut Config)) -> String {
    let backend = Backend::start().await;
    let proxy = TestProxy::to_with(&backend, change).await;
    let head: String = fields(sent).iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let response = format!("HTTP/1.1 204 No Content\r\n{head}\r\n");
    let (answer, _) = tokio::join!(proxy.ask(LAST_GET), backend.answer(&response));
    proxy.stop().await;
    answer
}

/// The same of an h2c backend.
async fn over_http2(sent: Fields, change: impl FnOnce(&mut Config)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let stream = TokioIo::new(listener.accept().await.unwrap().0);
        let service = hyper::service::service_fn(|_: http::Request<hyper::body::Incoming>| {
            let mut response = Response::builder().status(204);
            for (name, value) in fields(sent) {
                response = response.header(name, value);
            }
            std::future::ready(response.body(Empty::<Bytes>::new()).map_err(io::Error::other))
        });
        let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(stream, service)
            .await;
    });
    let mut config = config(vec![route("s.ns", "/", Scheme::H2c, &[port])]);
    change(&mut config);
    let proxy = TestProxy::start(config).await;
    let answer = proxy.ask(LAST_GET).await;
    proxy.stop().await;
    serving.abort();
    answer
}

fn passed(answer: &str, (count, bytes): Fields) -> bool {
    let named = answer.lines().filter(|line| line.starts_with("x-")).count();
    answer.starts_with("HTTP/1.1 204 ") && named == count && answer.len() > bytes
}

fn refused(answer: &str, limits: [&str; 2]) -> bool {
    let [bytes, fields] = limits;
    answer.starts_with("HTTP/1.1 502 upstream_protocol\r\n")
        && answer.contains(&format!("larger than {bytes} bytes (upstream.maxHeadBytes)"))
        && answer.contains(&format!("or {fields} fields (upstream.maxHeadFields)"))
}

#[tokio::test]
async fn by_default_a_response_may_have_as_many_fields_as_a_request_and_twice_its_bytes() {
    for sent in [(1, 80 * 1024), (1, 120 * 1024), (120, 100)] {
        let answer = over_http1(sent, |_| {}).await;
        assert!(passed(&answer, sent), "{sent:?}: {answer}");
        let answer = over_http2(sent, |_| {}).await;
        assert!(passed(&answer, sent), "{sent:?} over HTTP/2: {answer}");
    }
    for sent in [(1, 130 * 1024), (129, 100)] {
        let limits = ["131072", "128"];
        let answer = over_http1(sent, |_| {}).await;
        assert!(refused(&answer, limits), "{sent:?}: {answer}");
        let answer = over_http2(sent, |_| {}).await;
        assert!(refused(&answer, limits), "{sent:?} over HTTP/2: {answer}");
    }
}

#[tokio::test]
async fn the_limits_can_be_set() {
    let smaller = |config: &mut Config| {
        (config.upstream.max_head_bytes, config.upstream.max_head_fields) = (1000, 20);
    };
    let larger = |config: &mut Config| {
        (config.upstream.max_head_bytes, config.upstream.max_head_fields) = (400 * 1024, 500);
    };
    for sent in [(1, 900), (18, 100)] {
        assert!(passed(&over_http1(sent, smaller).await, sent), "{sent:?}");
        assert!(passed(&over_http2(sent, smaller).await, sent), "{sent:?} over HTTP/2");
    }
    for sent in [(1, 1000), (21, 100)] {
        let limits = ["1000", "20"];
        let answer = over_http1(sent, smaller).await;
        assert!(refused(&answer, limits), "{sent:?}: {answer}");
        let answer = over_http2(sent, smaller).await;
        assert!(refused(&answer, limits), "{sent:?} over HTTP/2: {answer}");
    }
    let sent = (450, 350 * 1024);
    assert!(passed(&over_http1(sent, larger).await, sent));
    assert!(passed(&over_http2(sent, larger).await, sent), "over HTTP/2");
}
