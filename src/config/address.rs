//! Addresses to listen on: how they are written, and which of them exclude each other.
//!
//! Plain text and numbers; binds nothing.

use std::net::{IpAddr, SocketAddr};

use super::Config;

/// Every listener that cannot be opened beside one before it: its key, and what to write.
pub(super) fn conflicts(config: &Config) -> Vec<(String, String)> {
    let admin = &config.admin;
    let mut taken = vec![("admin".to_owned(), admin.address)];
    let mut found = Vec::new();
    let local = ("admin.local".to_owned(), "admin.local".to_owned(), admin.local());
    let local = Some(local).filter(|_| admin.local() != admin.address);
    let traffic = config.listeners.iter().enumerate().map(|(at, listener)| {
        (format!("listeners[{at}].address"), listener.name.clone(), listener.address)
    });
    for (key, name, address) in local.into_iter().chain(traffic) {
        match taken.iter().find(|(_, old)| meet(*old, address)) {
            Some((holder, old)) => {
                let reason = format!("{address} is taken by {old} of {holder}; write another port");
                found.push((key, reason));
            }
            None => taken.push((name, address)),
        }
    }
    found
}

/// Whether the kernel lets one process listen on only one of these. `[::]` takes IPv4 too.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let [a, b] = [one, other].map(|address| address.ip().to_canonical());
    let takes = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (a == b || takes(a, b) || takes(b, a))
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address; write IP:PORT, such as 127.0.0.1:8080 or [::]:8080")
    })
}

pub(super) fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address = parse_address(text)?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "{text:?} is not on loopback; write one such as 127.0.0.1:9091, or admin.expose: all to show everything elsewhere"
    ))
}
