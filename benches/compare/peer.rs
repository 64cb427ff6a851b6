//! Both ends of a measurement in one process and one thread: a backend, and clients in front of a proxy.
//!
//! Reads commands from standard input, writes one JSON line for each; knows nothing of the proxies.
//! Raw HTTP/1.1 on tokio sockets, so that the peer costs less than what it measures. `run.py` drives it:
//! `load PORT CONNECTIONS REQUESTS`, `rate PORT CONNECTIONS REQUESTS PER_SECOND`, `events PORT STREAMS EVENTS`, `hold PORT STREAMS`, `release`.
//! Events are in lock-step: a stream's next one is sent when its client has read the last one, so that
//! each costs the proxy a wake-up and none is merged with another.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails has to stop"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// Nothing takes longer: a proxy that hangs ends the run.
const BOUND: Duration = Duration::from_secs(30);
const EVENT: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\
    \"params\":{\"progressToken\":1,\"progress\":42,\"message\":\"reading the logs of the pod\"}}\n\n";
const ANSWER: &str = "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"3 pods are ready\"}]}}";

/// Streams by number: the client says here that it has read the last event.
type Steps = Arc<Mutex<HashMap<usize, Arc<Notify>>>>;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let steps = Steps::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        tokio::spawn(backend(listener, Arc::clone(&steps)));
        let mut held = JoinSet::new();
        let mut lines = commands();
        while let Some(line) = lines.recv().await {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).map_or(0, |word| word.parse().unwrap());
            let port = u16::try_from(number(1)).unwrap();
            match words.first() {
                Some(&"load") => load(port, number(2), number(3), None).await,
                Some(&"rate") => load(port, number(2), number(3), Some(number(4))).await,
                Some(&"events") => events(port, number(2), number(3), &steps).await,
                Some(&"hold") => hold(port, number(2), &steps, &mut held).await,
                Some(&"release") => {
                    held.shutdown().await;
                    println!("{{}}");
                }
                _ => println!("{{\"error\":\"unknown command\"}}"),
            }
        }
    });
}

/// Lines of standard input, which only a thread of its own may wait for.
fn commands() -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let _runtime_may_be_gone = sender.send(line.unwrap());
        }
    });
    receiver
}

// === The backend ===

async fn backend(listener: TcpListener, steps: Steps) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        tokio::spawn(serve(stream, Arc::clone(&steps)));
    }
}

/// One connection: a GET is an event stream, anything else gets the answer.
async fn serve(mut stream: TcpStream, steps: Steps) -> Option<()> {
    let mut buffer = Vec::with_capacity(4096);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    loop {
        let head = message(&mut stream, &mut buffer).await?;
        match head.strip_prefix("GET /events/") {
            Some(rest) => {
                let (number, rest) = rest.split_once('/')?;
                let (count, _) = rest.split_once(' ')?;
                let step = Arc::clone(steps.lock().ok()?.get(&number.parse().ok()?)?);
                stream_events(&mut stream, &step, count.parse().ok()?).await?;
            }
            None => stream.write_all(answer.as_bytes()).await.ok()?,
        }
    }
}

async fn stream_events(stream: &mut TcpStream, step: &Notify, count: usize) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    let chunk = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
    for _ in 0..count {
        step.notified().await;
        stream.write_all(chunk.as_bytes()).await.ok()?;
    }
    step.notified().await;
    stream.write_all(b"0\r\n\r\n").await.ok()
}

/// Reads one head and its body, and returns the head; keeps what comes behind in `buffer`.
async fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    let mut from = 0;
    loop {
        if let Some(end) = find(buffer.get(from..)?, b"\r\n\r\n") {
            let end = from + end + 4;
            let head = String::from_utf8_lossy(buffer.get(..end)?).into_owned();
            let whole = end + content_length(&head);
            while buffer.len() < whole {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            buffer.drain(..whole);
            return Some(head);
        }
        from = buffer.len().saturating_sub(3);
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn content_length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

// === The clients ===

fn post() -> String {
    let text = "which pods of the namespace are not ready, and why? ".repeat(11);
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{{\"name\":\"kubectl\",\
         \"arguments\":{{\"question\":\"{text}\"}}}}}}"
    );
    format!(
        "POST /mcp HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: tools.team-a\r\naccept: application/json, \
         text/event-stream\r\ncontent-type: application/json\r\nuser-agent: peer\r\nmcp-session-id: \
         0123456789abcdef\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Requests one after the other on each connection: at once, or so many a second on all connections together,
/// which take turns. A turn that comes while an answer is waited for is late; its time counts from the turn.
async fn load(port: u16, connections: usize, requests: usize, rate: Option<usize>) {
    let request: Arc<str> = post().into();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..connections {
        let (request, each) = (Arc::clone(&request), requests / connections);
        running.spawn(async move {
            let mut stream = connect(port).await;
            let (mut buffer, mut times) = (Vec::with_capacity(4096), Vec::with_capacity(each));
            for turn in 0..each {
                let mut sent = Instant::now();
                if let Some(rate) = rate {
                    let at = (turn * connections + number) as f64 / rate as f64;
                    sent = started + Duration::from_secs_f64(at);
                    tokio::time::sleep_until(sent.into()).await;
                }
                stream.write_all(request.as_bytes()).await.unwrap();
                let head = message(&mut stream, &mut buffer).await.expect("an answer");
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                times.push(sent.elapsed().as_nanos());
            }
            times
        });
    }
    let all = tokio::time::timeout(BOUND, running.join_all()).await.expect("answers in time");
    let mut times: Vec<u128> = all.into_iter().flatten().collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
    println!(
        "{{\"done\":{},\"seconds\":{},\"p50\":{},\"p99\":{}}}",
        times.len(),
        started.elapsed().as_secs_f64(),
        at(50),
        at(99)
    );
}

/// Opens one stream and returns it once its head is there; events go on in the backend's steps.
async fn open(port: u16, number: usize, count: usize, steps: &Steps) -> (TcpStream, Arc<Notify>) {
    let step = Arc::new(Notify::new());
    steps.lock().unwrap().insert(number, Arc::clone(&step));
    let mut stream = connect(port).await;
    let request = format!(
        "GET /events/{number}/{count} HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: tools.team-a\r\n\
         accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // No event before the first step, so that nothing can come behind the head.
    let mut head = Vec::new();
    while find(&head, b"\r\n\r\n").is_none() {
        let read = tokio::time::timeout(BOUND, stream.read_buf(&mut head)).await;
        assert_ne!(read.expect("a head in time").unwrap(), 0, "closed before the head");
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    (stream, step)
}

/// Asks for the next event and reads it: its data ends in a blank line, whatever frames it.
async fn next(stream: &mut TcpStream, step: &Notify, buffer: &mut Vec<u8>) {
    step.notify_one();
    buffer.clear();
    // The blank line; the chunk's own line end may come with what follows.
    while find(buffer, b"\n\n").is_none() {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "closed before the event");
    }
}

async fn events(port: u16, streams: usize, events: usize, steps: &Steps) {
    let each = events / streams;
    let mut opened = Vec::new();
    for number in 0..streams {
        opened.push(open(port, number, each, steps).await);
    }
    println!("{{}}");
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (mut stream, step) in opened {
        running.spawn(async move {
            let mut buffer = Vec::with_capacity(4096);
            for _ in 0..each {
                next(&mut stream, &step, &mut buffer).await;
            }
            (stream, step)
        });
    }
    let kept = tokio::time::timeout(BOUND, running.join_all()).await.expect("events in time");
    println!("{{\"done\":{},\"seconds\":{}}}", each * kept.len(), started.elapsed().as_secs_f64());
}

/// Opens streams, reads one event from each, and leaves them open.
async fn hold(port: u16, streams: usize, steps: &Steps, held: &mut JoinSet<()>) {
    let mut buffer = Vec::new();
    for number in 0..streams {
        let (mut stream, step) = open(port, number, 2, steps).await;
        next(&mut stream, &step, &mut buffer).await;
        held.spawn(async move {
            let _end = stream.read(&mut [0; 64]).await;
        });
    }
    println!("{{\"done\":{streams}}}");
}
