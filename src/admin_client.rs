//! Asks a running proxy's admin listener: one answer, or a stream of events.
//!
//! Plain text over HTTP/1.1, one connection for each question; the admin listener speaks no TLS. Knows no path and no
//! JSON of theirs: who asks knows what the answer means, and what is said here of a failure is for people.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

mod events;
mod follow;

pub use events::Events;
pub use follow::{News, follow};

/// Until the head of an answer, and for all of an answer that is no stream: it is made from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer, and of one event. Thousands of edges, tools and streams are a few MiB.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Bytes of a refusal that are shown.
const MAX_REFUSAL: usize = 4096;

/// An admin listener that can be asked.
#[derive(Clone, Debug)]
pub struct AdminClient {
    /// As the user wrote it.
    url: String,
    /// As the Host says it.
    authority: String,
    host: String,
    port: u16,
}

/// Why there is no answer. Each names the listener, and says what to do where that is known.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The URL cannot be one of an admin listener.
    #[error("{0:?} is not the URL of an admin listener; write one such as http://127.0.0.1:9091")]
    Url(String),
    /// Nobody is there, or who was there has gone.
    #[error("{0}")]
    Away(String),
    /// An answer other than 200.
    #[error("{text}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// Who refuses what, why, and what to do.
        text: String,
    },
    /// An answer that no proxy of this version gives.
    #[error("{0}")]
    Foreign(String),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

// === impl Failure ===

impl Failure {
    /// Whether asking again cannot help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url(_) | Self::Foreign(_) => true,
            Self::Away(_) => false,
            Self::Refused { status, .. } => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_client_error() && !later.contains(status)
            }
        }
    }
}

// === impl AdminClient ===

impl AdminClient {
    /// One for a URL such as `http://127.0.0.1:9091`. What stands behind the port is not looked at.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn new(url: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain = uri.scheme_str().is_none_or(|scheme| scheme == "http");
        let authority = uri.authority().filter(|_| plain).ok_or_else(wrong)?;
        Ok(Self {
            url: url.to_owned(),
            authority: authority.to_string(),
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
        })
    }

    /// The URL, as it was written.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The JSON of a GET for `path`, which may have a query.
    ///
    /// # Errors
    /// There is no answer within ten seconds, or not this one.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let asking = async {
            let (response, _connection) = self.get(path, "application/json").await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| self.away(&*error))
        };
        let body = self.patiently(asking).await?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(path, &error.to_string()))
    }

    /// The events of a GET for `path`, which end with a failure: when the stream does, or after `silence`
    /// without one byte.
    ///
    /// # Errors
    /// There is no answer within ten seconds, or it is no event stream.
    pub async fn events(&self, path: &str, silence: Duration) -> Result<Events, Failure> {
        const EVENTS: &str = "text/event-stream";
        let asked = self.patiently(self.get(path, EVENTS)).await;
        let (response, connection) = asked?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        match kind.as_deref() {
            Some(kind) if kind.trim_start().starts_with(EVENTS) => {}
            kind => {
                let what = format!("it sends {}, no event stream", kind.unwrap_or("no type"));
                return Err(self.foreign(path, &what));
            }
        }
        Ok(Events::new(self.clone(), silence, response.into_body(), connection))
    }

    /// An answer with 200, and the task that drives its connection.
    async fn get(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Failure> {
        let request = Request::get(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, accept)
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.foreign(path, &error.to_string()))?;
        let sent = async {
            let stream = TcpStream::connect((&*self.host, self.port)).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let driven = tokio::spawn(async move {
                let _told_by_the_body = connection.await;
            });
            let connection = AbortOnDropHandle::new(driven);
            Ok::<_, Cause>((sender.send_request(request).await?, connection))
        };
        let (response, connection) = sent.await.map_err(|error| self.away(&*error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(path, response).await);
        }
        Ok((response, connection))
    }

    async fn patiently<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late = || {
            Failure::Away(format!(
                "{} does not answer within {PATIENCE:?}; is it the port of a kagent-proxy?",
                self.url
            ))
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
    }

    fn away(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let cause = innermost(error);
        let refused = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let remedy = match refused {
            Some(io::ErrorKind::ConnectionRefused) => {
                "; is the proxy running, or kubectl port-forward to it?"
            }
            _ => "",
        };
        Failure::Away(format!("{} does not answer: {cause}{remedy}", self.url))
    }

    fn foreign(&self, path: &str, what: &str) -> Failure {
        let url = &self.url;
        Failure::Foreign(format!(
            "{url} does not answer {path} as a kagent-proxy of version {} does: {what}",
            env!("CARGO_PKG_VERSION")
        ))
    }

    /// What a refusal says, and what to do about it.
    async fn refused(&self, path: &str, response: Response<Incoming>) -> Failure {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&body);
        let said: Vec<_> = said.split_whitespace().collect();
        let said = said.join(" ");
        let path = path.split('?').next().unwrap_or_default();
        let remedy = match status {
            StatusCode::FORBIDDEN => {
                "; everything is shown on the socket of admin.local, which is http://127.0.0.1:9091 in the pod and \
                 behind kubectl port-forward"
            }
            StatusCode::NOT_FOUND => {
                "; either it is an older kagent-proxy, which does not have this yet, or no admin listener"
            }
            _ => "",
        };
        let text = format!("{} refuses {path}: {status}: {said}{remedy}", self.url);
        Failure::Refused { status, text }
    }
}

/// What began it: the errors around it say only that the connection or the request failed.
fn innermost<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_taken() {
        let client = AdminClient::new("http://[::1]:9091/").unwrap();
        assert_eq!((&*client.host, client.port, &*client.authority), ("::1", 9091, "[::1]:9091"));
        assert_eq!(AdminClient::new("http://proxy").unwrap().port, 80);
        assert_eq!(AdminClient::new("127.0.0.1:9091").unwrap().port, 9091);
        for url in ["", "https://127.0.0.1:9091", "/sight", "http:// x"] {
            let said = AdminClient::new(url).unwrap_err().to_string();
            assert!(said.contains("such as http://127.0.0.1:9091"), "{said}");
        }
    }

    #[test]
    fn who_refuses_for_good_is_not_asked_again() {
        for (status, is_final) in [(403, true), (404, true), (429, false), (503, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            let refused = Failure::Refused { status, text: String::new() };
            assert_eq!(refused.is_final(), is_final, "{status}");
        }
        assert!(!Failure::Away(String::new()).is_final());
        assert!(Failure::Foreign(String::new()).is_final());
    }
}
