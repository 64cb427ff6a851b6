//! Replicas of the proxy that know each other, and their common key.
//!
//! Nothing here knows what is being tested.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::future::join_all;
use kagent_proxy::config::Config;

use super::{BOUND, TestProxy};

/// A file with the key of sessions.
pub(crate) fn key_file(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kagent-proxy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = folder.join("session-key");
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    key
}

/// One of loopback that no other scenario listens at, and no connection comes from.
fn own_address() -> IpAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 128 | high, low, TAKEN.fetch_add(1, Ordering::Relaxed)])
}

/// Replicas that know each other.
pub(crate) async fn replicas<const N: usize>(name: &str, config: &Config) -> [TestProxy; N] {
    let key = key_file(name);
    // Their admin listeners have to know each other before they are bound, at an address where nobody else takes a port.
    let own = own_address();
    let free = || std::net::TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
    let admins = [(); N].map(|()| free());
    let start = admins.map(|admin| {
        let mut config = config.clone();
        config.admin.address = admin;
        config.sessions.key_files = vec![key.clone()];
        config.sessions.peers = admins.iter().map(ToString::to_string).collect();
        TestProxy::start(config)
    });
    let replicas: [TestProxy; N] =
        join_all(start).await.try_into().unwrap_or_else(|_| panic!("as many as asked for"));
    let others = format!("kagent_proxy_session_peers {}", N - 1);
    for replica in &replicas {
        let knows = async {
            while !replica.admin("/metrics").await.contains(&others) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, knows).await.expect("replicas find each other");
    }
    replicas
}
