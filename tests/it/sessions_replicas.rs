//! MCP sessions through any replica of the proxy: what one of them does not know yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kagent_proxy::app::App;
use kagent_proxy::cli::ConfigArgs;
use kagent_proxy::config;

use crate::mcp_server::McpServer;
use crate::sessions::{HOST, begin, call, post};
use crate::support::{BOUND, TestProxy};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kagent-proxy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("key"), KEY).unwrap();
    folder
}

/// A replica that follows its file.
async fn replica(file: &Path, servers: &[&McpServer]) -> TestProxy {
    write(file, servers);
    let args = ConfigArgs { config: Some(file.to_owned()), ..ConfigArgs::default() };
    let loaded = config::load(&args, &BTreeMap::new()).unwrap();
    let bound = Box::pin(App::build(loaded.config, &loaded.sources)).await.unwrap();
    let load = move || config::load(&args, &BTreeMap::new());
    TestProxy::run(bound.following(loaded.file, Box::new(load)))
}

fn write(file: &Path, servers: &[&McpServer]) {
    let targets: Vec<_> =
        servers.iter().map(|server| format!("http://{}", server.address)).collect();
    let key = file.with_file_name("key");
    let text = format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         admin: {{address: \"127.0.0.1:0\"}}\n\
         sessions: {{keyFiles: [\"{}\"]}}\n\
         drain: {{lag: 0s, deadline: 10s}}\n\
         reloadEvery: 10ms\n\
         routes: [{{match: {HOST}, targets: {targets:?}}}]\n",
        key.display()
    );
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Its replica learns of the session's server while the request waits.
#[tokio::test]
async fn a_server_that_only_another_replica_knows_yet_is_waited_for() {
    let (old, new) = (McpServer::start().await, McpServer::start().await);
    let folder = folder("behind");
    let first = replica(&folder.join("first.yaml"), &[&new]).await;
    let behind = folder.join("second.yaml");
    let second = replica(&behind, &[&old]).await;
    let token = begin(&first).await;
    let message = call("count", "x");
    let learns = async {
        while !second.admin("/metrics").await.contains("event=\"carried\"") {
            // Between two looks at what the proxy counts.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        write(&behind, &[&old, &new]);
    };
    let both = async { tokio::join!(post(&second, Some(&token), &message), learns) };
    let (answer, ()) = tokio::time::timeout(BOUND, both).await.unwrap();
    assert_eq!(answer.count(), 1);
    assert_eq!(post(&first, Some(&token), &message).await.count(), 2);
    let begun = |server: &McpServer| server.seen(|seen| seen.initialized.len());
    assert_eq!((begun(&old), begun(&new)), (0, 1), "the session has not moved");
    for proxy in [first, second] {
        proxy.stop().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
