//! What `top`, `tap` and `explain` say of the admin listeners they ask: those of a proxy, and scripted ones.
//!
//! Their screens and keys are tested beside the code, and in a real terminal by `tests/terminal/run.py`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Parser;
use kagent_proxy::admin_client::{AdminClient, Failure, News, follow};
use kagent_proxy::cli::{Cli, Command, TapArgs, TopArgs};
use kagent_proxy::explain::{Question, ask, to_text};
use kagent_proxy::{tap, top};
use tokio::sync::mpsc;

use crate::support::{BOUND, Backend, Client, TestProxy, before, config};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const CALL: &str = "event: call\ndata: {\"at\":\"2026-11-27T18:00:00.123Z\",\"route\":\"tools.team-a\",\"caller\":\
    \"team-a/parent\",\"protocol\":\"mcp\",\"method\":\"tools/call\",\"tool\":\"add\",\"error\":\"\",\"status\":200,\
    \"durationMs\":1.5}\n\n";
const SIGHT: &str = r#"{"at":"2026-11-27T18:00:00.000Z","windowSeconds":60,"totals":{"calls":7,"errors":0,"rate":0.1,
    "errorRate":0,"openRequests":0,"openStreams":0,"routes":1,"refusedRoutes":0},"edges":[{"from":"team-a/parent",
    "to":"tools.team-a","protocol":"mcp","state":"ok","declared":true,"calls":7,"errors":0,"rate":0.1,"errorRate":0,
    "p50Ms":1,"p99Ms":2,"openStreams":0}],"tools":[],"streams":[],"sessions":[],"truncated":false}"#;

fn url(backend: &Backend) -> String {
    format!("http://127.0.0.1:{}", backend.port())
}

fn tap_args(url: &str, flags: &[&str]) -> TapArgs {
    let cli = Cli::try_parse_from(["kagent-proxy", "tap", "--admin", url].iter().chain(flags));
    let Some(Command::Tap(args)) = cli.unwrap().command else { panic!("not tap") };
    args
}

fn top_args(url: &str) -> TopArgs {
    let cli = Cli::try_parse_from(["kagent-proxy", "top", "--once", "--admin", url]);
    let Some(Command::Top(args)) = cli.unwrap().command else { panic!("not top") };
    args
}

/// A stream that has begun, with these bytes; and the head that asked for it.
async fn begin(backend: &Backend, bytes: &str) -> (Client, String) {
    let mut stream = backend.accept().await;
    let head = stream.until("\r\n\r\n").await;
    stream.send(&format!("{EVENTS}{bytes}")).await;
    (stream, head)
}

/// What `tap` writes and notes, with its result.
async fn tapped(args: TapArgs) -> (String, String, Result<(), String>) {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let done = tokio::time::timeout(BOUND, tap::tap(&args, &mut out, &mut notes)).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(notes), done.expect("tap does not end"))
}

fn json_response(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

#[tokio::test]
async fn tap_writes_calls_until_there_were_enough_and_says_what_it_missed() {
    let backend = Backend::start().await;
    let args = tap_args(&url(&backend), &["--caller", "team-a/parent", "--max", "2"]);
    let plays = async {
        let missed = "event: missed\ndata: {\"missed\": 3}\n\n";
        let events = format!(": keep-alive\n\n{CALL}{missed}{CALL}{CALL}");
        begin(&backend, &events).await
    };
    let ((_stream, head), (out, notes, done)) = tokio::join!(plays, tapped(args));
    assert!(head.starts_with("GET /calls?caller=team-a%2Fparent HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", backend.port())), "{head}");
    assert_eq!((out.lines().count(), notes.as_str(), done), (4, "", Ok(())), "{out}");
    assert_eq!(out.matches("team-a/parent").count(), 2, "{out}");
    assert!(out.contains("# 3 calls are missing here"), "{out}");
}

#[tokio::test]
async fn tap_asks_again_when_the_proxy_goes_away_and_says_so() {
    let backend = Backend::start().await;
    let args = tap_args(&url(&backend), &["--output", "json", "--max", "2"]);
    let plays = async {
        drop(begin(&backend, CALL).await);
        begin(&backend, CALL).await
    };
    let (_stream, (out, notes, done)) = tokio::join!(plays, tapped(args));
    assert_eq!((out.lines().count(), done), (2, Ok(())), "{out}");
    assert!(notes.contains("asking again\n") && notes.contains("are not shown\n"), "{notes}");
}

/// A pipe whose reader has gone.
#[derive(Debug)]
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn tap_ends_in_peace_when_nobody_reads_any_more() {
    let backend = Backend::start().await;
    let args = tap_args(&url(&backend), &["--output", "json"]);
    let (mut out, mut notes) = (Closed, Vec::new());
    let tapping = tap::tap(&args, &mut out, &mut notes);
    let both = async { tokio::join!(begin(&backend, CALL), tapping) };
    let (_stream, done) = tokio::time::timeout(BOUND, both).await.expect("it goes on");
    assert_eq!((done, notes), (Ok(()), Vec::new()));
}

#[tokio::test]
async fn a_stream_that_has_lasted_begins_anew_without_a_word() {
    let backend = Backend::start().await;
    let client = AdminClient::new(&url(&backend)).unwrap();
    let (sender, mut news) = mpsc::channel(1);
    let following = tokio::spawn(follow(client, "/sight".to_owned(), BOUND, sender));
    let (stream, _) = begin(&backend, "data: 1\n\n").await;
    let mut heard = async || tokio::time::timeout(BOUND, news.recv()).await.unwrap().unwrap();
    assert_eq!((heard().await, heard().await), (News::Begun, News::Event("1".to_owned())));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    drop(stream);
    let (stream, _) = begin(&backend, "data: 2\n\n").await;
    assert_eq!((heard().await, heard().await), (News::Begun, News::Event("2".to_owned())));
    // One that has not lasted is a failure.
    drop(stream);
    assert!(matches!(heard().await, News::Failed(Failure::Away(_))));
    drop(news);
    tokio::time::timeout(BOUND, following).await.expect("it follows for nobody").unwrap();
}

#[tokio::test]
async fn top_prints_one_moment() {
    let backend = Backend::start().await;
    let args = top_args(&url(&backend));
    let answer = json_response("200 OK", SIGHT);
    let (head, text) = tokio::join!(backend.answer(&answer), top::once(&args));
    assert!(head.starts_with("GET /sight HTTP/1.1\r\n"), "{head}");
    let text = text.unwrap();
    assert!(text.starts_with("calls 7  errors 0  "), "{text}");
    assert!(text.contains("\nteam-a/parent  tools.team-a  mcp       ok "), "{text}");
}

#[tokio::test]
async fn who_is_no_proxy_or_an_older_one_is_told_apart_with_what_to_do() {
    let backend = Backend::start().await;
    let url = url(&backend);
    let empty = json_response("200 OK", "{}");
    let page = json_response("200 OK", "<html>");
    let gone = json_response("404 Not Found", "not found; endpoints: /livez\n");
    let wrong_socket = json_response("403 Forbidden", "/sight is answered on 127.0.0.1:9091 only");
    for (answer, parts) in [
        (&empty, ["does not answer /sight as a kagent-proxy of version", "missing field"]),
        (&page, ["does not answer /sight as a kagent-proxy of version", "expected value"]),
        (&gone, ["refuses /sight: 404 Not Found", "an older kagent-proxy"]),
        (&wrong_socket, ["answered on 127.0.0.1:9091 only", "kubectl port-forward"]),
    ] {
        let args = top_args(&url);
        let (_, said) = tokio::join!(backend.answer(answer), top::once(&args));
        let failure = said.unwrap_err();
        let said = failure.to_string();
        assert!(failure.is_final() && said.starts_with(&url), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    // No event stream, though it says 200.
    let args = tap_args(&url, &[]);
    let (_, (_, _, done)) = tokio::join!(backend.answer(&page), tapped(args));
    let said = done.unwrap_err();
    assert!(said.contains("/calls") && said.contains("no event stream"), "{said}");
    // Nobody at all.
    drop(backend);
    let said = top::once(&top_args(&url)).await.unwrap_err().to_string();
    assert!(said.contains("Connection refused") && said.contains("kubectl port-forward"), "{said}");
    let (_, _, done) = tapped(tap_args(&url, &[])).await;
    assert_eq!(done, Err(said), "tap does not wait for a proxy that was never there");
}

#[tokio::test]
async fn explain_asks_the_socket_that_shows_everything_and_names_it_at_the_other() {
    let backend = Backend::start().await;
    let mut config = config(before(&backend).routes);
    config.admin.address = "0.0.0.0:0".parse().unwrap();
    let proxy = TestProxy::start(config).await;
    let question = Question::from_query("host=s.ns&path=/mcp").unwrap();
    let answer = ask(&format!("http://{}", proxy.local), &question).await.unwrap();
    let target = format!("http://127.0.0.1:{}", backend.port());
    let told = format!("POST /mcp for s.ns goes to {target}\n");
    assert!(to_text(&answer).starts_with(&told), "{answer}");
    let everyones = format!("http://127.0.0.1:{}", proxy.admin.port());
    let said = ask(&everyones, &question).await.unwrap_err().to_string();
    assert!(said.starts_with(&format!("{everyones} refuses /explain: 403 ")), "{said}");
    assert!(said.contains(&format!("answered on {} only", proxy.local)), "{said}");
    proxy.stop().await;
}
