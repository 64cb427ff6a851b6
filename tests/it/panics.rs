//! What a panic in the body of a response costs: one stream, of a connection that carries another one.
//!
//! The panic is a real one, in the running program. A route's keep-alive time is as long as the clock has room for, and a
//! few seconds later there is none: the sum of both overflows, in the poll that finds the stream silent. No
//! configuration file can say such a time.

use std::io::Write;
use std::time::Duration;

use kagent_proxy::config::{Config, LogConfig, LogFormat, Scheme};
use kagent_proxy::telemetry;
use kagent_proxy::telemetry::log::Log;
use tokio::time::Instant;

use crate::support::frames::{
    DATA, END_STREAM, Frames, HEADERS, INTERNAL_ERROR, RST_STREAM, get, request,
};
use crate::support::{BOUND, Backend, TestProxy, config, route};

/// The time that is left from `slack` later on until the clock's end.
fn rest_of_the_clock(slack: Duration) -> Duration {
    let from = Instant::now() + slack;
    let (mut fits, mut overflows) = (0, u64::MAX);
    while overflows - fits > 1 {
        let middle = fits + (overflows - fits) / 2;
        match from.checked_add(Duration::from_secs(middle)) {
            Some(_) => fits = middle,
            None => overflows = middle,
        }
    }
    Duration::from_secs(fits)
}

/// Plays it, and returns the metrics.
async fn play() -> String {
    let (good, bad) = (Backend::start().await, Backend::start().await);
    let mut routes = vec![
        route("s.ns", "/", Scheme::Http, &[good.port()]),
        route("s.ns", "/bad", Scheme::Http, &[bad.port()]),
    ];
    routes[1].to.timeouts.stream.idle = Some(Duration::from_secs(1));
    routes[1].to.keep_alive = rest_of_the_clock(Duration::from_secs(3));
    let proxy = TestProxy::start(config(routes)).await;
    let mut client = Frames::connect(&proxy).await;
    // :method GET, :scheme http, :path.
    client.ask(1, &request(&[&[0x82, 0x86, 0x04, 4], &b"/bad"[..]].concat())).await;
    let mut call = bad.accept().await;
    call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
    let head = client.until(HEADERS).await;
    assert_eq!((head.stream, head.payload[0]), (1, 0x88), ":status 200");
    client.ask(3, &get()).await;
    let mut other = good.accept().await;
    other.until("\r\n\r\n").await;
    other.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nfirst").await;
    let events = tokio::spawn(async move {
        // Silence is what ends in the panic, short enough that the stream is not idle.
        while call.0.try_write(b"data: x\n\n").is_ok() {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    });
    let reset = async {
        let mut whole = Vec::new();
        loop {
            let frame = client.next().await.expect("the connection has ended");
            client.answer(&frame).await;
            match (frame.stream, frame.kind) {
                (1, RST_STREAM) => {
                    assert_eq!(frame.payload, INTERNAL_ERROR.to_be_bytes());
                    return whole;
                }
                (1, DATA) => assert_eq!(frame.flags & END_STREAM, 0, "a clean end"),
                (3, DATA) => whole.extend(frame.payload),
                _ => {}
            }
        }
    };
    let mut whole = tokio::time::timeout(BOUND, reset).await.expect("no panic");
    assert_eq!(whole, b"first");
    other.send("whole").await;
    let last = client.until(DATA).await;
    assert_eq!((last.stream, last.flags & END_STREAM), (3, END_STREAM));
    whole.extend(last.payload);
    assert_eq!(whole, b"firstwhole");
    // The next one on the same connection.
    client.ask(5, &get()).await;
    let (_, head) =
        tokio::join!(good.answer("HTTP/1.1 204 No Content\r\n\r\n"), client.until(HEADERS));
    assert_eq!((head.stream, head.payload[0]), (5, 0x89), ":status 204");
    tokio::time::timeout(BOUND, events).await.expect("its backend is let go").unwrap();
    let metrics = proxy.admin("/metrics").await;
    drop(client);
    proxy.stop().await;
    metrics
}

#[test]
fn a_panic_in_a_body_costs_its_stream_only_and_is_counted_and_logged_with_its_place() {
    const CHILD: &str = "PANICS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let log = Log::standard_error().unwrap();
        let config = LogConfig { format: LogFormat::Json, ..Config::sidecar().log };
        telemetry::start_logging(&config, log.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = runtime.block_on(play());
        std::io::stdout().write_all(metrics.as_bytes()).unwrap();
        assert!(log.flush(BOUND));
        return;
    }
    // A hook belongs to the whole process, so this test has one of its own.
    let name =
        "panics::a_panic_in_a_body_costs_its_stream_only_and_is_counted_and_logged_with_its_place";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let metrics = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{metrics}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("\"panic\"")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(line["level"], "ERROR", "{line}");
    assert!(line["reason"].as_str().unwrap().contains("overflow"), "{line}");
    let place: Vec<_> = line["place"].as_str().unwrap().rsplitn(3, ':').collect();
    assert!(place[2].ends_with(".rs"), "{line}");
    assert!(place[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{line}");
    for counted in [
        "kagent_proxy_panics_total 1\n",
        "class=\"stream\",status=\"200\",outcome=\"refused\"} 1\n",
    ] {
        assert!(metrics.contains(counted), "no {counted} in {metrics}");
    }
}
