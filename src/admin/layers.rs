//! What lies around the handlers, in layers of tower: bounds, compression, panics, headers for browsers.
//!
//! Knows no path. Requests of the proxy never come here.

use std::any::Any;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::{BoxError, Router};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::set_header::SetResponseHeaderLayer;

use super::answer::{busy, text};
use super::limit::{self, Limit};

/// For everything but the body of the answer, which the connection's life bounds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Less than this is one packet anyway.
const WORTH_COMPRESSING: u64 = 1024;
/// What a browser may do with an answer: nothing but show the page of this very origin.
const FOR_BROWSERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Around what takes time or memory: so many at once, each for so long, compressed where the client likes that.
pub(super) fn bounded<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    limit: &Limit,
) -> Router<S> {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(limit.clone(), limit::hold))
            .layer(HandleErrorLayer::new(too_slow))
            .layer(TimeoutLayer::new(PATIENCE))
            .layer(compression()),
    )
}

/// Around everything.
pub(super) fn outer(router: Router) -> Router {
    let caught = router.layer(CatchPanicLayer::custom(panicked));
    let headers = FOR_BROWSERS.into_iter().fold(caught, |router, (name, value)| {
        let value = HeaderValue::from_static(value);
        router.layer(SetResponseHeaderLayer::overriding(name, value))
    });
    let fresh = HeaderValue::from_static("no-store");
    headers.layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, fresh))
}

fn compression() -> CompressionLayer<impl Predicate> {
    // An event stream would be held back until a block is full.
    let what = SizeAbove::new(WORTH_COMPRESSING)
        .and(NotForContentType::SSE)
        .and(NotForContentType::IMAGES);
    CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest).compress_when(what)
}

async fn too_slow(_elapsed: BoxError) -> Response {
    busy(format!("not answered within {PATIENCE:?}\n"))
}

/// The hook has counted and logged it, with its place.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    text(StatusCode::INTERNAL_SERVER_ERROR, "internal: a fault of the proxy; its log says where\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use axum::body::Body;
    use axum::extract::Request;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tower_service::Service;

    use super::super::serve::{Bounds, serve};
    use super::*;
    use crate::config::{Config, LogConfig, LogFormat};
    use crate::telemetry::log::Log;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_takes_too_long_is_given_up() {
        let stuck = get(async || std::future::pending::<&'static str>().await);
        let mut router = bounded(Router::new().route("/", stuck), &Limit::new(1));
        for _ in 0..2 {
            let answer = router.call(Request::new(Body::empty())).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let why = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(why, "not answered within 10s\n");
        }
    }

    /// Two requests on one connection: one panics, the other does not.
    async fn play() -> String {
        let router = Router::new()
            .route("/bad", get(async || [""].get(1).copied().expect("a test's panic")))
            .route("/good", get(async || "fine"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = outer(bounded(router, &Limit::new(1)));
        tokio::spawn(async move { serve(&listener, Bounds::default(), router).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        let bad = "GET /bad HTTP/1.1\r\nhost: a\r\n\r\n";
        let good = "GET /good HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(format!("{bad}{bad}{good}").as_bytes()).await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        all
    }

    #[test]
    fn a_panic_is_a_500_counted_and_logged_with_its_place() {
        const CHILD: &str = "ADMIN_PANICS_TEST_CHILD";
        const NAME: &str =
            "admin::layers::tests::a_panic_is_a_500_counted_and_logged_with_its_place";
        if std::env::var_os(CHILD).is_some() {
            let log = Log::standard_error().unwrap();
            let config = LogConfig { format: LogFormat::Json, ..Config::sidecar().log };
            crate::telemetry::start_logging(&config, log.clone()).unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let said = runtime.block_on(play()) + &Metrics::new().render();
            std::io::stdout().write_all(said.as_bytes()).unwrap();
            assert!(log.flush(Duration::from_secs(10)));
            return;
        }
        // A hook belongs to the whole process, so this test has one of its own.
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
        let output = child.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{log}\n{said}");
        let answers: Vec<&str> = said.split("HTTP/1.1 ").skip(1).collect();
        assert_eq!(answers.len(), 3, "{said}");
        for answer in &answers[..2] {
            assert!(answer.starts_with("500 ") && answer.contains("\r\n\r\ninternal: "), "{said}");
            assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{said}");
        }
        assert!(answers[2].starts_with("200 ") && answers[2].contains("\r\n\r\nfine"), "{said}");
        assert!(said.contains("kagent_proxy_panics_total 2\n"), "{said}");
        let lines: Vec<_> = log.lines().filter(|line| line.contains("\"panic\"")).collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(lines[0].contains("a test's panic") && lines[0].contains("layers.rs:"), "{log}");
    }
}
