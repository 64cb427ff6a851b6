//! Calls whose pod is gone without a word: its connections stay open, and only the cluster knows.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kagent_proxy::config::{DiscoveryConfig, Endpoints};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::api::Api;
use crate::mcp_server::McpServer;
use crate::sessions::{HOST, begin, call, post};
use crate::support::{BOUND, Client, TestProxy, config};

/// Nothing else of these tests has this address: what is open to it is cut.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// Waits until the admin listener shows the text, or no longer.
async fn shows(proxy: &TestProxy, text: &str, there: bool) {
    let shown = async {
        while proxy.admin("/routes").await.contains(text) != there {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, shown).await.unwrap_or_else(|_| panic!("{text}: not {there}"));
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "a", "name": name, "uid": name},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

fn slice(address: &str) -> Value {
    json!({
        "metadata": {"namespace": "a", "name": "tools", "labels": {"kubernetes.io/service-name": "tools"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

/// A Service whose own address is that of a Pod, too.
fn put_objects(api: &Api, port: u16) {
    api.put(
        "services",
        json!({
            "metadata": {"namespace": "a", "name": "tools", "labels": {"kagent.dev/mcp-service": "true"}},
            "spec": {"clusterIP": ADDRESS, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]},
        }),
    );
    api.put("endpointslices", slice("10.0.0.1"));
    api.put("pods", pod("tools-0", "10.0.0.1"));
    api.put("pods", pod("silent", &ADDRESS.to_string()));
}

/// A Service that is replaced is gone for a moment: longer than others wait, and sessions wait for it.
#[tokio::test]
async fn a_session_waits_for_a_service_that_comes_back() {
    let api = Api::start().await;
    let server = McpServer::start().await;
    let service = json!({
        "metadata": {"namespace": "team-a", "name": "tools", "labels": {"kagent.dev/mcp-service": "true"}},
        "spec": {"clusterIP": "127.0.0.1", "ports": [
            {"name": "http", "port": server.address.port(), "protocol": "TCP"},
        ]},
    });
    api.put("services", service.clone());
    let mut config = config(Vec::new());
    *config.discovery = DiscoveryConfig {
        enabled: true,
        kubeconfig: Some(api.kubeconfig()),
        endpoints: Endpoints::Service,
        ..DiscoveryConfig::default()
    };
    config.discovery.inherited.hold.request = Duration::from_millis(50);
    let proxy = TestProxy::start(config).await;
    let host = format!("\"host\":\"{HOST}\"");
    shows(&proxy, &host, true).await;
    let token = begin(&proxy).await;
    api.delete("services", "team-a", "tools");
    shows(&proxy, &host, false).await;
    let message = call("count", "x");
    let (answer, refused) = tokio::join!(post(&proxy, Some(&token), &message), async {
        // When this one is refused, the other one has waited as long.
        let refused = post(&proxy, None, &message).await;
        api.put("services", service);
        refused
    });
    assert_eq!((refused.status, answer.count()), (503, 1));
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_whose_pod_is_gone_is_answered_though_its_connection_stands() {
    let api = Api::start().await;
    let server = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    put_objects(&api, port);
    let mut config = config(Vec::new());
    *config.discovery = DiscoveryConfig {
        enabled: true,
        kubeconfig: Some(api.kubeconfig()),
        // A pod on loopback is not dialled by its own address.
        endpoints: Endpoints::Service,
        ..DiscoveryConfig::default()
    };
    let proxy = TestProxy::start(config).await;
    shows(&proxy, &ADDRESS.to_string(), true).await;

    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
    let length = call.len();
    let mut client = proxy.connect().await;
    client
        .send(&format!(
            "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: tools.a\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n{call}"
        ))
        .await;
    let mut asked = Client(server.accept().await.unwrap().0);
    asked.until("tools/call").await;
    asked
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.until("text/event-stream").await;
    // What is only out of its slice goes on.
    api.put("endpointslices", slice("10.0.0.2"));
    shows(&proxy, "10.0.0.2", true).await;
    asked.send("9\r\n: alive\n\n\r\n").await;
    client.until(": alive").await;

    let gone = Instant::now();
    api.delete("pods", "a", "silent");
    let answer = client.rest().await;
    assert!(answer.contains("\"isError\":true"), "{answer}");
    assert!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
    drop(asked);
    proxy.stop().await;
}
