//! Explanations of a configuration that was read from a file, with flags over it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cli::ConfigArgs;

const FILE: &str = "\
routeDefaults:
  keepAlive: 10s
routes:
- match: helper.ns
  targets: [http://10.0.0.1:8080]
  timeouts:
    unary: {head: 3s}
- match: helper.ns/docs
  targets: [http://10.0.0.2:8080]
  cards: pass
defaultRoutes:
- host: plain.example
  targets: [http://10.0.0.3:8080]
";

/// The answer, with this file and the flag `--route flagged.ns=10.0.0.9:1`.
fn answer(query: &str) -> Value {
    // A folder for each answer: tests run side by side, and the file's name is looked for.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("explain-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("proxy.yaml");
    std::fs::write(&path, FILE).unwrap();
    let args = ConfigArgs {
        config: Some(path),
        route: vec!["flagged.ns=10.0.0.9:1".to_owned()],
        ..ConfigArgs::default()
    };
    let loaded = config::load(&args, &BTreeMap::new());
    std::fs::remove_dir_all(&folder).unwrap();
    let loaded = loaded.unwrap();
    let question = Question::from_query(query).unwrap();
    explain_config(&loaded.config, &loaded.sources, &question).unwrap()
}

fn line(answer: &Value, key: &str) -> String {
    let source = answer["values"][key]["source"].as_str().unwrap();
    source.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn values_name_the_line_the_default_or_the_flag_they_came_from() {
    let known = answer("host=Helper.ns.svc.cluster.local&path=/mcp");
    assert_eq!(known["normalised"], "helper.ns");
    assert_eq!(known["targets"][0], "http://10.0.0.1:8080");
    assert_eq!(known["values"]["timeouts.unary.head"]["value"], "3s");
    assert_eq!(line(&known, "timeouts.unary.head"), "proxy.yaml:7");
    assert_eq!(line(&known, "targets"), "proxy.yaml:5");
    assert_eq!(line(&known, "keepAlive"), "proxy.yaml:2", "inherited");
    assert_eq!(line(&known, "cards"), "default");
    assert_eq!(known["applies"]["unary"]["head"], "3s");
    let flagged = answer("host=flagged.ns");
    assert_eq!(line(&flagged, "targets"), "--route");
    assert_eq!(line(&flagged, "keepAlive"), "default", "a flag's route inherits nothing");
}

#[test]
fn the_longest_prefix_wins_and_cards_wait_longest() {
    let docs = answer("host=helper.ns&path=/docs/.well-known/agent-card.json&method=GET");
    assert_eq!(docs["route"]["prefix"], "/docs");
    assert_eq!(line(&docs, "cards"), "proxy.yaml:10");
    let card = answer("host=helper.ns&path=/.well-known/agent-card.json&method=GET");
    assert_eq!(
        (&card["applies"]["card"], &card["applies"]["hold"]),
        (&json!("rewrite"), &json!("20s"))
    );
    assert_eq!(answer("host=helper.ns&path=/mcp")["applies"]["hold"], "2s");
}

#[test]
fn refusals_are_those_of_traffic() {
    let unknown = answer("host=helper.other");
    assert_eq!((&unknown["reason"], &unknown["status"]), (&json!("unknown_target"), &json!(503)));
    assert_eq!(unknown["candidates"][0], "helper.ns");
    assert_eq!(answer("host=helper.ns:22")["reason"], "bad_target");
    assert_eq!(answer("host=helper.ns&path=/a/../b")["reason"], "bad_path");
    assert_eq!(answer("host=helper.ns&method=CONNECT")["reason"], "method_not_allowed");
}

#[test]
fn without_the_header_a_default_route_decides() {
    let plain = answer("authority=plain.example:80");
    assert_eq!(plain["route"]["kind"], "default");
    assert_eq!(plain["targets"][0], "http://10.0.0.3:8080");
    assert_eq!(line(&plain, "targets"), "proxy.yaml:13");
    assert_eq!(line(&plain, "host"), "default", "the condition is not the upstream Host");
    assert_eq!(answer("authority=other.example")["reason"], "missing_target");
}

#[test]
fn questions_survive_the_query() {
    let question = Question {
        host: Some("a.b".to_owned()),
        path: "/x?y=1&z=%20".to_owned(),
        method: "GET".to_owned(),
        authority: None,
        listener: Some("http".to_owned()),
        from: Some("10.0.0.1".parse().unwrap()),
    };
    assert_eq!(Question::from_query(&question.to_query()).as_ref(), Ok(&question));
    assert!(Question::from_query("hots=a").unwrap_err().contains("hots"));
    assert!(answer("path=mcp")["error"].as_str().unwrap().contains("begin it with /"));
}

#[test]
fn a_host_that_only_the_next_proxy_may_know_takes_the_default_route_to_it() {
    let next = "\
routes:
- match: helper.ns
  targets: [http://10.0.0.1:8080]
defaultRoutes:
- host: plain.example
  targets: [http://10.0.0.3:8080]
- targets: [http://10.0.0.4:8080]
  kagentHost: pass
";
    let args = ConfigArgs { config: Some("proxy.yaml".into()), ..ConfigArgs::default() };
    let loaded = config::load_text(&args, &BTreeMap::new(), Some(next));
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    let explained = |query: &str| {
        let question = Question::from_query(query).unwrap();
        explain_config(&loaded.config, &loaded.sources, &question).unwrap()
    };
    let unknown = explained("host=tools.ns&path=/mcp&authority=plain.example");
    assert_eq!(unknown["targets"][0], "http://10.0.0.4:8080", "passes the host: {unknown}");
    assert_eq!(unknown["route"]["kind"], "default");
    assert!(unknown["route"]["why"].as_str().unwrap().contains("next proxy"));
    assert_eq!(unknown["values"]["kagentHost"]["value"], "pass");
    assert_eq!(unknown["applies"]["sessions"], "pass", "they are that proxy's");
    assert_eq!(explained("host=helper.ns")["targets"][0], "http://10.0.0.1:8080");
    assert_eq!(explained("authority=plain.example")["targets"][0], "http://10.0.0.3:8080");
}

/// Between the two swaps of a reload the view may lack a route: it must not be shown as another one.
#[test]
fn a_route_that_the_view_does_not_have_is_shown_without_values() {
    let args = ConfigArgs { route: vec!["a.ns=b:1".to_owned()], ..ConfigArgs::default() };
    let mut loaded = config::load(&args, &BTreeMap::new()).unwrap();
    let metrics = Metrics::new();
    let built = static_routes::build(&loaded.config, &metrics, None).unwrap();
    "other.ns".clone_into(&mut loaded.config.routes[0].host);
    let view = config::view(&loaded.config, &loaded.sources);
    let question = Question::from_query("host=a.ns").unwrap();
    let answer = explain(&built.table, &loaded.config.listener, &view, &question);
    assert_eq!(answer["targets"][0], "http://b:1");
    assert_eq!(answer["values"], Value::Null, "{answer}");
}
