//! The proxy inside another program, with a layer of `tower` around it: here at most ten requests at once
//! on each connection.
//!
//! ```sh
//! cargo run --example embed &
//! curl -H 'x-kagent-host: helper.team-a' http://127.0.0.1:8090/
//! ```

use std::error::Error;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kagent_proxy::config::{Config, RouteConfig, RouteTarget, target::parse_targets};
use kagent_proxy::proxy::Proxy;
use kagent_proxy::proxy::request::conn::{ConnTask, Connection};
use kagent_proxy::proxy::service::ProxyService;
use kagent_proxy::session::Sessions;
use kagent_proxy::telemetry::{access_log::AccessLog, metrics::Metrics, trace::Traces};
use kagent_proxy::{drain, static_routes};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let to = RouteTarget::new(parse_targets("http://127.0.0.1:8081")?);
    let route = RouteConfig { host: "helper.team-a".to_owned(), prefix: "/".to_owned(), to };
    let config = Config { routes: vec![route], ..Config::sidecar() };
    let metrics = Metrics::new();
    let built = static_routes::build(&config, &metrics, None)?;
    for cluster in &built.fresh {
        cluster.refresh().await;
    }
    let (_trigger, watch) = drain::channel();
    let name = "embedded".to_owned();
    let sessions = Arc::new(Sessions::new(&config.sessions, metrics.session_peers())?);
    let proxy = Proxy::new(
        built.table,
        metrics,
        (AccessLog::off(), Traces::off()),
        &config,
        watch,
        name,
        sessions,
    )?;
    let proxy = Arc::new(proxy);
    let listener = TcpListener::bind("127.0.0.1:8090").await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let conn = Arc::new(Connection::new(peer, false, "http".into(), None));
        let service = ProxyService::new(Arc::clone(&proxy), conn, ConnTask::default());
        let service = ServiceBuilder::new().concurrency_limit(10).service(service);
        let service = TowerToHyperService::new(service);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
