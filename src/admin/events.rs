//! Event streams of the admin API: so many at once, each with a comment now and then, until the program ends.
//!
//! A handler gives the events, and [`Streams::open`] makes the answer. The stream is polled as fast as its reader takes
//! events, so it has to say itself what it left out. Knows no event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answer::busy;
use super::serve::Lasting;

/// At once, on both sockets: less than a socket has connections, for each stream keeps one.
const AT_ONCE: u32 = 32;
/// Between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a reader may take to hear of the end.
const GOODBYE: Duration = Duration::from_millis(100);

/// The streams that are open; clones share them.
#[derive(Clone, Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    end: CancellationToken,
}

// === impl Streams ===

impl Default for Streams {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE as usize));
        Self { places, end: CancellationToken::new() }
    }
}

impl Streams {
    /// An answer that lasts as long as `events`, and is 503 where all places are taken. The events are dropped when the
    /// client is gone.
    #[must_use]
    pub fn open(&self, events: impl Stream<Item = Event> + Send + 'static) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return busy(format!("{AT_ONCE} event streams are open; close one and ask again\n"));
        };
        let events = events.take_until(self.end.clone().cancelled_owned()).map(move |event| {
            let _until_the_end = &place;
            Ok::<_, Infallible>(event)
        });
        let alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
        let mut answer = Sse::new(events).keep_alive(alive).into_response();
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer.extensions_mut().insert(Lasting);
        answer
    }

    /// Ends all of them, and every one that is opened later, as streams end and not as connections break. Returns when
    /// each has said so, or soon.
    pub async fn end(&self) {
        self.end.cancel();
        let _who_does_not_read_is_cut =
            tokio::time::timeout(GOODBYE, self.places.acquire_many(AT_ONCE)).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures_util::stream;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::broadcast;
    use tokio::time::Instant;

    use super::super::layers::{bounded, outer};
    use super::super::limit::Limit;
    use super::super::serve::{Bounds, serve};
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);
    const SOON: Duration = Duration::from_millis(20);

    /// A server of one stream, of the numbers that are sent to it, and of one short answer.
    struct Server {
        address: std::net::SocketAddr,
        numbers: broadcast::Sender<u32>,
        streams: Streams,
    }

    impl Server {
        /// With room for one answer at once.
        async fn start(bounds: Bounds) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, streams) = (listener.local_addr().unwrap(), Streams::default());
            let (numbers, opened) = (broadcast::channel(8).0, streams.clone());
            let source = numbers.clone();
            let events = get(async move || {
                let told = stream::unfold(
                    source.subscribe(),
                    async |mut numbers: broadcast::Receiver<u32>| {
                        let number = numbers.recv().await.ok()?;
                        Some((Event::default().event("number").data(number.to_string()), numbers))
                    },
                );
                opened.open(told)
            });
            let long = get(async || "long".repeat(1024));
            let router = Router::new().route("/events", events).route("/long", long);
            let router = outer(bounded(router, &Limit::new(1)));
            tokio::spawn(async move { serve(&listener, bounds, router).await });
            Self { address, numbers, streams }
        }

        async fn ask(&self, path: &str) -> TcpStream {
            let mut client = TcpStream::connect(self.address).await.unwrap();
            let fields = "host: a\r\naccept-encoding: gzip\r\n";
            let request = format!("GET {path} HTTP/1.1\r\n{fields}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            client
        }

        async fn open(&self) -> TcpStream {
            let mut client = self.ask("/events").await;
            let head = until(&mut client, "\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
            assert!(head.contains("cache-control: no-store\r\n"), "{head}");
            assert!(!head.contains("content-encoding"), "{head}");
            client
        }
    }

    async fn until(client: &mut TcpStream, end: &str) -> String {
        let mut all = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&all).contains(end) {
                assert_ne!(client.read_buf(&mut all).await.unwrap(), 0, "no {end:?}");
            }
        };
        tokio::time::timeout(BOUND, read).await.unwrap_or_else(|_| panic!("no {end:?}"));
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn streams_have_places_of_their_own_which_those_who_leave_give_back() {
        let server = Server::start(Bounds::default()).await;
        let mut open = Vec::new();
        for _ in 0..AT_ONCE {
            open.push(server.open().await);
        }
        let refused = until(&mut server.ask("/events").await, "ask again\n").await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(refused.contains("\r\n\r\n32 event streams are open; close one"), "{refused}");
        assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
        // The one place for answers is free, and those are compressed.
        let answer = server.ask("/long").await;
        let mut head = Vec::new();
        tokio::io::BufReader::new(answer).take(150).read_to_end(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("encoding: gzip"), "{head}");
        server.numbers.send(7).unwrap();
        for client in &mut open {
            let event = until(client, "\n\n").await;
            assert!(event.contains("event: number\ndata: 7\n\n"), "{event}");
        }
        open.pop();
        let free = async {
            while until(&mut server.ask("/events").await, "\r\n").await.contains(" 503 ") {}
        };
        tokio::time::timeout(BOUND, free).await.expect("no place is given back");
    }

    /// The bound on the life of a connection is for those without a stream.
    #[tokio::test]
    async fn a_stream_outlives_its_connections_time_and_the_end_is_clean() {
        let bounds = Bounds { life: SOON, head: SOON, ..Bounds::default() };
        let server = Server::start(bounds).await;
        let mut client = server.open().await;
        // Opened later, and over, several times.
        for _ in 0..5 {
            let mut idle = TcpStream::connect(server.address).await.unwrap();
            let mut nothing = Vec::new();
            let _a_reset_is_an_end = idle.read_to_end(&mut nothing).await;
        }
        server.numbers.send(8).unwrap();
        assert!(until(&mut client, "\n\n").await.contains("data: 8\n\n"));
        server.streams.end().await;
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "0\r\n\r\n", "the chunk that ends a response");
        let mut late = server.ask("/events").await;
        until(&mut late, "\r\n\r\n0\r\n\r\n").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_every_15_seconds_that_it_lives() {
        let streams = Streams::default();
        let mut body = streams.open(stream::pending()).into_body();
        let began = Instant::now();
        for seconds in [15, 30] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), ": keep-alive\n\n");
            assert_eq!(Instant::now() - began, Duration::from_secs(seconds));
        }
        let reader: Body = body;
        let began = Instant::now();
        streams.end().await;
        assert_eq!(Instant::now() - began, GOODBYE, "nobody reads this one");
        drop(reader);
        streams.end().await;
        assert_eq!(Instant::now() - began, GOODBYE, "nothing to wait for");
    }
}
