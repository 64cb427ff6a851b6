//! What is shown: every value, its source, and no secret.

use super::super::{Source, load};
use super::*;
use crate::cli::ConfigArgs;

/// A configuration of which no key is at its default.
fn full() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/show/full.yaml");
    let args = ConfigArgs { config: Some(file.into()), ..ConfigArgs::default() };
    load(&args, &Default::default()).unwrap_or_else(|faults| panic!("{faults}")).config
}

/// The paths and values below a value; of an empty list or map, itself.
fn leaves(value: &Value, path: &str, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, below)| leaves(below, &format!("{path}.{key}"), into));
        }
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().enumerate();
            items.for_each(|(at, below)| leaves(below, &format!("{path}[{at}]"), into));
        }
        leaf => into.push((path.to_owned(), leaf.clone())),
    }
}

#[test]
fn every_value_is_shown_and_no_secret() {
    let shown = view(&full(), &Sources::default());
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let expected: Value = serde_json::from_str(include_str!("full.json")).unwrap();
    let (mut expect, mut is) = (Vec::new(), Vec::new());
    leaves(&expected, "", &mut expect);
    leaves(&shown["config"], "", &mut is);
    assert!(expect.len() > 130, "only {}: the search is broken", expect.len());
    // A key that came later may stand there too.
    let wrong: Vec<_> = expect.iter().filter(|leaf| !is.contains(leaf)).collect();
    assert!(wrong.is_empty(), "{wrong:#?} is not in {:#}", shown["config"]);
}

#[test]
fn what_is_shown_of_nothing_given_is_the_default() {
    let shown = &view(&Config::default(), &Sources::default())["config"];
    assert_eq!(shown["listeners"][0]["tls"], Value::Null);
    assert_eq!(shown["discovery"]["trustedNamespaces"], json!(["kagent"]));
    assert_eq!(shown["routes"], json!([]));
    assert_eq!(shown["workers"], Value::Null);
    assert_eq!(shown.get("routeDefaults"), None);
}

#[test]
fn sources_stand_beside_the_values() {
    let mut sources = Sources::default();
    sources.set("workers", Source::Flag("--workers"));
    let shown = view(&Config::default(), &sources);
    assert_eq!(shown["sources"], json!({ "workers": "--workers" }));
}
