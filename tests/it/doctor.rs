//! `kagent-proxy doctor` as a process: what it prints and its exit codes, against a scripted API server.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::api::Api;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn doctor(api: &Api, flags: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_kagent-proxy"))
        .args(["doctor", "--kubeconfig", api.kubeconfig().to_str().unwrap()])
        .args(flags)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(crate::support::BOUND, output).await.expect("it hangs");
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn named(name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["metadata"]["namespace"] = json!("kagent");
    object["metadata"]["name"] = json!(name);
    object
}

fn controller(url: &str) -> Value {
    let container = json!({ "args": [format!("--proxy-url={url}")] });
    let spec = json!({ "template": { "spec": { "containers": [container] } } });
    named("kagent-controller", json!({ "spec": spec }))
}

/// The proxy's own Deployment.
fn proxy() -> Value {
    let mounts = json!([{ "name": "config", "mountPath": "/etc/kagent-proxy" }]);
    let file = json!({ "name": "KAGENT_PROXY_CONFIG", "value": "/etc/kagent-proxy/config.yaml" });
    let container = json!({ "args": ["run"], "env": [file], "volumeMounts": mounts });
    let volume = json!({ "name": "config", "configMap": { "name": "kagent-proxy" } });
    let pod = json!({
        "serviceAccountName": "edge", "containers": [container], "volumes": [volume],
    });
    let template = json!({ "metadata": { "labels": { "app": "proxy", "a": "b" } }, "spec": pod });
    named("kagent-proxy", json!({ "spec": { "template": template } }))
}

fn configuration(text: &str) -> Value {
    named("kagent-proxy", json!({ "data": { "config.yaml": text } }))
}

/// A cluster in which nothing is wrong.
async fn healthy() -> Api {
    let api = Api::start().await;
    api.put("deployments", controller("http://kagent-proxy.kagent:8080"));
    api.put("deployments", proxy());
    api.put("configmaps", configuration("discovery: {enabled: true}"));
    let ports = json!([{ "name": "http", "port": 8080 }]);
    let spec = json!({ "ports": ports, "selector": { "app": "proxy" } });
    api.put("services", named("kagent-proxy", json!({ "spec": spec })));
    let labels = json!({ "kubernetes.io/service-name": "kagent-proxy" });
    let endpoints = json!([{ "addresses": ["10.1.0.1"] }]);
    let slice = json!({ "metadata": { "labels": labels }, "endpoints": endpoints });
    api.put("endpointslices", named("kagent-proxy-1", slice));
    api
}

#[tokio::test]
async fn a_healthy_cluster_is_0_and_a_fault_is_1_in_text_and_json() {
    let api = healthy().await;
    let said = doctor(&api, &[]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    assert!(said.out.starts_with("errors: 0, warnings: 0, notes: 0;"), "{}", said.out);
    api.put("deployments", controller(""));
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.out.contains("is not set") && said.out.contains("-> helm upgrade"),
        "{}",
        said.out
    );
    let said = doctor(&api, &["--output", "json"]).await;
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &report["errors"]), (Some(1), &json!(1)), "{report}");
    assert_eq!(report["findings"][0]["level"], "error");
}

#[tokio::test]
async fn rights_that_are_missing_are_faults_and_what_this_user_may_not_see_is_said() {
    let api = healthy().await;
    api.fail("rights", 403);
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("resources: [endpointslices]"), "{}", said.out);
    api.fail("rights", 0);
    api.fail("remotemcpservers", 403);
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert!(
        said.out.contains("remotemcpservers in the cluster: could not be read"),
        "{}",
        said.out
    );
    api.fail("subjectaccessreviews", 403);
    api.fail("services", 403);
    let said = doctor(&api, &[]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.contains("may see nothing"), "{}", said.err);
}

#[tokio::test]
async fn a_proxy_url_that_this_user_may_not_see_is_no_fault_of_the_cluster() {
    let api = healthy().await;
    api.fail("kagent-controller", 403);
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert!(said.out.starts_with("warning  proxy.url of Deployment"), "{}", said.out);
}

#[tokio::test]
async fn the_cluster_is_judged_by_the_configuration_that_the_proxy_runs_with() {
    let api = healthy().await;
    api.fail("rights", 403);
    let said = doctor(&api, &[]).await;
    assert!(said.out.contains("ServiceAccount kagent/edge: may not"), "{}", said.out);
    assert!(said.out.contains("list, watch services in the cluster;"), "{}", said.out);
    let text = "discovery: {enabled: true, namespaces: [kagent, team-a]}";
    api.put("configmaps", configuration(text));
    let said = doctor(&api, &[]).await;
    for namespace in ["kagent", "team-a"] {
        let what = format!("list, watch services in namespace {namespace};");
        assert!(said.out.contains(&what), "{}", said.out);
    }
    assert!(!said.out.contains("in the cluster;"), "{}", said.out);
    api.fail("rights", 0);
    api.put("configmaps", configuration("discovery: {enbaled: true}"));
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    let start =
        "error    configuration of the proxy: (Deployment kagent/kagent-proxy) is not valid";
    assert!(said.out.starts_with(start) && said.out.contains("enbaled"), "{}", said.out);
    api.lose("configmaps", "kagent", "kagent-proxy");
    let said = doctor(&api, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    let start = "warning  configuration of the proxy: was not found";
    assert!(said.out.starts_with(start) && said.out.contains("no ConfigMap"), "{}", said.out);
    api.fail("deployments", 403);
    let said = doctor(&api, &[]).await;
    assert!(said.out.contains(start) && said.out.contains("scripted"), "{}", said.out);
}

#[tokio::test]
async fn replicas_without_a_key_for_sessions_are_told_without_a_file() {
    let api = healthy().await;
    let labels = json!({ "kubernetes.io/service-name": "kagent-proxy" });
    let endpoints = json!([{ "addresses": ["10.1.0.1"] }, { "addresses": ["10.1.0.2"] }]);
    let slice = json!({ "metadata": { "labels": labels }, "endpoints": endpoints });
    api.put("endpointslices", named("kagent-proxy-1", slice));
    let said = doctor(&api, &[]).await;
    let what = "has 2 replicas and no key for MCP sessions in its configuration";
    assert!(said.out.contains(what), "{}", said.out);
    api.put("configmaps", configuration("sessions: {keyFiles: [/key]}"));
    let said = doctor(&api, &[]).await;
    assert_eq!((said.code, said.out.contains(what)), (Some(0), false), "{}", said.out);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_2_and_one_sentence() {
    let api = healthy().await;
    api.stop();
    let said = doctor(&api, &[]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.starts_with("the API server does not answer"), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}
