//! The connections of an admin socket: so many, for so long, and one more when descriptors run out.
//!
//! Traffic may use up every descriptor of the process. Then a kubelet must still hear that it lives, so the descriptor
//! in reserve is given up for one connection at a time. A connection with an event stream lives as long as that. Knows
//! no path.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::socket::reserve::{self, Lent};
use crate::socket::{ACCEPT_PAUSE, Tcp};

/// Stands in the extensions of an answer that lasts as long as it has something to say. Whoever puts it there bounds how
/// many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting;

/// Bounds on the connections of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At once; one more ends the oldest.
    pub(super) connections: usize,
    /// For a head, also while none has begun.
    pub(super) head: Duration,
    /// For a connection; then it ends with the response that is under way, which has the time of a head to end unless it
    /// is [`Lasting`].
    pub(super) life: Duration,
    /// The same for one on the descriptor in reserve, which others may wait for.
    pub(super) reserved_life: Duration,
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 100,
            head: Duration::from_secs(10),
            life: Duration::from_secs(60),
            reserved_life: Duration::from_secs(2),
        }
    }
}

/// Answers every request by `router`, until dropped.
pub(super) async fn serve(listener: &TcpListener, bounds: Bounds, router: Router) {
    let mut connections = JoinSet::new();
    let mut by_age = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, lent) = match accepted {
            Ok((stream, _)) => (stream, None),
            Err(error) => match reserve::accept_on_it(listener, &error).await {
                Some((stream, lent)) => (stream, Some(lent)),
                None => {
                    tracing::warn!(%error, "the admin listener cannot accept, pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        by_age.retain(|task: &tokio::task::AbortHandle| !task.is_finished());
        if by_age.len() >= bounds.connections
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        by_age.push_back(connections.spawn(connection(stream, lent, bounds, router.clone())));
    }
}

async fn connection(stream: TcpStream, lent: Option<Lent>, bounds: Bounds, router: Router) {
    // Dropped after the connection: its descriptor becomes the reserve again.
    let life = if lent.is_some() { bounds.reserved_life } else { bounds.life };
    // A dead peer of an event stream would keep its place for a quarter of an hour.
    let Ok(stream) = Tcp::new(stream) else { return };
    let lasts = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&lasts);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, seen) = (router.clone().call(request), Arc::clone(&seen));
        async move {
            let answer = answer.await?;
            if answer.extensions().get::<Lasting>().is_some() {
                seen.store(true, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .keep_alive(lent.is_none())
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(life) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(bounds.head, connection.as_mut()).await {
                Ok(ended) => ended,
                // Others wait for the reserve.
                Err(_) if lent.is_none() && lasts.load(Ordering::Relaxed) => connection.await,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(20);

    async fn start(bounds: Bounds) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fine = Router::new().fallback(async || "fine");
        tokio::spawn(async move { serve(&listener, bounds, fine).await });
        address
    }

    async fn asked(client: &mut TcpStream) -> String {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        while !all.ends_with(b"fine") && client.read_buf(&mut all).await.unwrap() > 0 {}
        String::from_utf8(all).unwrap()
    }

    /// Whatever else is open: whoever comes last is served.
    #[tokio::test]
    async fn one_connection_too_many_ends_the_oldest() {
        let bounds = Bounds { connections: 2, head: HOUR, life: HOUR, ..Bounds::default() };
        let address = start(bounds).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert!(asked(&mut client).await.starts_with("HTTP/1.1 200 "));
            clients.push(client);
        }
        assert_eq!(clients[0].read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for client in &mut clients[1..] {
            assert!(asked(client).await.starts_with("HTTP/1.1 200 "));
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_head_and_one_that_stays_too_long_end() {
        for bounds in [
            Bounds { head: SOON, life: HOUR, ..Bounds::default() },
            Bounds { head: HOUR, life: SOON, ..Bounds::default() },
        ] {
            let address = start(bounds).await;
            for asks in [false, true] {
                let mut client = TcpStream::connect(address).await.unwrap();
                if asks {
                    let _ended_before =
                        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                }
                let mut all = Vec::new();
                let _a_reset_is_an_end = client.read_to_end(&mut all).await;
            }
        }
    }
}
