//! An API server that follows a script: lists, watches, and every way in which they can go wrong.
//!
//! Only for faults and moments that a real one does not produce on demand; `tests/kubernetes/` has the
//! real one.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// The resources of kagent, by plural name; those of kagent 1.0 with their group.
pub(crate) const OURS: [&str; 7] = [
    "agents",
    "sandboxagents",
    "remotemcpservers",
    "mcpservers",
    "agents.api.kagent.dev",
    "agenttemplates.api.kagent.dev",
    "remotemcpservers.api.kagent.dev",
];

type Body = BoxBody<Bytes, Infallible>;

/// A scripted API server.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    asked: Arc<Notify>,
    serving: Arc<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: HashMap<String, BTreeMap<String, Value>>,
    watches: HashMap<String, Vec<mpsc::UnboundedSender<Bytes>>>,
    /// What watches were told, with the version: a watch goes on from where another one ended.
    told: HashMap<String, Vec<(u64, Bytes)>>,
    /// Answered with this status instead.
    failing: HashMap<String, u16>,
    /// Lists answered so far, by resource.
    lists: HashMap<String, usize>,
}

impl Api {
    /// With every core resource; those of kagent are not installed.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let failing = OURS.map(|resource| (resource.to_owned(), 404)).into();
        let state = Arc::new(Mutex::new(State { failing, ..State::default() }));
        let asked = Arc::new(Notify::new());
        let (shared, told) = (Arc::clone(&state), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, asked) = (Arc::clone(&shared), Arc::clone(&told));
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let response = answer(&state, &request);
                        asked.notify_one();
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _client_left = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, state, asked, serving: Arc::new(serving) }
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "kagent-proxy-{}-{}.kubeconfig",
            std::process::id(),
            self.address.port()
        ));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{ "name": "t", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "t", "user": {} }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds or changes an object, and tells the watches.
    pub(crate) fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let objects = state.objects.entry(resource.to_owned()).or_default();
        let kind = if objects.insert(name(&object), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.tell(resource, kind, &object);
    }

    /// Removes an object without a word to the watches: what a watch that was cut does not see.
    pub(crate) fn lose(&self, resource: &str, namespace: &str, object: &str) {
        let key = format!("{namespace}/{object}");
        self.lock().objects.get_mut(resource).unwrap().remove(&key).unwrap();
    }

    /// Removes an object, and tells the watches.
    pub(crate) fn delete(&self, resource: &str, namespace: &str, object: &str) {
        let mut state = self.lock();
        state.version += 1;
        let key = format!("{namespace}/{object}");
        let mut object = state.objects.get_mut(resource).unwrap().remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(resource, "DELETED", &object);
    }

    /// Lets a resource fail with this status from the next request on, or only its watch with `watch ` in
    /// front; 0 is no failure.
    pub(crate) fn fail(&self, resource: &str, status: u16) {
        self.lock().failing.insert(resource.to_owned(), status);
    }

    /// Ends the watches of a resource with these bytes.
    pub(crate) fn end_watches(&self, resource: &str, last: &str) {
        for watch in self.lock().watches.remove(resource).unwrap_or_default() {
            let _gone = watch.send(Bytes::copy_from_slice(last.as_bytes()));
        }
    }

    /// Waits until a resource has been listed this often.
    pub(crate) async fn listed(&self, resource: &str, times: usize) {
        let listed = async {
            while self.lock().lists.get(resource).copied().unwrap_or_default() < times {
                self.asked.notified().await;
            }
        };
        tokio::time::timeout(crate::support::BOUND, listed).await.expect("it is never listed");
    }

    /// Takes the server away, connections too.
    pub(crate) fn stop(&self) {
        self.serving.abort();
        self.lock().watches.clear();
    }
}

impl State {
    /// The response to a path of one object: `…/namespaces/NAMESPACE/RESOURCE/NAME`.
    fn one(&self, path: &str) -> Option<Response<Body>> {
        let (api, path) = path.split_once("/namespaces/")?;
        let [namespace, resource, name] = path.split('/').collect::<Vec<_>>()[..] else {
            return None;
        };
        let key = format!("{namespace}/{name}");
        let found =
            self.objects.get(&with_group(api, resource)).and_then(|objects| objects.get(&key));
        let absent = json!({ "kind": "Status", "status": "Failure", "code": 404, "message": "" });
        Some(found.map_or_else(
            || json_response(StatusCode::NOT_FOUND, &absent),
            |object| json_response(StatusCode::OK, object),
        ))
    }

    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        let line = Bytes::from(line);
        self.told.entry(resource.to_owned()).or_default().push((self.version, line.clone()));
        let watches = self.watches.entry(resource.to_owned()).or_default();
        watches.retain(|watch| watch.send(line.clone()).is_ok());
    }
}

fn name(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// A resource as the script names it.
fn with_group(path: &str, resource: &str) -> String {
    let group = path.starts_with("/apis/api.kagent.dev/").then_some(".api.kagent.dev");
    format!("{resource}{}", group.unwrap_or_default())
}

fn answer(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let resource = with_group(path, path.rsplit('/').next().unwrap_or_default());
    let watch = request.uri().query().unwrap_or_default().contains("watch=true");
    let mut state = state.lock().unwrap();
    let failing = |key: &str| state.failing.get(key).copied().filter(|status| *status != 0);
    let of_watch = failing(&format!("watch {resource}")).filter(|_| watch);
    let status = failing(&resource).or(of_watch).unwrap_or_default();
    if status != 0 {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
            "reason": "Scripted", "message": "scripted",
        });
        return json_response(StatusCode::from_u16(status).unwrap(), &body);
    }
    if request.method() == http::Method::POST {
        // A review of rights.
        let review = json!({ "status": { "allowed": failing("rights").is_none() } });
        return json_response(StatusCode::CREATED, &review);
    }
    if let Some(found) = state.one(request.uri().path()) {
        return found;
    }
    if watch {
        let (to, mut from) = mpsc::unbounded_channel();
        let query = request.uri().query().unwrap_or_default();
        let since = query.split("resourceVersion=").nth(1).unwrap_or_default();
        let since: u64 = since.split('&').next().unwrap_or_default().parse().unwrap_or_default();
        for (version, line) in state.told.get(&resource).into_iter().flatten() {
            if *version > since {
                to.send(line.clone()).unwrap();
            }
        }
        state.watches.entry(resource).or_default().push(to);
        let frames = futures_util::stream::poll_fn(move |context| {
            from.poll_recv(context).map(|bytes| bytes.map(|b| Ok(Frame::data(b))))
        });
        return Response::new(StreamBody::new(frames).boxed());
    }
    *state.lists.entry(resource.clone()).or_default() += 1;
    let items: Vec<&Value> =
        state.objects.get(&resource).into_iter().flat_map(BTreeMap::values).collect();
    let list = json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": state.version.to_string() }, "items": items,
    });
    json_response(StatusCode::OK, &list)
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(body.to_string()).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
