//! Routes and TLS files follow their files; streams, pools and bad files do not disturb anybody.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kagent_proxy::app::App;
use kagent_proxy::cli::ConfigArgs;
use kagent_proxy::config;
use tokio::net::TcpStream;

use crate::support::{Backend, GET, OK, TestProxy};
use crate::tls::{Authority, chain, connector, tls_backend};

/// A new content in one step, as Kubernetes does it.
pub(crate) fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}

pub(crate) fn yaml(folder: &Path, routes: &str) -> String {
    let folder = folder.display();
    format!(
        "listeners:\n\
         - {{name: plain, address: \"127.0.0.1:0\"}}\n\
         - {{name: tls, address: \"127.0.0.1:0\", tls: {{certFile: {folder}/tls.crt, keyFile: {folder}/tls.key}}}}\n\
         admin: {{address: \"127.0.0.1:0\"}}\n\
         drain: {{lag: 0s, deadline: 10s}}\n\
         reloadEvery: 10ms\n\
         routes:\n{routes}"
    )
}

fn to(host: &str, backend: &Backend) -> String {
    format!("- {{match: {host}, targets: [\"http://127.0.0.1:{}\"]}}\n", backend.port())
}

pub(crate) async fn start(file: &Path) -> TestProxy {
    let args = ConfigArgs { config: Some(file.to_owned()), ..ConfigArgs::default() };
    let loaded = config::load(&args, &BTreeMap::new()).unwrap();
    let bound = Box::pin(App::build(loaded.config, &loaded.sources)).await.unwrap();
    let load = move || config::load(&args, &BTreeMap::new());
    TestProxy::run(bound.following(loaded.file, Box::new(load)))
}

/// Until the admin listener shows it; bounded by the harness.
pub(crate) async fn until(proxy: &TestProxy, path: &str, part: &str) {
    comes(proxy, path, part, true).await;
}

/// Until the admin listener does not show it any more.
async fn without(proxy: &TestProxy, path: &str, part: &str) {
    comes(proxy, path, part, false).await;
}

async fn comes(proxy: &TestProxy, path: &str, part: &str, wanted: bool) {
    let wait = async {
        while proxy.admin(path).await.contains(part) != wanted {
            // Between two looks at another process's state.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::BOUND, wait)
        .await
        .unwrap_or_else(|_| panic!("{part}: {wanted} never came"));
}

pub(crate) fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("kagent-proxy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn routes_and_certificates_change_under_an_open_stream() {
    let folder = folder("reload");
    let file = folder.join("config.yaml");
    let authority = Authority::new();
    let identity = authority.issue("proxy.kagent");
    replace(&folder.join("tls.crt"), &identity.cert);
    replace(&folder.join("tls.key"), &identity.key);
    let (first, second) = (Backend::start().await, Backend::start().await);
    replace(&file, &yaml(&folder, &to("s.ns", &first)));
    let proxy = start(&file).await;

    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call = first.accept().await;
    call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
    client.until("\r\n\r\n").await;

    // A route more: the first one keeps its connections.
    let mut warm = proxy.connect().await;
    warm.send(GET).await;
    let mut pooled = first.accept().await;
    pooled.until("\r\n\r\n").await;
    pooled.send(OK).await;
    warm.until("ok").await;
    replace(&file, &yaml(&folder, &(to("s.ns", &first) + &to("t.ns", &second))));
    until(&proxy, "/routes", "t.ns").await;
    until(&proxy, "/config", "t.ns").await;
    warm.send(GET).await;
    pooled.until("\r\n\r\n").await;
    pooled.send(OK).await;
    warm.until("ok").await;

    // A bad file is refused loudly, and nothing changes.
    replace(&file, &yaml(&folder, "- {match: s.ns, target: []}\n"));
    until(&proxy, "/metrics", "kagent_proxy_config_reloads_total{result=\"refused\"} 1").await;
    assert!(proxy.admin("/routes").await.contains("t.ns"));

    // Another target for the same host; the stream stays where it is.
    replace(&file, &yaml(&folder, &to("s.ns", &second)));
    until(&proxy, "/metrics", "kagent_proxy_config_reloads_total{result=\"applied\"} 2").await;
    let mut other = proxy.connect().await;
    other.send(GET).await;
    let mut moved = second.accept().await;
    moved.until("\r\n\r\n").await;
    moved.send(OK).await;
    other.until("ok").await;
    call.send("data: still here\n\n").await;
    client.until("data: still here\n\n").await;

    // Another certificate, from the next handshake on.
    let renewed = authority.issue("proxy.kagent");
    let trusted = connector(&authority.pem(), None, b"http/1.1");
    replace(&folder.join("tls.key"), &renewed.key);
    replace(&folder.join("tls.crt"), &renewed.cert);
    shown(&proxy, &trusted, &renewed.cert).await;
    drop((client, call, warm, pooled, other, moved));
    proxy.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_refused_file_is_taken_when_the_secret_it_names_arrives() {
    // Kubernetes updates ConfigMaps and Secrets each in its own time.
    let folder = folder("late-secret");
    let file = folder.join("config.yaml");
    let authority = Authority::new();
    let identity = authority.issue("proxy.kagent");
    replace(&folder.join("tls.crt"), &identity.cert);
    replace(&folder.join("tls.key"), &identity.key);
    let backend = Backend::start().await;
    let one = to("s.ns", &backend);
    replace(&file, &yaml(&folder, &one));
    let proxy = start(&file).await;
    let ca = folder.join("late.ca");
    let two = format!(
        "{one}- {{match: t.ns, targets: [\"https://127.0.0.1:1\"], tls: {{caFile: {}}}}}\n",
        ca.display()
    );
    replace(&file, &yaml(&folder, &two));
    until(&proxy, "/metrics", "kagent_proxy_config_reloads_total{result=\"refused\"} 1").await;
    assert!(!proxy.admin("/routes").await.contains("t.ns"));
    replace(&ca, &authority.pem());
    until(&proxy, "/routes", "t.ns").await;

    // A listener's certificate in another file: shown as what is in force, and followed there.
    let renewed = authority.issue("proxy.kagent");
    replace(&folder.join("new.crt"), &identity.cert);
    let moved = yaml(&folder, &two).replace("/tls.crt", "/new.crt");
    replace(&file, &moved);
    until(&proxy, "/config", "/new.crt").await;
    replace(&folder.join("tls.key"), &renewed.key);
    replace(&folder.join("new.crt"), &renewed.cert);
    let trusted = connector(&authority.pem(), None, b"http/1.1");
    shown(&proxy, &trusted, &renewed.cert).await;
    proxy.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn certificates_rotate_while_the_changed_configuration_is_refused() {
    let folder = folder("beside-a-fault");
    let file = folder.join("config.yaml");
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = authority.issue("proxy.kagent");
    replace(&folder.join("tls.crt"), &identity.cert);
    replace(&folder.join("tls.key"), &identity.key);
    let port = tls_backend(&authority.issue("tools.kagent"), b"http/1.1").await;
    let ca = folder.join("upstream.ca");
    replace(&ca, &other.pem());
    let routes = format!(
        "- {{match: s.ns, targets: [\"https://127.0.0.1:{port}\"], \
         tls: {{caFile: {}, serverName: tools.kagent}}}}\n",
        ca.display()
    );
    replace(&file, &yaml(&folder, &routes));
    let proxy = start(&file).await;
    let ask =
        || async { proxy.ask(&GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await };
    assert!(ask().await.starts_with("HTTP/1.1 502 connect_failed"));

    // A typing error, and a route whose authority is missing: both are refused as a whole.
    let missing =
        "- {match: t.ns, targets: [\"https://127.0.0.1:1\"], tls: {caFile: /nonexistent/ca}}\n";
    let trusted = connector(&authority.pem(), None, b"http/1.1");
    for routes in ["- {match: s.ns, target: []}\n", missing] {
        let before = refused(&proxy).await;
        replace(&file, &yaml(&folder, routes));
        let counted = async {
            while refused(&proxy).await == before {
                // Between two looks at another process's state.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::support::BOUND, counted).await.expect("it was not refused");
        let renewed = authority.issue("proxy.kagent");
        // One step: a key that does not fit its certificate is refused, and again counted.
        let both = format!("{}{}", renewed.cert, renewed.key);
        replace(&folder.join("tls.key"), &both);
        replace(&folder.join("tls.crt"), &both);
        shown(&proxy, &trusted, &renewed.cert).await;
    }
    // A route's authority too, beside a listener's certificate that is no certificate.
    replace(&folder.join("tls.crt"), "half written");
    replace(&ca, &authority.pem());
    let answered = async {
        while !ask().await.starts_with("HTTP/1.1 200 ") {
            // Between two looks at the files.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::BOUND, answered)
        .await
        .expect("the authority is not followed");
    assert!(!proxy.admin("/routes").await.contains("t.ns"), "what was refused stays refused");
    proxy.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_withdrawn_authority_is_not_trusted_by_connections_of_before() {
    let folder = folder("withdrawn");
    let file = folder.join("config.yaml");
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = authority.issue("proxy.kagent");
    replace(&folder.join("tls.crt"), &identity.cert);
    replace(&folder.join("tls.key"), &identity.key);
    for (alpn, version) in [(&b"h2"[..], "HTTP/2.0"), (b"http/1.1", "HTTP/1.1")] {
        let port = tls_backend(&authority.issue("tools.kagent"), alpn).await;
        let ca = folder.join("upstream.ca");
        replace(&ca, &authority.pem());
        let routes = format!(
            "- {{match: s.ns, targets: [\"https://127.0.0.1:{port}\"], \
             tls: {{caFile: {}, serverName: tools.kagent}}}}\n",
            ca.display()
        );
        replace(&file, &yaml(&folder, &routes));
        let proxy = start(&file).await;
        let ask =
            || async { proxy.ask(&GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await };
        for _ in 0..2 {
            let answer = ask().await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(version), "{answer}");
        }
        let reused = "kagent_proxy_upstream_connections_total{route=\"s.ns\",event=\"reused\"} 1";
        until(&proxy, "/metrics", reused).await;
        // A reload that leaves the files as they are leaves the connections too.
        let more = routes.clone() + "- {match: t.ns, targets: [\"http://127.0.0.1:1\"]}\n";
        replace(&file, &yaml(&folder, &more));
        until(&proxy, "/routes", "t.ns").await;
        assert!(ask().await.starts_with("HTTP/1.1 200 "));
        until(&proxy, "/metrics", &reused.replace("} 1", "} 2")).await;
        replace(&ca, &other.pem());
        until(&proxy, "/metrics", "kagent_proxy_config_reloads_total{result=\"applied\"} 2").await;
        let answer = ask().await;
        assert!(answer.starts_with("HTTP/1.1 502 connect_failed"), "{version}: {answer}");
        proxy.stop().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// How many changed configurations were refused.
pub(crate) async fn refused(proxy: &TestProxy) -> u64 {
    let metrics = proxy.admin("/metrics").await;
    let name = "kagent_proxy_config_reloads_total{result=\"refused\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or("0").parse().unwrap()
}

/// Until the TLS listener shows this certificate.
pub(crate) async fn shown(proxy: &TestProxy, trusted: &tokio_rustls::TlsConnector, cert: &str) {
    let shown = async {
        loop {
            let tcp = TcpStream::connect(proxy.addresses[1]).await.unwrap();
            let tls = trusted.connect("proxy.kagent".try_into().unwrap(), tcp).await.unwrap();
            if tls.get_ref().1.peer_certificates().unwrap()[0] == chain(cert)[0] {
                return;
            }
            // Between two handshakes.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::BOUND, shown).await.expect("the old certificate stays");
}

#[tokio::test]
async fn a_route_s_series_go_with_its_last_request_and_others_stay() {
    let folder = folder("series");
    let file = folder.join("config.yaml");
    let identity = Authority::new().issue("proxy.kagent");
    replace(&folder.join("tls.crt"), &identity.cert);
    replace(&folder.join("tls.key"), &identity.key);
    let (stays, goes) = (Backend::start().await, Backend::start().await);
    let (one, both) = (to("s.ns", &stays), to("s.ns", &stays) + &to("t.ns", &goes));
    replace(&file, &yaml(&folder, &both));
    let proxy = start(&file).await;
    let closing = GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let (answer, _) = tokio::join!(proxy.ask(&closing), stays.answer(OK));
    assert!(answer.ends_with("ok"), "{answer}");
    let counted =
        "requests_total{route=\"s.ns\",class=\"unary\",status=\"200\",outcome=\"complete\"} 1\n";
    until(&proxy, "/metrics", counted).await;

    // A stream on the route that goes: its series last as long.
    let mut client = proxy.connect().await;
    client.send(&GET.replace("s.ns", "t.ns")).await;
    let mut call = goes.accept().await;
    call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    replace(&file, &yaml(&folder, &one));
    until(&proxy, "/metrics", "kagent_proxy_config_reloads_total{result=\"applied\"} 1").await;
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_open_streams{route=\"t.ns\"} 1\n"), "{metrics}");
    assert!(metrics.contains(counted), "{metrics}");
    drop((call, client));
    without(&proxy, "/metrics", "t.ns").await;
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(metrics.matches("# TYPE kagent_proxy_requests_total ").count(), 1, "{metrics}");

    // A route that comes back begins at zero; one that only changes goes on.
    let slower = both.replace("targets", "timeouts: {unary: {head: 9s}}, targets");
    assert_ne!(slower, both);
    replace(&file, &yaml(&folder, &slower));
    until(&proxy, "/routes", "t.ns").await;
    let metrics = proxy.admin("/metrics").await;
    let back = "kagent_proxy_upstream_connections_total{route=\"t.ns\",event=\"opened\"} 0\n";
    assert!(metrics.contains(back) && metrics.contains(counted), "{metrics}");
    assert!(!metrics.contains("requests_total{route=\"t.ns\""), "{metrics}");
    let (answer, _) = tokio::join!(proxy.ask(&closing), stays.answer(OK));
    assert!(answer.ends_with("ok"), "{answer}");
    until(&proxy, "/metrics", &counted.replace("} 1", "} 2")).await;
    proxy.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}
