//! What a panic costs: one request, and nothing beside it.
//!
//! A panic while a request is worked on becomes a 500. Other streams of the connection, and the connection,
//! go on. Knows no request: the record of what panicked is written by its own drop. What a panic says and where it
//! was is for the panic hook.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::Response;

use super::body::ReplyBody;
use crate::proxy::error::Unanswered;

type Answered = Result<Response<ReplyBody>, Unanswered>;

/// `work`, or what `failed` makes of its panic. A combinator, for an `async` block would keep the room of `work`
/// twice.
pub fn guarded<'a>(
    work: impl Future<Output = Answered> + Send + 'a,
    failed: impl FnOnce() -> Response<ReplyBody> + Send + 'a,
) -> impl Future<Output = Answered> + Send + 'a {
    AssertUnwindSafe(work).catch_unwind().map(move |caught| caught.unwrap_or_else(|_| Ok(failed())))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::task::Poll;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::body::{RequestBody, Upload};
    use crate::config::LogFormat;
    use crate::proxy::posted::PostedCalls;
    use crate::proxy::record::{Books, Recorder};
    use crate::proxy::reply::refuse::internal;
    use crate::proxy::reply::relay::StreamError;
    use crate::proxy::request::conn::{ConnTask, Connection};
    use crate::proxy::request::fields::Fields;
    use crate::telemetry::access_log::AccessLog;
    use crate::telemetry::feed::Feed;
    use crate::telemetry::log::Log;
    use crate::telemetry::trace::Traces;
    use crate::workers::near::Common;
    use crate::workers::per_worker::Tally;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The record of a request, and what its drop writes.
    fn record() -> (Box<Recorder>, Log, Written, tracing::subscriber::DefaultGuard) {
        let all = tracing::subscriber::set_default(tracing_subscriber::registry());
        let written = Written::default();
        let log = Log::start(written.clone()).unwrap();
        let conn =
            Arc::new(Connection::new(([127, 0, 0, 1], 1).into(), false, "http".into(), None));
        let request = Request::new(RequestBody::empty(Arc::default()));
        let access = AccessLog::new(LogFormat::Json, log.clone());
        let books = Common::new(Books {
            open: Tally::default(),
            log: access,
            sees_calls: true,
            feed: Feed::default(),
            posted: PostedCalls::default(),
            traces: Traces::off(),
        });
        let head = (&request, &Fields::default());
        (Recorder::begin(&conn, ConnTask::default(), books.near(), head), log, written, all)
    }

    fn line(log: Log, written: &Written) -> serde_json::Value {
        assert!(log.flush(std::time::Duration::from_secs(10)));
        serde_json::from_slice(&written.0.lock().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_its_reason_and_its_record() {
        let (record, log, written, _all) = record();
        let work = async move {
            let _record = record;
            tokio::task::yield_now().await;
            panic!("a test's");
        };
        let response = guarded(work, || internal(&Upload::default(), false)).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-kagent-proxy-error"], "internal");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["reason"], "internal");
        let response = internal(&Upload::default(), true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "13");
        assert_eq!(response.headers()["x-kagent-proxy-error"], "internal");
        assert!(http_body::Body::is_end_stream(response.body()));
        let line = line(log, &written);
        assert_eq!((&line["status"], &line["outcome"]), (&500.into(), &"internal".into()));
    }

    #[tokio::test]
    async fn a_panic_costs_one_of_two_streams_of_a_connection() {
        use hyper_util::rt::{TokioExecutor, TokioIo};

        let go_on = Arc::new(tokio::sync::Notify::new());
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let released = Arc::clone(&go_on);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (record, log, ..) = record();
            let released = Arc::clone(&released);
            let work = async move {
                let _log = log;
                assert_eq!(request.uri().path(), "/good", "a test's");
                released.notified().await;
                Ok(Response::new(ReplyBody::local(Bytes::from_static(b"whole"), record)))
            };
            guarded(work, || internal(&Upload::default(), false))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service));
        let client =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(ours));
        let (mut sender, connection) = client.await.unwrap();
        tokio::spawn(connection);
        let mut ask = |path: &str| {
            let request = Request::get(format!("http://p{path}"));
            sender.send_request(request.body(String::new()).unwrap())
        };
        // Both are under way when one of them panics.
        let (good, bad) = (tokio::spawn(ask("/good")), ask("/bad"));
        assert_eq!(bad.await.unwrap().status(), 500);
        assert!(!good.is_finished());
        go_on.notify_one();
        let good = good.await.unwrap().unwrap();
        assert_eq!(good.into_body().collect().await.unwrap().to_bytes(), "whole");
    }

    #[test]
    fn a_panic_in_a_body_breaks_it_off_and_is_recorded() {
        let (mut record, log, written, _all) = record();
        record.on_head(http::StatusCode::OK, crate::proxy::call::Kind::Unary);
        let mut body = ReplyBody::local(Bytes::from_static(b"whole"), record);
        let ended = body.caught(|_| panic!("a test's"));
        assert!(matches!(ended, Poll::Ready(Some(Err(StreamError::Internal)))), "{ended:?}");
        // The client has seen 200 by then.
        let line = line(log, &written);
        assert_eq!((&line["status"], &line["outcome"]), (&200.into(), &"internal".into()));
    }

    #[tokio::test]
    async fn what_does_not_panic_is_left_alone() {
        let (record, log, written, _all) = record();
        let work = async move {
            Ok(Response::new(ReplyBody::local(Bytes::from_static(b"whole"), record)))
        };
        let response = guarded(work, || internal(&Upload::default(), false)).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "whole");
        assert_eq!(line(log, &written)["outcome"], "client_gone", "nobody has said how it ended");
    }
}
