//! The page for people: the files below `page/`, which the program carries in itself.
//!
//! A browser asks each time whether it has the present bytes, and gets them once: a new program has a new page. Knows
//! nothing of what the files say.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::answer::{of_type, text};
use crate::headers::etag::{self, IfNoneMatch};

/// Below which path the files are.
pub(super) const ASSETS: &str = "/assets/";
/// What is at the root.
const INDEX: &str = "index.html";

macro_rules! files {
    ($($name:literal,)*) => {
        &[$(($name, include_bytes!(concat!("page/", $name)))),*]
    };
}

/// Every file, by its path.
const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "style.css",
    "parts.css",
    "tables.css",
    "graph.css",
    "narrow.css",
    "app.js",
    "calls.js",
    "chart.js",
    "dom.js",
    "drawing.js",
    "explain.js",
    "filter.js",
    "format.js",
    "graph.js",
    "history.js",
    "layout.js",
    "live.js",
    "panel.js",
    "routes.js",
    "sessions.js",
    "streams.js",
    "table.js",
    "tabs.js",
    "tools.js",
    "words.js",
    "vendor/uPlot.iife.min.js",
    "vendor/uPlot.min.css",
    "vendor/dagre.esm.js",
];

/// The same, ready to be sent.
static SERVED: LazyLock<BTreeMap<&str, Asset>> =
    LazyLock::new(|| FILES.iter().map(|&(name, bytes)| (name, Asset::new(name, bytes))).collect());

struct Asset {
    bytes: Bytes,
    kind: &'static str,
    /// Of the bytes, without what makes it weak.
    tag: String,
}

pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(INDEX, &headers)
}

pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Response {
    answer(uri.path().strip_prefix(ASSETS).unwrap_or_default(), &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    match SERVED.get(name) {
        Some(asset) => asset.answer(&IfNoneMatch::of(headers)),
        None => text(StatusCode::NOT_FOUND, "not found; the page has no such file\n"),
    }
}

// === impl Asset ===

impl Asset {
    fn new(name: &str, bytes: &'static [u8]) -> Self {
        let kind = kind(name).unwrap_or("application/octet-stream");
        Self { bytes: Bytes::from_static(bytes), kind, tag: etag::of(bytes) }
    }

    fn answer(&self, has: &IfNoneMatch) -> Response {
        let mut answer = if has.names(&self.tag) {
            let mut known = Response::new(Body::empty());
            *known.status_mut() = StatusCode::NOT_MODIFIED;
            known
        } else {
            of_type(StatusCode::OK, self.kind, self.bytes.clone())
        };
        let headers = answer.headers_mut();
        // Weak, for it stands for the compressed bytes too.
        if let Ok(tag) = HeaderValue::try_from(format!("W/{}", self.tag)) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer
    }
}

/// The media type of a file, by the end of its name.
fn kind(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "json" => "application/json",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn below(folder: &Path, root: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, root, into);
            } else {
                into.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_that_a_browser_knows_is_served_and_every_one_that_is_served_it_knows() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        let mut all = Vec::new();
        below(&root, &root, &mut all);
        // What the libraries' licences and notes are in is for readers of the source.
        all.retain(|name| kind(name).is_some());
        all.sort();
        let served: Vec<_> = SERVED.keys().copied().collect();
        assert_eq!(served, all);
        assert!(served.contains(&INDEX));
    }
}
