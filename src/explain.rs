//! How a request would be routed and why, as data: by the table and the code that route.
//!
//! Dials nothing and resolves no name. The client of `/explain` is `explain/ask.rs`; `explain/text.rs` is for people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderValue, Method, Request, header};
use serde_json::{Map, Value, json};

use crate::config::units::duration_text;
use crate::config::{self, Cards, Config, ListenerLimits, Sources, mode_word};
use crate::headers::X_KAGENT_HOST;
use crate::proxy::call::Kind;
use crate::proxy::error::ProxyError;
use crate::proxy::request::Ingress;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::proxy::request::fields::Fields;
use crate::proxy::send::refusal::explain_refusal;
use crate::proxy::send::resolve;
use crate::route::{Considered, Route, RouteSource, RouteTable};
use crate::static_routes;
use crate::telemetry::metrics::Metrics;
use crate::workers::value::OwnValue;

mod ask;
mod text;
pub use ask::ask;
pub use text::to_text;

/// The request that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The value of `x-kagent-host`; none is a request without it, for default routes.
    pub host: Option<String>,
    /// The path, with a query if there is one.
    pub path: String,
    /// The method.
    pub method: String,
    /// The Host, which only default routes look at.
    pub authority: Option<String>,
    /// The name of the listener it comes on, which only default routes look at.
    pub listener: Option<String>,
    /// The address it comes from: which Agent calls.
    pub from: Option<IpAddr>,
}

/// The decision for a request within these limits. `view` is the configuration with its sources, as
/// `/config` shows it.
#[must_use]
pub fn explain(
    table: &RouteTable,
    limits: &ListenerLimits,
    view: &Value,
    question: &Question,
) -> Value {
    let asked = json!({ "host": question.host, "path": question.path, "method": question.method });
    let mut answer = match asked {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let request = match question.request() {
        Ok(request) => request,
        Err(wrong) => {
            answer.insert("error".to_owned(), json!(wrong));
            return Value::Object(answer);
        }
    };
    let first = view.pointer("/config/listeners/0/name").and_then(Value::as_str);
    let listener = question.listener.as_deref().or(first).unwrap_or("http");
    let conn = conn(listener, question.from);
    if let Some(caller) = table.caller(conn.peer.ip()) {
        answer.insert("caller".to_owned(), json!(caller.to_string()));
    }
    let mut chain = Vec::new();
    // What goes on to a backend is of no interest here.
    let via = OwnValue::new(HeaderValue::from_static(""));
    let ingress =
        Ingress { limits: limits.clone(), trusted: Vec::new(), pseudonym: String::new(), via };
    let fields = Fields::of(request.headers());
    let facts = Facts::read(&request, fields, (&conn, None), &ingress, table.cluster_domain());
    let found = facts.and_then(|facts| {
        let route = resolve::route(table, &conn, &facts, Some(&mut chain))
            .map_err(|why| explain_refusal(why, table, &conn, &facts, || true))?;
        Ok((facts, route))
    });
    match found {
        Ok((facts, found)) => {
            let default = table.is_default(&found.route);
            chosen(&mut answer, (&facts, default), &found.route, view);
            if let Some(query) = found.query {
                answer.insert("query".to_owned(), json!(&*query));
            }
            let chain: Vec<_> = chain.iter().map(Considered::to_json).collect();
            answer.insert("chain".to_owned(), json!(chain));
        }
        Err(error) => refused(&mut answer, &error),
    }
    Value::Object(answer)
}

/// The same for a configuration that nothing serves; TLS files are read, for the table needs them.
///
/// # Errors
/// No table can be built from it.
pub fn explain_config(
    config: &Config,
    sources: &Sources,
    question: &Question,
) -> Result<Value, String> {
    let metrics = Metrics::new();
    let built = static_routes::build(config, &metrics, None).map_err(|error| error.to_string())?;
    let mut answer =
        explain(&built.table, &config.listener, &config::view(config, sources), question);
    if let (true, Some(answer)) = (config.discovery.enabled, answer.as_object_mut()) {
        let note = "discovery is on, and this answer knows static routes only; ask a running proxy with --admin";
        answer.insert("note".to_owned(), json!(note));
    }
    Ok(answer)
}

// === impl Question ===

impl Question {
    /// Reads the query of `/explain`: `host`, `path`, `method`, `authority`, `listener`, `from`.
    ///
    /// # Errors
    /// Names what is not known.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut question = Self {
            host: None,
            path: "/".to_owned(),
            method: "POST".to_owned(),
            authority: None,
            listener: None,
            from: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "host" => question.host = Some(value),
                "path" => question.path = value,
                "method" => question.method = value,
                "authority" => question.authority = Some(value),
                "listener" => question.listener = Some(value),
                "from" => {
                    let address = value.parse();
                    question.from =
                        Some(address.map_err(|_| format!("{value:?} is not an IP address"))?);
                }
                _ => {
                    return Err(format!(
                        "{name:?} is not known; write host, path, method, authority, listener or from"
                    ));
                }
            }
        }
        Ok(question)
    }

    /// The query that [`Question::from_query`] reads back.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("path", &self.path).append_pair("method", &self.method);
        if let Some(from) = self.from {
            query.append_pair("from", &from.to_string());
        }
        let optional =
            [("host", &self.host), ("authority", &self.authority), ("listener", &self.listener)];
        for (name, value) in optional {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    /// As a client would send it.
    fn request(&self) -> Result<Request<()>, String> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| format!("{:?} is not a method; write one such as POST", self.method))?;
        if !self.path.starts_with('/') {
            return Err(format!("{:?} is not a path; begin it with /", self.path));
        }
        let uri: http::Uri =
            self.path.parse().map_err(|error| format!("{:?} is not a path: {error}", self.path))?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        // Every client sends one.
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(""));
        let texts = [(X_KAGENT_HOST, &self.host), (header::HOST, &self.authority)];
        for (name, value) in texts {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("{value:?} cannot be the value of {name}"))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

fn conn(listener: &str, from: Option<IpAddr>) -> Connection {
    let peer = SocketAddr::new(from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0);
    Connection::new(peer, false, listener.into(), None)
}

fn refused(answer: &mut Map<String, Value>, error: &ProxyError) {
    let reason = error.reason();
    answer.insert("reason".to_owned(), json!(reason.word()));
    answer.insert("status".to_owned(), json!(reason.status().as_u16()));
    answer.insert("detail".to_owned(), json!(error.to_string()));
    answer.insert("candidates".to_owned(), json!(error.candidates()));
    answer.insert("chain".to_owned(), json!(error.chain()));
    answer.insert("action".to_owned(), json!(reason.action()));
}

fn chosen(
    answer: &mut Map<String, Value>,
    (facts, default): (&Facts, bool),
    route: &Route,
    view: &Value,
) {
    let to = &route.config.to;
    let kind = match (default, route.source) {
        (true, _) => "default",
        (false, RouteSource::Static) => "static",
        (false, RouteSource::Cluster) => "discovered",
    };
    let targets: Vec<String> = route.cluster.targets().iter().map(ToString::to_string).collect();
    let why = match &facts.target {
        Some(_) if route.source == RouteSource::Cluster => {
            "the cluster has it; see chain".to_owned()
        }
        Some(_) if default => {
            "no route here has the host: the default route to the next proxy".to_owned()
        }
        Some(_) if route.config.prefix == "/" => "the host has this route".to_owned(),
        Some(_) => format!("{} is the host's longest prefix of the path", route.config.prefix),
        None => "no x-kagent-host: the first default route that fits".to_owned(),
    };
    let limits = |kind: Kind| {
        let limits = kind.limits(&to.timeouts);
        let text = |limit: Option<_>| duration_text(limit.unwrap_or_default());
        json!({ "head": text(limits.head), "idle": text(limits.idle), "total": text(limits.total) })
    };
    let hold = if facts.is_card { to.hold.card } else { to.hold.request };
    let card = match (facts.is_card, to.cards) {
        (false, _) => "not a card",
        (true, Cards::Rewrite) => "rewrite",
        (true, Cards::Pass) => "pass",
    };
    answer.insert("normalised".to_owned(), json!(facts.target.as_ref().map(|key| key.as_str())));
    answer.insert(
        "route".to_owned(),
        json!({
            "host": route.config.host, "prefix": route.config.prefix,
            "kind": kind, "why": why,
        }),
    );
    answer.insert("targets".to_owned(), json!(targets));
    if let Some(notes) = &*route.left_out.load() {
        let notes: Vec<_> = notes.iter().map(Considered::to_json).collect();
        answer.insert("leftOut".to_owned(), json!(notes));
    }
    answer.insert(
        "applies".to_owned(),
        json!({
            "hold": duration_text(hold), "card": card,
            "connect": duration_text(to.timeouts.connect),
            "unary": limits(Kind::Unary), "eventStream": limits(Kind::Stream),
            "upgrade": if to.websocket { limits(Kind::Upgrade) } else { json!("stripped") },
            "keepAlive": duration_text(to.keep_alive),
            "sessions": mode_word(to.sessions), "holdSession": duration_text(to.hold.session),
        }),
    );
    if route.source == RouteSource::Static {
        answer.insert("values".to_owned(), values(route, default, view));
    }
}

/// Every setting of the route, each with where it came from.
fn values(route: &Route, default: bool, view: &Value) -> Value {
    let list = if default { "defaultRoutes" } else { "routes" };
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(String::from);
    let prefix = if route.config.prefix == "/" { "" } else { &route.config.prefix };
    let written = format!("{}{prefix}", route.config.host);
    let same = |item: &Value| {
        if default {
            let (host, listener) = (text(item, "host"), text(item, "listener"));
            static_routes::default_label(host.as_deref(), listener.as_deref()) == route.config.host
        } else {
            text(item, "match").as_ref() == Some(&written)
        }
    };
    let items = view.pointer(&format!("/config/{list}")).and_then(Value::as_array);
    let found = items.and_then(|items| items.iter().enumerate().find(|(_, item)| same(item)));
    // A reload replaces table and view one after the other.
    let Some((at, to)) = found.and_then(|(at, item)| Some((at, item.get("to")?))) else {
        return Value::Null;
    };
    let mut flat = Map::new();
    flatten("", to, &mut flat);
    for (key, value) in &mut flat {
        let source = source(&format!("{list}[{at}]"), key, view);
        *value = json!({ "value": value.take(), "source": source });
    }
    Value::Object(flat)
}

/// Leaves under their dotted paths; a list is a leaf, and so is a secret's file.
fn flatten(path: &str, value: &Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(map) if !map.contains_key("file") => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// The route's own word, else what routes of the file inherit, else the default. A route of a flag or
/// a variable inherits nothing: its whole source stands under the route itself.
fn source(route: &str, key: &str, view: &Value) -> String {
    let sources = view.get("sources");
    let of = |path: &str| {
        let source = sources.and_then(|sources| sources.get(path)).and_then(Value::as_str);
        source.map(ToOwned::to_owned)
    };
    let own =
        |base: &str| of(&format!("{base}.{key}File")).or_else(|| of(&format!("{base}.{key}")));
    let whole = of(route);
    let found = match &whole {
        Some(source) => (key == "targets").then(|| source.clone()),
        // In a default route `host` is a condition; the upstream Host is only inherited.
        None if key == "host" && route.starts_with("default") => own("routeDefaults"),
        None => own(route).or_else(|| own("routeDefaults")),
    };
    found.unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests;
