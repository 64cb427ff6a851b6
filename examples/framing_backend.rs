//! How hyper reads each request, one line of JSON for each, and how it ends responses: those below `/respond/` are what
//! the path names. A backend of `tests/framing/run.py`.
//!
//! Only whole messages are told. Knows nothing of the proxy; prints its port first.

use std::io::Write;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// In one write, so that lines of two connections do not mix.
fn say(text: &str) {
    // Without a reader there is nobody to tell.
    let _told = std::io::stdout().write_all(format!("{text}\n").as_bytes());
}

type Piece = Result<Frame<Bytes>, std::io::Error>;
type Pieces = StreamBody<Pin<Box<dyn Stream<Item = Piece> + Send>>>;
type Answer = Response<Either<Full<Bytes>, Pieces>>;

fn data(text: &str) -> Piece {
    Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
}

/// A response of this kind, in pieces.
fn respond(kind: &str) -> Answer {
    let mut frames: Vec<Piece> = match kind {
        "empty" | "no-content" | "not-modified" => Vec::new(),
        "large" => (0..20).map(|_| data(&"0123456789abcdef".repeat(1000))).collect(),
        "cut-length" | "cut-chunked" => vec![data("hel")],
        _ => vec![data("hel"), data("lo")],
    };
    let mut builder = Response::builder().header("x-kind", kind);
    builder = builder.header("x-twice", "1").header("x-twice", "2");
    builder = match kind {
        "not-found" => builder.status(StatusCode::NOT_FOUND),
        "no-content" => builder.status(StatusCode::NO_CONTENT),
        "not-modified" => builder.status(StatusCode::NOT_MODIFIED),
        "closing" => builder.header("connection", "close"),
        "trailers" => builder.header("trailer", "x-sum"),
        _ => builder,
    };
    builder = match kind {
        "length" | "not-found" | "closing" | "cut-length" => builder.header("content-length", 5),
        "empty" => builder.header("content-length", 0),
        _ => builder,
    };
    if kind == "trailers" {
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("7"),
        )]);
        frames.push(Ok(Frame::trailers(trailers)));
    }
    if kind.starts_with("cut-") {
        frames.push(Err(std::io::Error::other("cut off")));
    }
    // Each goes out before the next one is there.
    let pieces = stream::iter(frames).then(|piece| async move {
        tokio::task::yield_now().await;
        piece
    });
    let body = StreamBody::new(Box::pin(pieces) as Pin<Box<dyn Stream<Item = Piece> + Send>>);
    let fallback = |_| Response::new(Either::Left(Full::default()));
    builder.body(Either::Right(body)).unwrap_or_else(fallback)
}

async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if let Some(kind) = head.uri.path().strip_prefix("/respond/") {
        return Ok(respond(kind));
    }
    let mut headers = Map::new();
    for name in head.headers.keys().filter(|name| name.as_str().starts_with("x-test-")) {
        let values = head.headers.get_all(name).iter();
        let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        headers.insert(name.to_string(), Value::String(values.join(", ")));
    }
    let seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    say(&seen.to_string());
    Ok(Response::new(Either::Left(Full::new(Bytes::from_static(b"{}")))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.port().to_string());
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(answer);
            // A broken request ends its connection, which is what is tested.
            let _ended =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
