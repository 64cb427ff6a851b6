//! Opens ports: one socket, or one for each worker on the same port.
//!
//! Knows addresses; nothing of what is served.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 4096;

/// Binds; `[::]` takes IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let socket = first(address)?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// So many sockets on one port, among which the kernel spreads connections. Nobody else may have the port. A kernel
/// that does not do this gives one socket, of which the others are copies: each of them sees all connections.
///
/// # Errors
/// As [`bind`].
pub fn bind_each(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>> {
    let socket = first(address)?;
    // It is ours alone by now; only from here on we share it with ourselves.
    let shares = count > 1 && socket.set_reuse_port(true).is_ok();
    socket.listen(BACKLOG)?;
    let first = TcpListener::from(socket);
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..count {
        let next = match all.first() {
            Some(first) if !shares => first.try_clone()?,
            _ => {
                let next = unbound(address)?;
                next.set_reuse_port(true)?;
                next.bind(&address.into())?;
                next.listen(BACKLOG)?;
                next.into()
            }
        };
        all.push(next);
    }
    Ok(all)
}

/// A socket that has the address for itself.
fn first(address: SocketAddr) -> Result<Socket> {
    let every_ipv6 = address.is_ipv6() && address.ip().is_unspecified();
    match alone(address) {
        Err(error) if every_ipv6 && lacks_ipv6(&error) => {
            tracing::info!(%address, %error, "no IPv6 here, listening on IPv4");
            alone(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        other => other,
    }
}

fn alone(address: SocketAddr) -> Result<Socket> {
    let socket = unbound(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The kernel has no IPv6, or it is switched off.
fn lacks_ipv6(error: &Error) -> bool {
    [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)].contains(&error.raw_os_error())
}

fn unbound(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    /// Taken for IPv6 alone: IPv4 would be free, but the address was not there for lack of IPv6.
    #[tokio::test]
    async fn only_a_machine_without_ipv6_listens_on_ipv4_instead() {
        let taken = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        taken.set_only_v6(true).unwrap();
        taken.bind(&SocketAddr::from(([0u16; 8], 0)).into()).unwrap();
        taken.listen(1).unwrap();
        let address = taken.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn sockets_of_one_port_share_its_connections() {
        for any in ["127.0.0.1:0", "[::]:0"] {
            let all = bind_each(any.parse().unwrap(), 3).unwrap();
            let port = all[0].local_addr().unwrap().port();
            assert!(all.iter().all(|one| one.local_addr().unwrap().port() == port));
            let clients: Vec<_> =
                (0..64).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
            let taken = all.iter().map(|one| std::iter::from_fn(|| one.accept().ok()).count());
            let taken: Vec<usize> = taken.collect();
            assert_eq!(taken.iter().sum::<usize>(), clients.len(), "{taken:?}");
            // None by chance: once in 10^11 times.
            assert!(taken.iter().all(|taken| *taken > 0), "{taken:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_shared_among_workers_is_taken_for_everyone_else() {
        let all = bind_each("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = all[0].local_addr().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(bind_each(address, 2).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(bind_each(address, 1).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
