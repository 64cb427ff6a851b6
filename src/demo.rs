//! What `kagent-proxy demo` puts behind the proxy and in front of it: two MCP servers and an A2A agent, and Agents that
//! call them, on loopback.
//!
//! Only with the feature `demo`, so that none of it is in production. Knows nothing of the proxy:
//! [`Backends::routes`] are what the command line would say.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

mod agent;
mod notes;
mod tools;
mod world;

pub use world::{AGENTS, DemoAgent};

/// The host by which the MCP server is reached.
pub const TOOLS: &str = "tools.demo";
/// The host by which the MCP server with sessions is reached.
pub const NOTES: &str = "notes.demo";
/// The host by which the A2A agent is reached.
pub const AGENT: &str = "agent.demo";

/// What the demo's servers answer with.
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Open ports on loopback that nobody serves yet.
#[derive(Debug)]
pub struct Backends {
    tools: TcpListener,
    notes: TcpListener,
    agent: TcpListener,
}

// === impl Backends ===

impl Backends {
    /// Opens the ports.
    ///
    /// # Errors
    /// Loopback has no free port.
    pub fn bind() -> io::Result<Self> {
        let open = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        Ok(Self { tools: open()?, notes: open()?, agent: open()? })
    }

    /// The routes to them, as `--route` takes them.
    ///
    /// # Errors
    /// The ports are not open any more.
    pub fn routes(&self) -> io::Result<[String; 3]> {
        let tools = format!("{TOOLS}={}", self.tools.local_addr()?);
        let notes = format!("{NOTES}={}", self.notes.local_addr()?);
        Ok([tools, notes, format!("{AGENT}={}", self.agent.local_addr()?)])
    }

    /// Serves all of them, and lets the Agents call through this proxy, until the returned set is dropped.
    ///
    /// # Errors
    /// The runtime does not take the ports.
    pub fn serve(self, proxy: Option<SocketAddr>) -> io::Result<JoinSet<()>> {
        let mut servers = JoinSet::new();
        let tools = tools::service();
        servers.spawn(accept(tokio::net::TcpListener::from_std(self.tools)?, move |request| {
            let tools = tools.clone();
            async move { Box::pin(tools.handle(request)).await }
        }));
        let notes = notes::NotesServer::new();
        servers.spawn(accept(tokio::net::TcpListener::from_std(self.notes)?, move |request| {
            notes.clone().answer(request)
        }));
        if let Some(proxy) = proxy {
            world::live(reachable(proxy), &mut servers);
        }
        let listener = tokio::net::TcpListener::from_std(self.agent)?;
        let agent = agent::Agent::new(listener.local_addr()?);
        servers.spawn(accept(listener, move |request| agent.clone().answer(request)));
        Ok(servers)
    }
}

/// The page's address, and commands for a shell with what each of them shows, for a proxy on these addresses.
#[must_use]
pub fn guide(listen: SocketAddr, admin: SocketAddr) -> String {
    let (listen, admin) = (reachable(listen), reachable(admin));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":2,"b":40}}}"#;
    let ask = r#"{"jsonrpc":"2.0","id":2,"method":"message/stream","params":{"message":{"kind":"message","messageId":"m-1","role":"user","parts":[{"kind":"text","text":"hello through the proxy"}]}}}"#;
    let json = "-H 'content-type: application/json'";
    let both = "-H 'accept: application/json, text/event-stream'";
    format!(
        "Who calls whom: http://{admin}/

kagent-proxy demo on http://{listen}: MCP servers as {TOOLS} and {NOTES}, an A2A agent as {AGENT}, and four Agents that
call them: one tool is slow, one fails, one call is not declared, one declared server is never called, and the sessions of
{NOTES} lose their server every 45 seconds.

# The same in the terminal, and call by call.
kagent-proxy top --admin http://{admin}
kagent-proxy tap --admin http://{admin}

# A tool call: the MCP server adds two numbers.
curl -sS http://{listen}/mcp -H 'x-kagent-host: {TOOLS}' {json} {both} -d '{call}'

# A stream: the A2A agent says your words back, one event for each, as they come.
curl -sSN http://{listen}/ -H 'x-kagent-host: {AGENT}' {json} -H 'accept: text/event-stream' -d '{ask}'

# The metrics: both calls, by route, class, status and outcome.
curl -sS http://{admin}/metrics

Ctrl-C ends it."
    )
}

/// An address that a client on this machine can name.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn accept<F, A>(listener: tokio::net::TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    // Connections end with this set when the demo ends.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut server = http1::Builder::new();
            let connection =
                server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the demo's servers ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_addresses_a_client_can_reach() {
        let text = guide("[::]:8090".parse().unwrap(), "0.0.0.0:9090".parse().unwrap());
        assert!(text.contains("curl -sS http://[::1]:8090/mcp"), "{text}");
        assert!(text.contains("curl -sS http://127.0.0.1:9090/metrics"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("curl ")).count(), 3);
        assert!(text.starts_with("Who calls whom: http://127.0.0.1:9090/\n"), "{text}");
    }
}
