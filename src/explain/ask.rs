//! Asks a running proxy's admin listener for `/explain`.
//!
//! One plain-text GET on one connection; the admin listener speaks no TLS.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Question;

/// For the whole exchange: the answer is made from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// What the proxy at `admin` (such as `http://127.0.0.1:9091`) says.
///
/// # Errors
/// Says what is wrong with the URL, or why there is no answer.
pub async fn ask(admin: &str, question: &Question) -> Result<Value, String> {
    let uri: Uri = admin.parse().map_err(|_| not_admin(admin))?;
    let plain = uri.scheme_str().is_none_or(|scheme| scheme == "http");
    let authority = uri.authority().filter(|_| plain).ok_or_else(|| not_admin(admin))?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let request = Request::get(format!("/explain?{}", question.to_query()))
        .header(header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = exchange((host, port), request);
    let (status, body) = match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("{admin} does not answer: {error}")),
        Err(_) => return Err(format!("{admin} does not answer within {PATIENCE:?}")),
    };
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        return Err(format!("{admin} refuses: {status}: {}", text.trim_end()));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{admin} is no kagent-proxy: {error}"))
}

fn not_admin(text: &str) -> String {
    format!("{text:?} is not the URL of an admin listener; write one such as http://127.0.0.1:9091")
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    address: (&str, u16),
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven beside the answer and may end first, its last bytes already handed on.
    tokio::select! {
        answer = answer.as_mut() => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
