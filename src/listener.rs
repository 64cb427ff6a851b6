//! Where clients connect: accept, one task for each connection.
//!
//! Knows sockets and the drain; nothing of routes.

mod activity;
pub mod bind;
pub mod conn;
mod quiet;
pub mod spread;
pub mod tls;
mod watched;

use std::future::Future;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::config::ListenerLimits;
use crate::drain::{Phase, Watch};
use crate::proxy::Proxy;
use crate::proxy::request::conn::{ConnTask, Connection, Place};
use crate::socket::{ACCEPT_PAUSE, Tcp, reserve};
use crate::supervise::keep_running;
use crate::telemetry::metrics::Metrics;
use conn::Client;
use spread::Spread;
use tls::Acceptor;

/// A client's bytes, in plain text or behind TLS; boxed, for a TLS connection is ten times as large.
pub type Io = Either<Tcp, Box<TlsStream<Tcp>>>;

/// An open port, or what one worker has of it.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The handshake, unless it is plain text.
    pub tls: Option<Arc<Acceptor>>,
    /// The worker that accepts here.
    pub worker: usize,
}

/// A connection between its accept and the worker that serves it.
#[derive(Debug)]
enum Accepted {
    Here(TcpStream),
    /// No reactor knows it at the moment.
    Elsewhere(std::net::TcpStream),
}

/// What all listeners share.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Where panics are counted.
    pub metrics: Metrics,
    /// Answers.
    pub proxy: Arc<Proxy>,
    /// Deadlines and sizes.
    pub limits: Arc<ListenerLimits>,
    /// Room for connections, all listeners together.
    pub room: Arc<Semaphore>,
    /// The workers.
    pub spread: Arc<Spread>,
    /// The phase.
    pub watch: Watch,
}

/// Accepts until the phase is [`Phase::Closing`], then waits for its connections to end; dropping the
/// future cuts them.
pub async fn run(listener: Listener, shared: Serving) {
    // Whatever becomes of the loop: those who wait in the kernel's queue and those who are connected stay.
    let connections = Mutex::new(JoinSet::new());
    let accept = || accept_all(&listener, shared.clone(), &connections);
    keep_running("listener", shared.metrics.clone(), accept).await;
    drop(listener);
    let mut connections = connections.into_inner();
    while connections.join_next().await.is_some() {}
}

/// Accepts until the phase is [`Phase::Closing`].
async fn accept_all(listener: &Listener, mut shared: Serving, connections: &Mutex<JoinSet<()>>) {
    let mut connections = connections.lock().await;
    loop {
        let accepted = accept(&listener.socket, &mut connections, &mut shared.watch).await;
        match accepted {
            Some(Ok(client)) => {
                let Some(permit) = room(&mut connections, &mut shared).await else { break };
                serve(client, permit, listener, &shared, &mut connections);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
}

/// Serves a connection in a task of its own, here or where fewer are.
fn serve(
    (stream, peer): (TcpStream, SocketAddr),
    permit: OwnedSemaphorePermit,
    listener: &Listener,
    shared: &Serving,
    connections: &mut JoinSet<()>,
) {
    let seat = shared.spread.seat(listener.worker);
    let elsewhere = seat.elsewhere(listener.worker);
    let stream = match elsewhere {
        None => Ok(Accepted::Here(stream)),
        Some(_) => stream.into_std().map(Accepted::Elsewhere),
    };
    // Its reactor could not let go of it: it is of no use here either.
    let Ok(stream) = stream else { return };
    let is_tls = listener.tls.is_some();
    let place: Place = Box::new((permit, seat));
    let info = Arc::new(Connection::new(peer, is_tls, Arc::clone(&listener.name), Some(place)));
    let carrier = ConnTask::default();
    let client = Client {
        info,
        carrier: carrier.clone(),
        proxy: Arc::clone(&shared.proxy),
        limits: Arc::clone(&shared.limits),
        watch: shared.watch.clone(),
    };
    let served = connection(stream, listener.tls.clone(), client);
    let task = match elsewhere {
        None => connections.spawn(served),
        Some(worker) => connections.spawn_on(served, &worker),
    };
    carrier.set(task);
}

/// One connection, from its first byte to its end. An `async fn` keeps two copies of its arguments while it runs; a
/// block keeps one.
#[expect(
    clippy::manual_async_fn,
    reason = "a connection is silent for most of its life, and there are many"
)]
fn connection(
    stream: Accepted,
    tls: Option<Arc<Acceptor>>,
    mut client: Client,
) -> impl Future<Output = ()> + Send {
    async move {
        let io = tokio::select! {
            biased;
            io = bytes(stream, tls.as_deref(), &client.limits) => io,
            // Half a handshake must not hold up a drain.
            () = client.watch.reached(Phase::Closing) => return,
        };
        match io {
            Ok(io) => conn::serve(io, &client).await,
            Err(error) => tracing::debug!(peer = %client.info.peer, %error, "no TLS handshake"),
        }
    }
}

/// Room for one more connection; `None` once none may be taken. Whoever waits for it has been accepted: a worker
/// that kept room for the next client would keep it from the others.
async fn room(connections: &mut JoinSet<()>, shared: &mut Serving) -> Option<OwnedSemaphorePermit> {
    loop {
        tokio::select! {
            biased;
            () = shared.watch.reached(Phase::Closing) => return None,
            permit = Arc::clone(&shared.room).acquire_owned() => return permit.ok(),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// The next connection; `None` once no more may be taken. Those that end meanwhile are let go of.
async fn accept(
    socket: &TcpListener,
    connections: &mut JoinSet<()>,
    watch: &mut Watch,
) -> Option<Result<(TcpStream, SocketAddr)>> {
    loop {
        tokio::select! {
            biased;
            () = watch.reached(Phase::Closing) => return None,
            accepted = reserve::accept(socket) => return Some(accepted),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// The connection as bytes, behind its handshake if there is one.
async fn bytes(stream: Accepted, tls: Option<&Acceptor>, limits: &ListenerLimits) -> Result<Io> {
    let stream = Tcp::new(match stream {
        Accepted::Here(stream) => stream,
        Accepted::Elsewhere(stream) => TcpStream::from_std(stream)?,
    })?;
    Ok(match tls {
        None => Io::Left(stream),
        // Boxed, as everything is that would weigh on a plain connection too.
        Some(tls) => Io::Right(Box::new(Box::pin(tls.accept(stream, limits.handshake)).await?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finished_connections_are_let_go_of_while_nobody_connects() {
        let socket = bind::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (_trigger, mut watch) = crate::drain::channel();
        let mut connections = JoinSet::new();
        for _ in 0..10 {
            connections.spawn(std::future::ready(()));
        }
        let turns = async {
            // Each turn lets every task that can run do so.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = accept(&socket, &mut connections, &mut watch) => panic!("nobody connects"),
            () = turns => {}
        }
        assert!(connections.is_empty(), "{} are left", connections.len());
    }
}
