//! The whole proxy: any bytes on a connection, against a backend that answers each request it sees.
//!
//! The program must go on serving: after each input a plain request gets its answer.

#![no_main]

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use kagent_proxy::app::App;
use kagent_proxy::config::{Config, RouteConfig, RouteTarget, Sources, target::parse_targets};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Nothing on loopback takes longer; an input that does is a finding.
const BOUND: Duration = Duration::from_secs(5);

fn world() -> &'static (Runtime, SocketAddr) {
    static WORLD: OnceLock<(Runtime, SocketAddr)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let address = runtime.block_on(async {
            let backend = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = backend.local_addr().expect("an address").port();
            tokio::spawn(answer_all(backend));
            let mut config = Config::sidecar();
            for listener in &mut config.listeners {
                listener.address.set_port(0);
            }
            config.admin.address.set_port(0);
            let targets = parse_targets(&format!("127.0.0.1:{port}")).expect("a target");
            let to = RouteTarget::new(targets);
            config.routes =
                vec![RouteConfig { host: "s.ns".to_owned(), prefix: "/".to_owned(), to }];
            let bound = App::build(config, &Sources::default()).await.expect("it builds");
            let address = *bound.addresses.first().expect("a listener");
            tokio::spawn(bound.run());
            address
        });
        (runtime, address)
    })
}

/// Answers whatever looks like the end of a head, and closes.
async fn answer_all(listener: TcpListener) {
    loop {
        let Ok((mut call, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !seen.windows(4).any(|w| w == b"\r\n\r\n") {
                if call.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _client_may_be_gone = call.write_all(answer).await;
        });
    }
}

async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.expect("the proxy listens");
    let _it_may_close_early = client.write_all(bytes).await;
    let _nothing_more = client.shutdown().await;
    let mut answer = Vec::new();
    let _a_reset_is_an_end = client.read_to_end(&mut answer).await;
    answer
}

fuzz_target!(|bytes: &[u8]| {
    let (runtime, address) = world();
    runtime.block_on(async {
        let whole = async {
            exchange(*address, bytes).await;
            let plain =
                b"GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
            let mut client = TcpStream::connect(*address).await.expect("the proxy listens");
            client.write_all(plain).await.expect("the proxy reads");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("the proxy answers");
            assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", answer.escape_ascii());
        };
        tokio::time::timeout(BOUND, whole).await.expect("the proxy hangs");
    });
});
