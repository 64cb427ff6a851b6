//! How hyper reads each request, one line of JSON for each: a backend of `tests/framing/run.py`.
//!
//! Only whole messages are told. Knows nothing of the proxy; prints its port first.

use std::io::Write;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
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

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
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
    Ok(Response::new(Full::new(Bytes::from_static(b"{}"))))
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
