//! The two versions of HTTP on either side: bodies, events, trailers and every kind of end pass over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::Scheme;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::support::{BOUND, Backend, Client, LAST_GET, TestProxy, config, route, start};

/// What D13 allows between one side's end and the other's: an event, not a timing.
const WAKE_UP: Duration = Duration::from_secs(1);

/// A body that says what the scenario tells it to; [`Feed::closed`] tells that nobody reads it. One whose
/// feed is dropped early ends with its last frame.
pub(crate) struct Script(mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>, bool);

pub(crate) type Feed = mpsc::UnboundedSender<io::Result<Frame<Bytes>>>;

pub(crate) fn script() -> (Feed, Script) {
    let (feed, frames) = mpsc::unbounded_channel();
    (feed, Script(frames, false))
}

pub(crate) fn data(feed: &Feed, text: &'static str) {
    feed.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).unwrap();
}

fn trailer(feed: &Feed) {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    feed.send(Ok(Frame::trailers(trailers))).unwrap();
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.0.poll_recv(cx);
        self.1 |= polled.is_ready();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.1 && self.0.is_closed() && self.0.is_empty()
    }
}

pub(crate) type Call = (Request<Incoming>, oneshot::Sender<Response<Script>>);

/// A backend that speaks HTTP/2 only, whose calls the scenario answers.
pub(crate) struct H2cBackend(pub(crate) u16, mpsc::UnboundedReceiver<Call>);

impl H2cBackend {
    pub(crate) async fn start() -> Self {
        Self::limited(200).await
    }

    /// One that takes so many streams on a connection.
    async fn limited(streams: u32) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), streams)
    }

    /// The same, on a socket that has been there before.
    fn on(listener: TcpListener, streams: u32) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (calls, taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let calls = calls.clone();
                let service = hyper::service::service_fn(move |request| {
                    let (answer, answered) = oneshot::channel();
                    let told = calls.send((request, answer));
                    async move {
                        told.map_err(|_| io::Error::other("the scenario is over"))?;
                        answered.await.map_err(io::Error::other)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(streams)
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self(port, taken)
    }

    pub(crate) async fn accept(&mut self) -> Call {
        tokio::time::timeout(BOUND, self.1.recv()).await.expect("no call").unwrap()
    }
}

pub(crate) async fn before_h2c() -> (TestProxy, H2cBackend) {
    let backend = H2cBackend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::H2c, &[backend.0])];
    (TestProxy::start(config(routes)).await, backend)
}

pub(crate) async fn before_h1() -> (TestProxy, Backend, SendRequest<Script>) {
    let (proxy, backend) = start().await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    (proxy, backend, sender)
}

/// A POST over HTTP/2, and what feeds its body.
fn post() -> (Feed, Request<Script>) {
    let (feed, body) = script();
    let request = Request::post("http://p/a?b")
        .header("x-kagent-host", "s.ns")
        .header("trailer", "x-sum")
        .body(body);
    (feed, request.unwrap())
}

pub(crate) fn events() -> (Feed, Response<Script>) {
    let (feed, body) = script();
    let response = Response::builder().header("content-type", "text/event-stream").body(body);
    (feed, response.unwrap())
}

/// The next piece of a body, `None` at its clean end.
async fn piece(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    tokio::time::timeout(BOUND, body.frame()).await.expect("no frame")
}

pub(crate) async fn text(body: &mut Incoming) -> String {
    let frame = piece(body).await.expect("ended").expect("broken");
    String::from_utf8(frame.into_data().expect("no data").to_vec()).unwrap()
}

#[tokio::test]
async fn http1_to_h2c_carries_bodies_and_trailers_both_ways() {
    let (proxy, mut backend) = before_h2c().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST /a?b HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ntransfer-encoding: chunked\r\n\
             te: trailers\r\nconnection: te, x-hop\r\nx-hop: 1\r\ntrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let (request, answer) = backend.accept().await;
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:{}/a?b", backend.0));
    for absent in ["x-hop", "x-kagent-host", "connection", "transfer-encoding", "host"] {
        assert!(!request.headers().contains_key(absent), "{absent} in {:?}", request.headers());
    }
    let body = request.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "abc");
    let (feed, body) = script();
    data(&feed, "ok");
    trailer(&feed);
    drop(feed);
    answer.send(Response::builder().header("trailer", "x-sum").body(body).unwrap()).ok().unwrap();
    let seen = client.until("x-sum: 7\r\n\r\n").await;
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    assert!(seen.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen}");
    drop(client);
    proxy.stop().await;
}

async fn events_over_h2c(proxy: &TestProxy, backend: &mut H2cBackend) -> (Client, Feed) {
    events_for(proxy, backend, "").await
}

/// The same for a GET with these further headers.
async fn events_for(proxy: &TestProxy, backend: &mut H2cBackend, more: &str) -> (Client, Feed) {
    let mut client = proxy.connect().await;
    let get = format!("GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{more}\r\n");
    client.send(&get).await;
    let (request, answer) = backend.accept().await;
    assert!(request.into_body().is_end_stream(), "a GET without a body");
    let (feed, response) = events();
    answer.send(response).ok().unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        data(&feed, event);
        client.until(event).await;
    }
    (client, feed)
}

/// The event is under way when the drain comes: the connection's own task has yet to read it.
#[tokio::test]
async fn a_drain_ends_a_session_s_stream_over_h2c_behind_an_event_that_is_under_way() {
    let (proxy, mut backend) = before_h2c().await;
    let (mut client, feed) = events_for(&proxy, &mut backend, "mcp-session-id: 1\r\n").await;
    data(&feed, "data: 3\n\n");
    proxy.close();
    let seen = client.rest().await;
    assert!(seen.contains("data: 3\n\n") && seen.ends_with("0\r\n\r\n"), "{seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_last_frame_of_an_h2c_backend_is_passed_on_whole_though_a_part_of_it_was_held() {
    let (proxy, mut backend) = before_h2c().await;
    let mut client = proxy.connect().await;
    client.send("GET /sse HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
    let (_request, answer) = backend.accept().await;
    let (feed, response) = events();
    data(&feed, ": ping\n\nevent: endp");
    // The stream ends with that frame.
    drop(feed);
    answer.send(response).ok().unwrap();
    let seen = client.until("0\r\n\r\n").await;
    assert!(seen.contains(": ping\n\n") && seen.contains("event: endp"), "{seen:?}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_the_stream_of_an_h2c_backend_and_no_other() {
    let (proxy, mut backend) = before_h2c().await;
    let (client, feed) = events_over_h2c(&proxy, &mut backend).await;
    let (mut other, other_feed) = events_over_h2c(&proxy, &mut backend).await;
    drop(client);
    tokio::time::timeout(WAKE_UP, feed.closed()).await.expect("no RST_STREAM within a second");
    data(&other_feed, "data: 3\n\n");
    other.until("data: 3\n\n").await;
    drop(other_feed);
    other.until("0\r\n\r\n").await;
    drop(other);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reset_of_an_h2c_backend_is_no_clean_end() {
    let (proxy, mut backend) = before_h2c().await;
    let (mut client, feed) = events_over_h2c(&proxy, &mut backend).await;
    feed.send(Err(io::Error::other("broken"))).unwrap();
    let seen = client.rest().await;
    assert!(!seen.contains("0\r\n\r\n"), "{seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn h2c_to_http1_carries_bodies_and_trailers_both_ways() {
    let (proxy, backend, mut sender) = before_h1().await;
    let (feed, request) = post();
    data(&feed, "abc");
    trailer(&feed);
    drop(feed);
    let answer = async {
        let mut call = backend.accept().await;
        let seen = call.until("x-sum: 7\r\n\r\n").await;
        call.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
             connection: close, x-hop\r\nx-hop: 1\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
        seen
    };
    let (response, seen) = tokio::join!(sender.send_request(request), answer);
    assert!(seen.starts_with("POST /a?b HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen}");
    assert_eq!(seen.matches("\r\nhost: ").count(), 1, "{seen}");
    let response = response.unwrap();
    assert!(!response.headers().contains_key("x-hop"), "{:?}", response.headers());
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "ok");
    drop(sender);
    proxy.stop().await;
}

/// Two streams of one connection: one loses its backend, the other goes on, is left by the client, and
/// its backend sees that.
#[tokio::test]
async fn over_h2c_each_stream_has_an_end_of_its_own() {
    let (proxy, backend, mut sender) = before_h1().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (feed, request) = post();
        drop(feed);
        let answer = async {
            let mut call = backend.accept().await;
            call.until("0\r\n\r\n").await;
            call.send(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                 transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
            )
            .await;
            call
        };
        let (response, call) = tokio::join!(sender.send_request(request), answer);
        let mut body = response.unwrap().into_body();
        assert_eq!(text(&mut body).await, "data: 1\n\n");
        open.push((body, call));
    }
    let (mut body, mut call) = open.pop().unwrap();
    let (mut broken, lost) = open.pop().unwrap();
    drop(lost);
    let end = piece(&mut broken).await;
    assert!(matches!(end, Some(Err(_))), "RST_STREAM, not a clean end: {end:?}");
    call.send("9\r\ndata: 2\n\n\r\n").await;
    assert_eq!(text(&mut body).await, "data: 2\n\n");
    drop(body);
    let end = tokio::time::timeout(WAKE_UP, call.rest()).await;
    assert_eq!(end.expect("not within a second"), "", "the backend sees the client's reset");
    drop(sender);
    proxy.stop().await;
}

#[tokio::test]
async fn more_streams_than_a_connection_takes_get_another_connection() {
    let mut backend = H2cBackend::limited(2).await;
    let proxy = TestProxy::start(config(vec![route("s.ns", "/", Scheme::H2c, &[backend.0])])).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(events_over_h2c(&proxy, &mut backend).await);
    }
    for (client, feed) in &mut open {
        data(feed, "data: here\n\n");
        client.until("data: here\n\n").await;
    }
    let metrics = proxy.admin("/metrics").await;
    let opened = "kagent_proxy_upstream_connections_total{route=\"s.ns\",event=\"opened\"} 3";
    assert!(metrics.contains(opened), "{metrics}");
    drop(open);
    proxy.stop().await;
}

/// A proxy whose dials have time until the scenario lets them in.
async fn patient(port: u16) -> TestProxy {
    let mut route = route("s.ns", "/", Scheme::H2c, &[port]);
    route.to.timeouts.connect = BOUND;
    TestProxy::start(config(vec![route])).await
}

/// Waits until so many requests are under way.
async fn under_way(proxy: &TestProxy, requests: usize) {
    let waiting = format!("kagent_proxy_open_requests{{route=\"s.ns\"}} {requests}\n");
    let all = async { while !proxy.admin("/metrics").await.contains(&waiting) {} };
    tokio::time::timeout(BOUND, all).await.expect("they do not come or do not go");
}

/// Requests that all wait for a connection: the backend accepts none before they are there.
async fn burst(requests: usize) -> (TestProxy, String) {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let proxy = patient(port).await;
    let mut clients = Vec::new();
    for _ in 0..requests {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        clients.push(client);
    }
    under_way(&proxy, requests).await;
    let mut backend = H2cBackend::on(backend, 200);
    // All are open at once.
    let mut calls = Vec::new();
    for _ in 0..requests {
        calls.push(backend.accept().await.1);
    }
    for call in calls {
        let (feed, body) = script();
        drop(feed);
        call.send(Response::new(body)).ok().unwrap();
    }
    for client in &mut clients {
        client.until("0\r\n\r\n").await;
    }
    drop(clients);
    let metrics = proxy.admin("/metrics").await;
    (proxy, metrics)
}

fn opened(count: usize) -> String {
    format!("kagent_proxy_upstream_connections_total{{route=\"s.ns\",event=\"opened\"}} {count}\n")
}

#[tokio::test]
async fn a_burst_to_a_cold_backend_shares_one_dial() {
    let (proxy, metrics) = burst(40).await;
    assert!(metrics.contains(&opened(1)), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_burst_of_more_streams_than_a_connection_carries_gets_one_dial_more() {
    let (proxy, metrics) = burst(150).await;
    assert!(metrics.contains(&opened(2)), "{metrics}");
    proxy.stop().await;
}

/// The kernel takes the connections, and nobody speaks HTTP/2 there: who waits for another one's dial has a deadline too.
#[tokio::test]
async fn a_burst_to_a_silent_backend_waits_no_longer_than_the_deadline() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut route = route("s.ns", "/", Scheme::H2c, &[backend.local_addr().unwrap().port()]);
    route.to.timeouts.connect = Duration::from_millis(300);
    let proxy = TestProxy::start(config(vec![route])).await;
    let asks = (0..5).map(|_| proxy.ask(LAST_GET));
    for answer in futures_util::future::join_all(asks).await {
        assert!(answer.starts_with("HTTP/1.1 504 connect_timeout\r\n"), "{answer}");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains(&opened(0)), "{metrics}");
    proxy.stop().await;
}

/// A stream that has to wait for another one's end would wait for ever behind an event stream.
#[tokio::test]
async fn a_burst_heeds_the_backend_s_limit_of_streams() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let proxy = patient(port).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        clients.push(client);
    }
    under_way(&proxy, 5).await;
    let mut backend = H2cBackend::on(backend, 1);
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(backend.accept().await);
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains(&opened(5)), "{metrics}");
    drop((clients, calls));
    proxy.stop().await;
}

#[tokio::test]
async fn who_dials_for_others_may_leave() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let proxy = patient(port).await;
    let get = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
    let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
    for (client, open) in [(&mut first, 1), (&mut second, 2)] {
        client.send(get).await;
        under_way(&proxy, open).await;
    }
    drop(first);
    under_way(&proxy, 1).await;
    let mut backend = H2cBackend::on(backend, 200);
    let (feed, body) = script();
    drop(feed);
    backend.accept().await.1.send(Response::new(body)).ok().unwrap();
    second.until("0\r\n\r\n").await;
    drop(second);
    proxy.stop().await;
}

async fn whole(body: Incoming) -> http_body_util::Collected<Bytes> {
    tokio::time::timeout(BOUND, body.collect()).await.expect("no end").expect("broken")
}

/// What frames a message, and what says where it goes or came from, stands in a head only.
#[tokio::test]
async fn trailers_carry_no_framing_and_no_origin_either_way() {
    let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    };
    let fields = [
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("x-kagent-host", "other.ns"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-sum", "7"),
    ];
    let trailers: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let left = map(&[("x-sum", "7")]);
    let (proxy, mut backend) = before_h2c().await;
    let mut client = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nte: trailers\r\n\
                connection: te\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
    client.send(&format!("{head}{trailers}\r\n")).await;
    let (request, answer) = backend.accept().await;
    let body = whole(request.into_body()).await;
    assert_eq!(body.trailers().unwrap(), &left);
    let (feed, body) = script();
    // h2 itself takes no Transfer-Encoding.
    let fields: Vec<_> =
        fields.into_iter().filter(|(name, _)| *name != "transfer-encoding").collect();
    feed.send(Ok(Frame::trailers(map(&fields)))).unwrap();
    drop(feed);
    let announced = Response::builder().header("trailer", "content-length, x-kagent-host, x-sum");
    answer.send(announced.body(body).unwrap()).ok().unwrap();
    let seen = client.until("x-sum: 7\r\n\r\n").await;
    assert!(seen.ends_with("\r\n\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen:?}");
    drop(client);
    proxy.stop().await;

    let (proxy, backend, mut sender) = before_h1().await;
    let (feed, request) = post();
    drop(feed);
    let response = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\
         {trailers}x-kagent-proxy-error: loop\r\n\r\n"
    );
    let answer = async {
        let mut call = backend.accept().await;
        call.until("0\r\n\r\n").await;
        call.send(&response).await;
    };
    let (response, ()) = tokio::join!(sender.send_request(request), answer);
    let body = whole(response.unwrap().into_body()).await;
    assert_eq!(body.trailers().unwrap(), &left);
    drop(sender);
    proxy.stop().await;
}
