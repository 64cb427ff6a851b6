//! A receiver of OpenTelemetry in this process: OTLP over HTTP, over gRPC, and over TLS.
//!
//! Nothing here knows what is being tested.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::{OtlpProtocol, ServerTls, TracesConfig};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What it is answered once, before everything is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// This status of HTTP.
    Status(u16),
    /// So many spans are not taken.
    Rejected(i64),
}

/// One batch.
pub(crate) struct Batch {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) resource: Vec<String>,
    pub(crate) spans: Vec<Span>,
}

#[derive(Default)]
struct State {
    answers: Mutex<VecDeque<Answer>>,
    batches: Mutex<Vec<Batch>>,
}

/// Takes what is sent to it.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    protocol: OtlpProtocol,
    scheme: &'static str,
    state: Arc<State>,
    _serving: AbortOnDropHandle<()>,
}

impl Receiver {
    pub(crate) async fn start(protocol: OtlpProtocol, answers: &[Answer]) -> Self {
        Self::start_with(protocol, answers, None).await
    }

    pub(crate) async fn start_with(
        protocol: OtlpProtocol,
        answers: &[Answer],
        tls: Option<&ServerTls>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Mutex::new(answers.iter().copied().collect());
        let state = Arc::new(State { answers, ..State::default() });
        kagent_proxy::tls::install_provider();
        let tls = tls.map(|tls| TlsAcceptor::from(kagent_proxy::tls::server_config(tls).unwrap()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let of_all = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&of_all), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => Box::pin(serve(stream, protocol, state)).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                Box::pin(serve(stream, protocol, state)).await;
                            }
                        }
                    }
                });
            }
        });
        let _serving = AbortOnDropHandle::new(serving);
        Self { address, protocol, scheme, state, _serving }
    }

    /// What a proxy is told to send spans here.
    pub(crate) fn config(&self) -> TracesConfig {
        let url = format!("{}://localhost:{}/v1/traces", self.scheme, self.address.port());
        TracesConfig {
            endpoint: Some(url.parse().unwrap()),
            protocol: self.protocol,
            ..TracesConfig::default()
        }
    }

    /// All batches that have come.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        std::mem::take(&mut self.state.batches.lock().unwrap())
    }

    /// Their spans.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.batches().into_iter().flat_map(|batch| batch.spans).collect()
    }
}

async fn serve<S>(stream: S, protocol: OtlpProtocol, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let answer = service_fn(|request| answer(request, protocol, Arc::clone(&state)));
    // Whoever breaks off is seen by what is missing.
    let _ended = match protocol {
        OtlpProtocol::Http => http1::Builder::new().serve_connection(io, answer).await,
        OtlpProtocol::Grpc => {
            http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await
        }
    };
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    protocol: OtlpProtocol,
    state: Arc<State>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await?.to_bytes();
    if protocol == OtlpProtocol::Grpc {
        assert_eq!(body[0], 0, "it is not compressed");
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
        body = body.slice(5..);
        assert_eq!(body.len(), usize::try_from(length).unwrap());
    }
    let answer = state.answers.lock().unwrap().pop_front();
    let status = match answer {
        Some(Answer::Status(status)) => status,
        _ => {
            state.batches.lock().unwrap().push(batch(&head, &body));
            200
        }
    };
    let partial_success = match answer {
        Some(Answer::Rejected(rejected_spans)) => {
            Some(ExportTracePartialSuccess { rejected_spans, error_message: "why".to_owned() })
        }
        _ => None,
    };
    let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let response = Response::builder().status(status);
    Ok(match protocol {
        OtlpProtocol::Http => response.body(Full::from(message).boxed()),
        OtlpProtocol::Grpc => {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let framed = [&[0], &length[..], &message].concat();
            let mut trailers = HeaderMap::new();
            // Whoever answers otherwise is no gRPC server.
            if status == 200 {
                trailers.insert("grpc-status", "0".parse().unwrap());
            }
            let body = Full::from(framed).with_trailers(async { Some(Ok(trailers)) }).boxed();
            response.header("content-type", "application/grpc").body(body)
        }
    }
    .unwrap())
}

fn batch(head: &http::request::Parts, body: &Bytes) -> Batch {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
    let [of_scope] = &of_resource.scope_spans[..] else { panic!("{request:?}") };
    Batch {
        path: head.uri.path().to_owned(),
        headers: head.headers.clone(),
        body: body.clone(),
        resource: said(&of_resource.resource.as_ref().unwrap().attributes),
        spans: of_scope.spans.clone(),
    }
}

/// Attributes as `name=value`.
pub(crate) fn said(attributes: &[KeyValue]) -> Vec<String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => format!("{}={text}", pair.key),
        Value::IntValue(number) => format!("{}={number}", pair.key),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(text).collect()
}
