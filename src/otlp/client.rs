//! One receiver of spans, and the connection to it that is kept: OTLP over HTTP/1.1, or gRPC over HTTP/2.
//!
//! A batch in, and what became of it. Never repeats one, and knows no span.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri, uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::encode;
use crate::config::{OtlpProtocol, TracesConfig, headers_of};
use crate::tls;

/// For one batch, with the dial if there is one (`OTEL_EXPORTER_OTLP_TIMEOUT`'s default).
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// The method of OTLP's service.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It may be taken later (OTLP, "Failures").
    #[error("{0}")]
    ForNow(String),
    /// It will never be.
    #[error("{0}")]
    ForGood(String),
}

/// A receiver.
#[derive(Debug)]
pub(super) struct Client {
    config: TracesConfig,
    endpoint: Uri,
    open: Option<Open>,
}

/// A connection; dropped with what drives it.
#[derive(Debug)]
struct Open {
    sender: Sender,
    _driven: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

type Error = Box<dyn std::error::Error + Send + Sync>;

// === impl Client ===

impl Client {
    /// Nothing is dialled yet.
    pub(super) fn new(config: &TracesConfig, endpoint: &Uri) -> Self {
        Self { config: config.clone(), endpoint: endpoint.clone(), open: None }
    }

    /// The headers of the configuration, from their file as it is now: it may be changed at any time.
    ///
    /// # Errors
    /// Says what is wrong with it, and not what is in it.
    pub(super) fn headers(config: &TracesConfig) -> Result<HeaderMap, String> {
        let Some(secret) = &config.headers else { return Ok(HeaderMap::new()) };
        let bytes = tls::read(secret, "headers").map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| "headersFile is no text".to_owned())?;
        headers_of(&text).map_err(|reason| format!("headersFile {reason}"))
    }

    /// Sends a batch. Returns how many of its spans were not taken, and why.
    ///
    /// # Errors
    /// None of them was taken.
    pub(super) async fn send(&mut self, batch: Bytes) -> Result<(u64, String), Failure> {
        let headers = Self::headers(&self.config).map_err(Failure::ForNow)?;
        let exchange = self.exchange(headers, batch);
        let answer = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.open = None;
                return Err(Failure::ForNow(error.to_string()));
            }
            Err(_) => {
                self.open = None;
                return Err(Failure::ForNow(format!("there is no answer within {PATIENCE:?}")));
            }
        };
        match self.config.protocol {
            OtlpProtocol::Http => taken(&answer),
            OtlpProtocol::Grpc => taken_by_grpc(&answer),
        }
    }

    async fn exchange(&mut self, headers: HeaderMap, batch: Bytes) -> Result<Answer, Error> {
        let request = request(&self.config, &self.endpoint, headers, batch)?;
        let mut open = match self.open.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => Box::pin(dial(&self.config, &self.endpoint)).await?,
        };
        let response = match &mut open.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let answer = Answer::read(response).await?;
        self.open = Some(open);
        Ok(answer)
    }
}

/// The request; what the configuration adds comes before what the protocol needs.
fn request(
    config: &TracesConfig,
    endpoint: &Uri,
    headers: HeaderMap,
    batch: Bytes,
) -> Result<Request<Full<Bytes>>, Error> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    let map = request.headers_mut();
    for framing in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
        map.remove(framing);
    }
    map.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("kagent-proxy/", env!("CARGO_PKG_VERSION"))),
    );
    match config.protocol {
        OtlpProtocol::Http => {
            let authority = endpoint.authority().map_or("", uri::Authority::as_str);
            map.insert(HOST, authority.parse()?);
            map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            *request.body_mut() = Full::new(batch);
            // In origin form, as HTTP/1.1 has it.
            *request.uri_mut() =
                endpoint.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        }
        OtlpProtocol::Grpc => {
            map.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            map.insert(TE, HeaderValue::from_static("trailers"));
            // A message without compression, behind its length (gRPC over HTTP/2, "Length-Prefixed-Message").
            let mut framed = BytesMut::with_capacity(5 + batch.len());
            framed.put_u8(0);
            framed.put_u32(u32::try_from(batch.len())?);
            framed.extend_from_slice(&batch);
            *request.body_mut() = Full::new(framed.freeze());
            let mut parts = endpoint.clone().into_parts();
            parts.path_and_query = Some(uri::PathAndQuery::from_static(EXPORT));
            *request.uri_mut() = Uri::from_parts(parts)?;
        }
    }
    Ok(request)
}

async fn dial(config: &TracesConfig, endpoint: &Uri) -> Result<Open, Error> {
    let host = endpoint.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_tls = endpoint.scheme() == Some(&uri::Scheme::HTTPS);
    let port = endpoint.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    if !is_tls {
        return handshake(stream, config.protocol).await;
    }
    // Read anew for each connection: certificates are renewed.
    let configs = tls::client_config(&config.tls)?;
    let config_of = match config.protocol {
        OtlpProtocol::Http => configs.http1,
        OtlpProtocol::Grpc => configs.any,
    };
    let name = config.tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name)?;
    let stream = TlsConnector::from(Arc::clone(&config_of)).connect(name, stream).await?;
    handshake(stream, config.protocol).await
}

async fn handshake<S>(stream: S, protocol: OtlpProtocol) -> Result<Open, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    // How a connection ends is seen by what is sent on it.
    let (sender, driven) = match protocol {
        OtlpProtocol::Http => {
            let (sender, connection) = Box::pin(http1::handshake(io)).await?;
            (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }))
        }
        OtlpProtocol::Grpc => {
            let (sender, connection) = Box::pin(http2::handshake(TokioExecutor::new(), io)).await?;
            (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
        }
    };
    Ok(Open { sender, _driven: AbortOnDropHandle::new(driven) })
}

// === impl Sender ===

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// A response that has come whole.
#[derive(Debug, Default)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

// === impl Answer ===

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self, Error> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Self { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }
}

/// OTLP/HTTP, "Response".
fn taken(answer: &Answer) -> Result<(u64, String), Failure> {
    match answer.status.as_u16() {
        200..=299 => Ok(encode::rejected(&answer.body)),
        429 | 502 | 503 | 504 => Err(Failure::ForNow(format!("it answers {}", answer.status))),
        _ => Err(Failure::ForGood(format!("it answers {}", answer.status))),
    }
}

/// OTLP/gRPC, "Failures": the status stands in the trailers, or in the head of an answer without a message.
fn taken_by_grpc(answer: &Answer) -> Result<(u64, String), Failure> {
    let text = |name| {
        let value = answer.trailers.get(name).or_else(|| answer.headers.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let Some(status) = text("grpc-status") else {
        return taken(answer).and_then(|_| no_grpc(answer));
    };
    match status {
        "0" => Ok(encode::rejected(answer.body.get(5..).unwrap_or_default())),
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        "1" | "4" | "10" | "11" | "14" | "15" => {
            Err(Failure::ForNow(said(status, text("grpc-message"))))
        }
        _ => Err(Failure::ForGood(said(status, text("grpc-message")))),
    }
}

fn said(status: &str, message: Option<&str>) -> String {
    format!("it answers gRPC status {status}: {}", message.unwrap_or_default())
}

fn no_grpc(answer: &Answer) -> Result<(u64, String), Failure> {
    Err(Failure::ForGood(format!("it answers {} without a gRPC status", answer.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &'static str)], in_trailers: bool) -> Answer {
        let mut answer =
            Answer { status: StatusCode::from_u16(status).unwrap(), ..Answer::default() };
        let map = if in_trailers { &mut answer.trailers } else { &mut answer.headers };
        map.extend(fields.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        }));
        answer
    }

    #[test]
    fn failures_of_http_pass_or_do_not() {
        assert_eq!(taken(&answer(200, &[], false)), Ok((0, String::new())));
        for status in [429, 502, 503, 504] {
            assert!(
                matches!(taken(&answer(status, &[], false)), Err(Failure::ForNow(_))),
                "{status}"
            );
        }
        for status in [301, 400, 401, 404, 413, 500] {
            assert!(
                matches!(taken(&answer(status, &[], false)), Err(Failure::ForGood(_))),
                "{status}"
            );
        }
    }

    #[test]
    fn the_status_of_grpc_stands_behind_a_message_or_in_its_place() {
        for in_trailers in [true, false] {
            let of = |status| taken_by_grpc(&answer(200, &[("grpc-status", status)], in_trailers));
            assert_eq!(of("0"), Ok((0, String::new())));
            assert!(matches!(of("14"), Err(Failure::ForNow(_))));
            assert!(matches!(of("16"), Err(Failure::ForGood(_))));
        }
        let why = [("grpc-status", "8"), ("grpc-message", "too%20much")];
        let told = taken_by_grpc(&answer(200, &why, true)).unwrap_err().to_string();
        assert_eq!(told, "it answers gRPC status 8: too%20much");
        // Something that is no gRPC server stands there.
        assert!(matches!(taken_by_grpc(&answer(200, &[], true)), Err(Failure::ForGood(_))));
        assert!(matches!(taken_by_grpc(&answer(404, &[], true)), Err(Failure::ForGood(_))));
        assert!(matches!(taken_by_grpc(&answer(503, &[], true)), Err(Failure::ForNow(_))));
    }

    #[test]
    fn headers_of_the_protocol_win_over_those_of_the_configuration() {
        let text = "authorization=x,content-type=text/plain,host=other,te=gzip";
        for (protocol, kind) in [
            (OtlpProtocol::Http, "application/x-protobuf"),
            (OtlpProtocol::Grpc, "application/grpc"),
        ] {
            let config = TracesConfig { protocol, ..TracesConfig::default() };
            let endpoint = "http://c:4318/v1/traces?a=b".parse().unwrap();
            let headers = headers_of(text).unwrap();
            let request = request(&config, &endpoint, headers, Bytes::from_static(b"x")).unwrap();
            assert_eq!(request.headers()["content-type"], kind);
            assert_eq!(request.headers()["authorization"], "x");
            let expected = match protocol {
                OtlpProtocol::Http => ("/v1/traces?a=b".to_owned(), Some("c:4318")),
                OtlpProtocol::Grpc => (format!("http://c:4318{EXPORT}"), None),
            };
            assert_eq!(request.uri().to_string(), expected.0);
            let host = request.headers().get("host").map(|host| host.to_str().unwrap());
            assert_eq!(host, expected.1);
        }
    }
}
