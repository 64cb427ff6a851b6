//! Files of secrets are followed by the configuration in force, whatever becomes of the file of that.

use std::path::Path;

use serde_json::json;

use crate::reload::{folder, refused, replace, shown, start, until, yaml};
use crate::support::{Backend, LAST_GET, TestProxy};
use crate::tls::{Authority, connector, tls_backend_for};

/// A key of sessions: 32 bytes as base64.
fn key(letter: char) -> String {
    format!("{}A=\n", letter.to_string().repeat(42))
}

fn call(method: &str, token: &str) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": {} }).to_string();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: m.ns\r\n{token}content-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A session's token of this host, as its client sends it.
pub(crate) async fn begin(proxy: &TestProxy, server: &Backend, host: &str) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: of-the-server\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let initialize = call("initialize", "").replace("m.ns", host);
    let (seen, _) = tokio::join!(proxy.ask(&initialize), server.answer(&answer));
    let token = seen.lines().find(|line| line.starts_with("mcp-session-id: ")).unwrap();
    assert!(!token.contains("of-the-server"), "{seen}");
    format!("{token}\r\n")
}

/// Whether the server gets a call of this session.
async fn knows(proxy: &TestProxy, server: &Backend, token: &str) -> bool {
    let request = call("tools/list", token);
    let answer = async {
        let mut call = server.accept().await;
        let head = call.until("\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.contains("mcp-session-id: of-the-server\r\n"), "{head}");
        let body = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [] } }).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
        call.send(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    };
    let mut ask = std::pin::pin!(proxy.ask(&request));
    tokio::select! {
        seen = &mut ask => {
            assert!(seen.starts_with("HTTP/1.1 404 "), "{seen}");
            false
        }
        () = answer => {
            let seen = ask.await;
            assert!(seen.starts_with("HTTP/1.1 200 "), "{seen}");
            true
        }
    }
}

/// `s.ns` asks for a certificate, `m.ns` has sessions.
fn configuration(folder: &Path, port: u16, sessions: u16) -> String {
    let shown = folder.display();
    let routes = format!(
        "- {{match: s.ns, targets: [\"https://127.0.0.1:{port}\"], tls: {{caFile: {shown}/ca, \
         certFile: {shown}/client, keyFile: {shown}/client, serverName: tools.kagent}}}}\n\
         - {{match: m.ns, targets: [\"http://127.0.0.1:{sessions}\"]}}\n\
         sessions: {{keyFiles: [{shown}/keys]}}\n"
    );
    yaml(folder, &routes)
}

#[tokio::test]
async fn every_file_of_a_secret_is_followed_while_the_configuration_is_gone() {
    let folder = folder("gone");
    let file = folder.join("config.yaml");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let both = |authority: &Authority, name| {
        let identity = authority.issue(name);
        (identity.cert.clone() + &identity.key, identity.cert)
    };
    let (listener, _) = both(&authority, "proxy.kagent");
    replace(&folder.join("tls.crt"), &listener);
    replace(&folder.join("tls.key"), &listener);
    // A backend that asks for a certificate, and a route that shows a stranger's.
    let server = authority.issue("tools.kagent");
    let port = tls_backend_for(&server, b"http/1.1", Some(&authority)).await;
    let (client, keys) = (folder.join("client"), folder.join("keys"));
    replace(&folder.join("ca"), &authority.pem());
    replace(&client, &both(&stranger, "proxy").0);
    replace(&keys, &key('A'));
    let sessions = Backend::start().await;
    let whole = configuration(&folder, port, sessions.port());
    replace(&file, &whole);
    let proxy = start(&file).await;
    let seen = proxy.ask(LAST_GET).await;
    assert!(seen.starts_with("HTTP/1.1 502 "), "{seen}");
    let token = begin(&proxy, &sessions, "m.ns").await;
    assert!(knows(&proxy, &sessions, &token).await);

    let reloads = |result: &str, count: u64| {
        format!("kagent_proxy_config_reloads_total{{result=\"{result}\"}} {count}\n")
    };
    std::fs::remove_file(&file).unwrap();
    until(&proxy, "/metrics", &reloads("refused", 1)).await;
    // A key and its certificate that do not fit, for a moment, are not counted as rotated.
    let (renewed, cert) = both(&authority, "proxy.kagent");
    replace(&folder.join("tls.key"), &renewed);
    replace(&folder.join("tls.crt"), &renewed);
    shown(&proxy, &connector(&authority.pem(), None, b"http/1.1"), &cert).await;
    // The route's, in one step.
    replace(&client, &both(&authority, "proxy").0);
    until(&proxy, "/metrics", &reloads("rotated", 2)).await;
    let seen = proxy.ask(LAST_GET).await;
    assert!(seen.starts_with("HTTP/1.1 200 "), "{seen}");
    // A second key in front: what the first one has sealed stays. Without that it is no session any more.
    replace(&keys, &(key('B') + &key('A')));
    until(&proxy, "/metrics", &reloads("rotated", 3)).await;
    assert!(knows(&proxy, &sessions, &token).await);
    let second = begin(&proxy, &sessions, "m.ns").await;
    replace(&keys, &key('B'));
    until(&proxy, "/metrics", &reloads("rotated", 4)).await;
    assert!(!knows(&proxy, &sessions, &token).await);
    assert!(knows(&proxy, &sessions, &second).await, "sealed by the key that came");
    // A file that is none changes nothing.
    let before = refused(&proxy).await;
    replace(&keys, "half written");
    until(&proxy, "/metrics", &reloads("refused", before + 1)).await;
    assert!(knows(&proxy, &sessions, &second).await);

    replace(&keys, &key('B'));
    replace(&file, &whole);
    until(&proxy, "/metrics", &reloads("applied", 1)).await;
    assert!(knows(&proxy, &sessions, &second).await);
    proxy.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}
