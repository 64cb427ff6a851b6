//! Where clients connect: bind, accept, one task for each connection.
//!
//! Knows sockets and the drain; nothing of routes.

mod activity;
pub mod conn;
mod quiet;
pub mod tls;
mod watched;

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::config::ListenerLimits;
use crate::drain::{Phase, Watch};
use crate::proxy::Proxy;
use crate::proxy::request::conn::{ConnTask, Connection};
use crate::socket::{ACCEPT_PAUSE, Tcp, reserve};
use crate::supervise::keep_running;
use crate::telemetry::metrics::Metrics;
use tls::Acceptor;

/// A client's bytes, in plain text or behind TLS; boxed, for a TLS connection is ten times as large.
pub type Io = Either<Tcp, Box<TlsStream<Tcp>>>;

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 4096;

/// Binds; `[::]` takes IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let every_ipv6 = address.is_ipv6() && address.ip().is_unspecified();
    match bind_exactly(address) {
        Err(error) if every_ipv6 && lacks_ipv6(&error) => {
            tracing::info!(%address, %error, "no IPv6 here, listening on IPv4");
            bind_exactly(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        other => other,
    }
}

/// The kernel has no IPv6, or it is switched off.
fn lacks_ipv6(error: &Error) -> bool {
    [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)].contains(&error.raw_os_error())
}

fn bind_exactly(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The handshake, unless it is plain text.
    pub tls: Option<Arc<Acceptor>>,
}

/// What all listeners share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where panics are counted.
    pub metrics: Metrics,
    /// Answers.
    pub proxy: Arc<Proxy>,
    /// Deadlines and sizes.
    pub limits: Arc<ListenerLimits>,
    /// Room for connections, all listeners together.
    pub room: Arc<Semaphore>,
    /// The phase.
    pub watch: Watch,
}

/// Accepts until the phase is [`Phase::Closing`], then waits for its connections to end; dropping the
/// future cuts them.
pub async fn run(listener: Listener, shared: Shared) {
    // Whatever becomes of the loop: those who wait in the kernel's queue and those who are connected stay.
    let connections = Mutex::new(JoinSet::new());
    let accept = || accept_all(&listener, shared.clone(), &connections);
    keep_running("listener", shared.metrics.clone(), accept).await;
    drop(listener);
    let mut connections = connections.into_inner();
    while connections.join_next().await.is_some() {}
}

/// Accepts until the phase is [`Phase::Closing`].
async fn accept_all(listener: &Listener, shared: Shared, connections: &Mutex<JoinSet<()>>) {
    let Listener { socket, name, tls } = listener;
    let Shared { proxy, limits, room, mut watch, .. } = shared;
    let mut connections = connections.lock().await;
    let mut closing = watch.clone();
    loop {
        let permit = tokio::select! {
            biased;
            () = closing.reached(Phase::Closing) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let Some(accepted) = accept(socket, &mut connections, &mut watch).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let info = Arc::new(Connection::new(peer, scheme, Arc::clone(name), permit.ok()));
                let carrier = ConnTask::default();
                let carried = carrier.clone();
                let (proxy, limits) = (Arc::clone(&proxy), Arc::clone(&limits));
                let (watch, tls) = (watch.clone(), tls.clone());
                let task = connections.spawn(async move {
                    let mut closing = watch.clone();
                    let io = tokio::select! {
                        biased;
                        io = bytes(stream, tls.as_deref(), &limits) => io,
                        // Half a handshake must not hold up a drain.
                        () = closing.reached(Phase::Closing) => return,
                    };
                    match io {
                        Ok(io) => conn::serve(io, (info, carried), proxy, &limits, watch).await,
                        Err(error) => {
                            tracing::debug!(peer = %info.peer, %error, "no TLS handshake")
                        }
                    }
                });
                carrier.set(task);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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
async fn bytes(stream: TcpStream, tls: Option<&Acceptor>, limits: &ListenerLimits) -> Result<Io> {
    let stream = Tcp::new(stream)?;
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
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
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

    /// Taken for IPv6 alone: IPv4 would be free, but the address was not there for lack of IPv6.
    #[tokio::test]
    async fn only_a_machine_without_ipv6_listens_on_ipv4_instead() {
        let taken = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        taken.set_only_v6(true).unwrap();
        taken.bind(&SocketAddr::from(([0u16; 8], 0)).into()).unwrap();
        taken.listen(1).unwrap();
        let address = taken.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }
}
