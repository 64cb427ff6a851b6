//! Questions to the API server, as plain JSON: get, list, and reviews of rights.
//!
//! Each has a deadline. A refusal is a result; a server that does not answer is an error. Knows nothing of
//! what is asked for.

use std::time::Duration;

use http::{Request, header};
use kube::Client;
use serde_json::Value;

/// For one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Objects in one page of a list.
const PAGE: usize = 500;

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer<T> {
    /// It is there.
    Found(T),
    /// There is no such object or resource.
    Absent,
    /// RBAC forbids it; the server's own words.
    Forbidden(String),
}

/// Reads one object.
///
/// # Errors
/// The server does not answer, or not as an API server.
pub(super) async fn get(client: &Client, path: &str) -> Result<Answer<Value>, String> {
    send(client, Request::get(path).body(Vec::new()), DEADLINE).await
}

/// Reads what a Service of the cluster answers with these headers, by the API server's own proxy.
///
/// # Errors
/// As [`get`]; also any answer that is no JSON or no success.
pub(super) async fn relayed(
    client: &Client,
    path: &str,
    headers: &[(&str, String)],
    deadline: Duration,
) -> Result<Answer<Value>, String> {
    let request = headers
        .iter()
        .fold(Request::get(path), |request, (name, value)| request.header(*name, value.as_str()));
    send(client, request.body(Vec::new()), deadline).await
}

/// Asks for a review of rights. Creates nothing that stays.
///
/// # Errors
/// As [`get`].
pub(super) async fn review(
    client: &Client,
    path: &str,
    body: &Value,
) -> Result<Answer<Value>, String> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(client, request.body(body.to_string().into_bytes()), DEADLINE).await
}

/// Reads a whole list, page by page; `selector` is a label selector, or empty.
///
/// # Errors
/// As [`get`].
pub(super) async fn list(
    client: &Client,
    path: &str,
    selector: &str,
) -> Result<Answer<Vec<Value>>, String> {
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &PAGE.to_string());
        for (key, value) in [("labelSelector", selector), ("continue", &next)] {
            if !value.is_empty() {
                query.append_pair(key, value);
            }
        }
        let mut page = match get(client, &format!("{path}?{}", query.finish())).await? {
            Answer::Found(page) => page,
            Answer::Absent => return Ok(Answer::Absent),
            Answer::Forbidden(why) => return Ok(Answer::Forbidden(why)),
        };
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            all.extend(items);
        }
        next = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
        if next.is_empty() {
            return Ok(Answer::Found(all));
        }
    }
}

async fn send(
    client: &Client,
    request: Result<Request<Vec<u8>>, http::Error>,
    deadline: Duration,
) -> Result<Answer<Value>, String> {
    let request = request.map_err(|error| error.to_string())?;
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(deadline, client.request(request)).await {
        Ok(Ok(value)) => Ok(Answer::Found(value)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Answer::Absent),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Ok(Answer::Forbidden(status.message))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => Err(format!(
            "the API server does not know this user: {}; log in again, or name another --kubeconfig or \
             --context",
            status.message
        )),
        Ok(Err(kube::Error::Api(status))) => {
            Err(format!("the API server refuses {path}: {} {}", status.code, status.message))
        }
        Ok(Err(error)) => Err(format!(
            "the API server does not answer: {}; check the server in the kubeconfig and the network",
            causes(&error)
        )),
        Err(_) => Err(format!("the API server does not answer {path} within {deadline:?}")),
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
