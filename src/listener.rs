//! Where clients connect: bind, accept, one task for each connection.
//!
//! Knows sockets and the drain; nothing of routes. `listener/conn.rs` serves what it accepts.

pub mod conn;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::ListenerLimits;
use crate::drain::{Phase, Watch};
use crate::proxy::Proxy;
use crate::proxy::facts::ConnInfo;

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 4096;
/// After an accept error, usually too many open files: long enough for some to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds; `[::]` takes IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_exactly(address) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() => {
            tracing::info!(%address, %error, "no IPv6 here, listening on IPv4");
            bind_exactly(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        other => other,
    }
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Accepts until the phase is [`Phase::Closing`], then waits for its connections to end; dropping the
/// future cuts them.
pub async fn run(
    listener: TcpListener,
    name: &str,
    proxy: Arc<Proxy>,
    limits: ListenerLimits,
    mut watch: Watch,
) {
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let limits = Arc::new(limits);
    let name: Arc<str> = name.into();
    let mut connections = JoinSet::new();
    let mut closing = watch.clone();
    loop {
        let permit = tokio::select! {
            biased;
            () = closing.reached(Phase::Closing) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            biased;
            () = watch.reached(Phase::Closing) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let info = ConnInfo {
                    peer,
                    scheme: "http",
                    listener: Arc::clone(&name),
                    open: Arc::default(),
                };
                let (proxy, limits) = (Arc::clone(&proxy), Arc::clone(&limits));
                let watch = watch.clone();
                connections.spawn(async move {
                    conn::serve(stream, info, proxy, &limits, watch).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
