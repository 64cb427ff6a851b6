//! One descriptor that neither a client nor a backend may take: an operator is heard on it when all others are in use.
//!
//! Every accept and every dial asks here. One lock lies around "give the reserve up and accept", or whoever waits for a
//! descriptor would take it in between; and nothing is opened while the reserve is missing, so that the next descriptor
//! that becomes free is the reserve again. Knows no port and no request.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::unconstrained;

/// `None` before the first connection, while it is given up, and when it was lost to a part that does not ask here, such
/// as a resolver of names.
static RESERVE: Mutex<Option<File>> = Mutex::new(None);

/// A connection has the place of the reserve; dropped after it, so that its descriptor becomes the reserve.
#[derive(Debug)]
pub struct Lent(());

/// The next client.
///
/// # Errors
/// The kernel's; also where the last descriptor has to become the reserve.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| match beside(|| listener.poll_accept(cx)) {
        Ok(polled) => polled,
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

/// A connection to a backend.
///
/// # Errors
/// The kernel's; also where the last descriptor has to become the reserve.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let open = if address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
    beside(open)??.connect(address).await
}

/// The client who waits, where an accept has failed for want of a descriptor; `None` if nobody waits, or the reserve is
/// given up already.
pub async fn accept_on_it(listener: &TcpListener, failed: &io::Error) -> Option<(TcpStream, Lent)> {
    if !is_exhausted(failed) {
        return None;
    }
    // A budget that is used up is no reason to let a client wait.
    unconstrained(poll_fn(|cx| Poll::Ready(in_its_place(listener, cx)))).await
}

fn in_its_place(listener: &TcpListener, cx: &mut Context<'_>) -> Option<(TcpStream, Lent)> {
    let mut reserve = lock();
    fill(&mut reserve).ok()?;
    drop(reserve.take()?);
    if let Poll::Ready(Ok((stream, _))) = listener.poll_accept(cx) {
        return Some((stream, Lent(())));
    }
    let _taken_by_others = fill(&mut reserve);
    None
}

/// Opens something while the reserve is there, and stays there.
fn beside<T>(open: impl FnOnce() -> T) -> io::Result<T> {
    let mut reserve = lock();
    fill(&mut reserve)?;
    Ok(open())
}

/// Any file will do; where there is none, there is no reserve.
fn fill(reserve: &mut Option<File>) -> io::Result<()> {
    if reserve.is_none() {
        match File::open("/dev/null") {
            Ok(file) => *reserve = Some(file),
            Err(error) if is_exhausted(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Whether no descriptor is left, of ours or of the machine's.
fn is_exhausted(error: &io::Error) -> bool {
    [Some(libc::EMFILE), Some(libc::ENFILE)].contains(&error.raw_os_error())
}

fn lock() -> MutexGuard<'static, Option<File>> {
    // Whole at every moment.
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Lent ===

impl Drop for Lent {
    fn drop(&mut self) {
        let _later = fill(&mut lock());
    }
}
