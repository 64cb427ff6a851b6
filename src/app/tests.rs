//! What the failure of a part costs the others.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::*;

/// Panics at the first warning.
#[derive(Default)]
struct PanicOnce(AtomicBool);

impl<S: tracing::Subscriber> Layer<S> for PanicOnce {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let is_first = *event.metadata().level() == tracing::Level::WARN
            && !self.0.swap(true, Ordering::Relaxed);
        assert!(!is_first, "a test's");
    }
}

/// One request for a host that nobody has, on a connection that stays.
async fn is_answered(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: p\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    while !all.ends_with(b"}\n") && !all.ends_with(b"}") {
        assert_ne!(client.read_buf(&mut all).await.unwrap(), 0, "closed");
    }
    assert!(all.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn a_listener_that_panics_accepts_again_and_keeps_its_connections() {
    let mut config = Config::sidecar();
    config.listeners[0].address.set_port(0);
    config.admin.address.set_port(0);
    config.drain.lag = Duration::ZERO;
    config.log.access = false;
    let bound = Box::pin(App::build(config, &Sources::default())).await.unwrap();
    let socket: Socket = SockRef::from(&bound.listeners[0].socket).try_clone().unwrap();
    let (address, trigger, metrics) = (bound.addresses[0], bound.trigger(), bound.metrics.clone());
    let panics = tracing_subscriber::registry().with(PanicOnce::default());
    let _on_this_thread = tracing::subscriber::set_default(panics);
    let test = async {
        let running = tokio::spawn(bound.run());
        let mut early = TcpStream::connect(address).await.unwrap();
        is_answered(&mut early).await;
        // To accept is an error now, which is logged, which panics.
        socket.shutdown(Shutdown::Both).unwrap();
        let failed = "kagent_proxy_background_tasks_failed_total{task=\"listener\"} 1\n";
        while !metrics.render().contains(failed) {
            tokio::task::yield_now().await;
        }
        socket.listen(16).unwrap();
        // Where it was before, or anywhere else.
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut late = TcpStream::connect(address).await.unwrap();
        is_answered(&mut late).await;
        is_answered(&mut early).await;
        drop((early, late));
        trigger.advance(Phase::Draining);
        assert!(running.await.unwrap(), "something was still open at the deadline");
    };
    tokio::time::timeout(Duration::from_secs(20), test).await.unwrap();
}
