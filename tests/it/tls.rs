//! TLS on both sides: who is trusted, who is not, and what the errors say.

use std::sync::Arc;

use hyper::client::conn::http2::SendRequest;
use kagent_proxy::config::{ClientTls, ListenerConfig, RouteConfig, Scheme, Secret, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{
    BOUND, Backend, LAST_GET, LAST_OK, TestProxy, before, config, route, start_with,
};

/// An authority of the test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }
}

pub(crate) fn inline(text: &str) -> Secret {
    Secret::Inline(text.into())
}

pub(crate) fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A client that trusts this authority, and shows this certificate.
pub(crate) fn connector(ca: &str, identity: Option<&Identity>, alpn: &[u8]) -> TlsConnector {
    kagent_proxy::tls::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain(ca).remove(0)).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain(&identity.cert), key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A client that speaks HTTP/2 over TLS, and its connection.
pub(crate) async fn http2(
    proxy: std::net::SocketAddr,
    connector: &TlsConnector,
) -> (SendRequest<String>, JoinHandle<hyper::Result<()>>) {
    let tcp = TcpStream::connect(proxy).await.unwrap();
    let tls = connector.connect("proxy.kagent".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(tls);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = Box::pin(hyper::client::conn::http2::handshake(executor, io));
    let (sender, connection) = handshake.await.unwrap();
    (sender, tokio::spawn(connection))
}

/// One request over TLS; the whole answer, or why there is none.
pub(crate) async fn ask(
    proxy: std::net::SocketAddr,
    connector: &TlsConnector,
    request: &str,
) -> std::io::Result<String> {
    let tcp = TcpStream::connect(proxy).await?;
    let mut tls = connector.connect("proxy.kagent".try_into().unwrap(), tcp).await?;
    tls.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(BOUND, tls.read_to_end(&mut answer)).await.expect("no end")?;
    Ok(String::from_utf8(answer).unwrap())
}

pub(crate) fn listener(name: &str, tls: Option<ServerTls>) -> ListenerConfig {
    ListenerConfig { name: name.to_owned(), address: ([127, 0, 0, 1], 0).into(), tls }
}

pub(crate) fn server_tls(
    identity: &Identity,
    clients: Option<&Authority>,
    required: bool,
) -> ServerTls {
    ServerTls {
        cert: inline(&identity.cert),
        key: inline(&identity.key),
        client_ca: clients.map(|authority| inline(&authority.pem())),
        require_client_cert: required,
    }
}

#[tokio::test]
async fn a_tls_listener_stands_beside_a_plain_one_and_may_ask_for_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.issue("proxy.kagent");
    let backend = Backend::start().await;
    let mut config = before(&backend);
    let tls = server_tls(&server, None, false);
    let asking = server_tls(&server, Some(&authority), true);
    config.listeners =
        vec![listener("plain", None), listener("tls", Some(tls)), listener("mutual", Some(asking))];
    let proxy = TestProxy::start(config).await;
    let (plain, open, mutual) = (proxy.addresses[0], proxy.addresses[1], proxy.addresses[2]);
    assert_eq!(plain, proxy.address);
    let known = connector(&authority.pem(), None, b"http/1.1");
    let (answer, head) = tokio::join!(ask(open, &known, LAST_GET), backend.answer(LAST_OK));
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK"));
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    let (answer, head) = tokio::join!(proxy.ask(LAST_GET), backend.answer(LAST_OK));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(head.contains("x-forwarded-proto: http\r\n"), "{head}");

    let client = authority.issue("client");
    let shown = connector(&authority.pem(), Some(&client), b"http/1.1");
    let (answer, _) = tokio::join!(ask(mutual, &shown, LAST_GET), backend.answer(LAST_OK));
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK"));
    let foreign = connector(&authority.pem(), Some(&stranger.issue("client")), b"http/1.1");
    for refused in [&known, &foreign] {
        let answer = ask(mutual, refused, LAST_GET).await;
        assert!(!answer.as_ref().is_ok_and(|text| !text.is_empty()), "{answer:?}");
    }
    proxy.stop().await;
}

/// A TLS backend that answers every request on its first connections with `OK`.
pub(crate) async fn tls_backend(identity: &Identity, alpn: &[u8]) -> u16 {
    tls_backend_for(identity, alpn, None).await
}

/// As [`tls_backend`], for clients with a certificate of this authority only.
pub(crate) async fn tls_backend_for(
    identity: &Identity,
    alpn: &[u8],
    clients: Option<&Authority>,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, identity, alpn, clients);
    port
}

/// The side of a backend that speaks this version of HTTP.
pub(crate) fn acceptor(
    identity: &Identity,
    alpn: &[u8],
    clients: Option<&Authority>,
) -> TlsAcceptor {
    kagent_proxy::tls::install_provider();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let builder = rustls::ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(chain(&authority.pem()).remove(0)).unwrap();
            builder.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap(),
            )
        }
    };
    let mut config = builder.with_single_cert(chain(&identity.cert), key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn serve(listener: TcpListener, identity: &Identity, alpn: &[u8], clients: Option<&Authority>) {
    let acceptor = acceptor(identity, alpn, clients);
    let http2 = alpn == b"h2";
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(|request: http::Request<_>| async move {
                    let _: &hyper::body::Incoming = request.body();
                    let host = request.headers().get("host").cloned();
                    let host =
                        host.or_else(|| Some(request.uri().authority()?.as_str().parse().unwrap()));
                    let mut answer = http::Response::new("ok".to_owned());
                    answer.headers_mut().insert("x-host", host.unwrap());
                    let version = format!("{:?}", request.version());
                    answer.headers_mut().insert("x-version", version.parse().unwrap());
                    Ok::<_, std::convert::Infallible>(answer)
                });
                let _client_may_leave = if http2 {
                    let executor = hyper_util::rt::TokioExecutor::new();
                    hyper::server::conn::http2::Builder::new(executor)
                        .serve_connection(io, service)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                };
            });
        }
    });
}

/// A proxy whose `s.ns` speaks HTTP/1.1 over TLS, and what accepts its connections.
pub(crate) async fn before_https() -> (TestProxy, Backend, TlsAcceptor) {
    let authority = Authority::new();
    let acceptor = acceptor(&authority.issue("tools.kagent"), b"http/1.1", None);
    let (proxy, backend) = start_with(|config| {
        let to = &mut config.routes[0].to;
        to.targets[0].scheme = Scheme::Https;
        to.tls.ca = Some(inline(&authority.pem()));
        to.tls.server_name = Some("tools.kagent".to_owned());
    })
    .await;
    (proxy, backend, acceptor)
}

pub(crate) fn https(host: &str, port: u16, tls: ClientTls) -> RouteConfig {
    let mut route = route(host, "/", Scheme::Https, &[port]);
    route.to.tls = tls;
    route
}

#[tokio::test]
async fn an_https_target_is_trusted_by_its_authority_and_name_only() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let trust = |ca: &Authority, name: Option<&str>, skip: bool| ClientTls {
        ca: Some(inline(&ca.pem())),
        server_name: name.map(str::to_owned),
        insecure_skip_verify: skip,
        ..ClientTls::default()
    };
    for (alpn, version) in [(&b"h2"[..], "HTTP/2.0"), (b"http/1.1", "HTTP/1.1")] {
        let port = tls_backend(&authority.issue("tools.kagent"), alpn).await;
        let proxy = TestProxy::start(config(vec![
            https("good.ns", port, trust(&authority, Some("tools.kagent"), false)),
            https("skip.ns", port, trust(&stranger, None, true)),
            https("name.ns", port, trust(&authority, Some("other.kagent"), false)),
            https("stranger.ns", port, trust(&stranger, Some("tools.kagent"), false)),
        ]))
        .await;
        for (host, start, part) in [
            ("good.ns", "HTTP/1.1 200 OK", format!("x-version: {version}\r\n")),
            ("good.ns", "HTTP/1.1 200 OK", format!("x-host: 127.0.0.1:{port}\r\n")),
            ("skip.ns", "HTTP/1.1 200 OK", format!("x-version: {version}\r\n")),
            ("name.ns", "HTTP/1.1 502 connect_failed", "not valid for name".to_owned()),
            ("stranger.ns", "HTTP/1.1 502 connect_failed", "invalid peer certificate".to_owned()),
        ] {
            let answer = proxy.ask(&LAST_GET.replace("s.ns", host)).await;
            assert!(answer.starts_with(start) && answer.contains(&part), "{host}: {answer}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_https_target_that_asks_for_a_certificate_gets_the_route_s() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let shows = |identity: Option<&Identity>| ClientTls {
        ca: Some(inline(&authority.pem())),
        server_name: Some("tools.kagent".to_owned()),
        cert: identity.map(|identity| inline(&identity.cert)),
        key: identity.map(|identity| inline(&identity.key)),
        ..ClientTls::default()
    };
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let server = authority.issue("tools.kagent");
        let port = tls_backend_for(&server, alpn, Some(&authority)).await;
        let proxy = TestProxy::start(config(vec![
            https("known.ns", port, shows(Some(&authority.issue("proxy")))),
            https("foreign.ns", port, shows(Some(&stranger.issue("proxy")))),
            https("nobody.ns", port, shows(None)),
        ]))
        .await;
        let ask = |host: &str| {
            let request = LAST_GET.replace("s.ns", host);
            let proxy = &proxy;
            async move { proxy.ask(&request).await }
        };
        let answer = ask("known.ns").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        for refused in ["foreign.ns", "nobody.ns"] {
            // In TLS 1.3 the backend's refusal comes behind the handshake.
            let answer = ask(refused).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{refused}: {answer}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_tls_listener_speaks_http_2_to_who_negotiates_it() {
    let authority = Authority::new();
    let server = authority.issue("proxy.kagent");
    let backend = Backend::start().await;
    let mut config = before(&backend);
    config.listeners = vec![listener("tls", Some(server_tls(&server, None, false)))];
    let proxy = TestProxy::start(config).await;
    let connector = connector(&authority.pem(), None, b"h2");
    let (mut sender, connection) = http2(proxy.address, &connector).await;
    for path in ["/a", "/b"] {
        let request = http::Request::get(format!("https://proxy.kagent{path}"))
            .header("x-kagent-host", "s.ns")
            .body(String::new())
            .unwrap();
        let (answer, head) = tokio::join!(sender.send_request(request), backend.answer(LAST_OK));
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
        assert!(head.contains("x-forwarded-host: proxy.kagent\r\n"), "{head}");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn a_listener_may_take_clients_with_and_without_a_certificate_but_no_foreign_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.issue("proxy.kagent");
    let backend = Backend::start().await;
    let mut config = before(&backend);
    let tls = server_tls(&server, Some(&authority), false);
    config.listeners = vec![listener("tls", Some(tls))];
    let proxy = TestProxy::start(config).await;
    let known = authority.issue("client");
    for identity in [Some(&known), None] {
        let client = connector(&authority.pem(), identity, b"http/1.1");
        let (answer, _) =
            tokio::join!(ask(proxy.address, &client, LAST_GET), backend.answer(LAST_OK));
        assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK"));
    }
    let foreign = connector(&authority.pem(), Some(&stranger.issue("client")), b"http/1.1");
    let refused = ask(proxy.address, &foreign, LAST_GET).await;
    assert!(!refused.as_ref().is_ok_and(|text| !text.is_empty()), "{refused:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_plain_port_behind_an_https_target_says_so() {
    let backend = Backend::start().await;
    let tls = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    let proxy = TestProxy::start(config(vec![https("s.ns", backend.port(), tls)])).await;
    let plain = async {
        let mut call = backend.accept().await;
        call.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        call.rest().await
    };
    let (answer, _) = tokio::join!(proxy.ask(LAST_GET), plain);
    assert!(answer.starts_with("HTTP/1.1 502 connect_failed"), "{answer}");
    assert!(answer.contains("TLS handshake with 127.0.0.1 "), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn unusable_files_are_named_before_anything_is_bound() {
    let authority = Authority::new();
    let other = authority.issue("other");
    let server = authority.issue("proxy.kagent");
    let tls = |cert: &str, key: &str| ServerTls {
        cert: inline(cert),
        key: inline(key),
        client_ca: None,
        require_client_cert: false,
    };
    for (tls, why) in [
        (tls(&server.cert, &other.key), "listener tls: tls.cert: does not fit the key"),
        (tls("nothing", &server.key), "tls.cert: has no certificate"),
        (tls(&server.cert, "nothing"), "tls.key: has no private key"),
        (
            ServerTls {
                cert: Secret::File("/nowhere.crt".into()),
                ..tls(&server.cert, &server.key)
            },
            "tls.certFile /nowhere.crt: cannot be read",
        ),
    ] {
        let mut config = config(Vec::new());
        config.listeners = vec![listener("tls", Some(tls))];
        let error = TestProxy::refused(config).await;
        assert!(error.contains(why), "{error}");
    }
    let tls = ClientTls { ca: Some(Secret::File("/nowhere.ca".into())), ..ClientTls::default() };
    let error = TestProxy::refused(config(vec![https("s.ns", 1, tls)])).await;
    assert!(error.contains("route s.ns: tls.caFile /nowhere.ca: cannot be read"), "{error}");
}

#[tokio::test]
async fn a_burst_to_a_cold_https_target_shares_a_dial_where_the_target_speaks_http_2() {
    let authority = Authority::new();
    for (alpn, opened) in [(&b"h2"[..], 1), (b"http/1.1", 10)] {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = backend.local_addr().unwrap().port();
        let ca = inline(&authority.pem());
        let name = Some("tools.kagent".to_owned());
        let trust = ClientTls { ca: Some(ca), server_name: name, ..ClientTls::default() };
        let mut route = https("s.ns", port, trust);
        route.to.timeouts.connect = BOUND;
        let proxy = TestProxy::start(config(vec![route])).await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = proxy.connect().await;
            client.send(LAST_GET).await;
            clients.push(client);
        }
        // No handshake is answered before all are there.
        let waiting = "kagent_proxy_open_requests{route=\"s.ns\"} 10\n";
        let all = async { while !proxy.admin("/metrics").await.contains(waiting) {} };
        tokio::time::timeout(BOUND, all).await.expect("not all are there");
        serve(backend, &authority.issue("tools.kagent"), alpn, None);
        for client in &mut clients {
            let answer = client.rest().await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        let metrics = proxy.admin("/metrics").await;
        let event = format!("{{route=\"s.ns\",event=\"opened\"}} {opened}\n");
        assert!(metrics.contains(&event), "{metrics}");
        proxy.stop().await;
    }
}
