//! The schema file is the code's, it takes what the program takes, and it refuses what it should.

use saphyr::{LoadableYamlNode, Scalar, Yaml};

use super::*;

/// As the editor's plug-in reads a file: YAML to JSON.
fn json_of(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Mapping(map) => map
            .iter()
            .map(|(key, value)| (key.as_str().unwrap().to_owned(), json_of(value)))
            .collect::<Map<_, _>>()
            .into(),
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Value(Scalar::Null) => Value::Null,
        other => panic!("no JSON for {other:?}"),
    }
}

fn faults(text: &str) -> Vec<String> {
    let yaml = Yaml::load_from_str(text).unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = json_of(&yaml[0]);
    validator.iter_errors(&value).map(|error| error.to_string()).collect()
}

#[test]
fn the_file_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema.json");
    let text = format!("{:#}\n", schema());
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    // Not assert_eq: it would print both.
    assert!(written == text, "run WRITE_SCHEMA=1 cargo test --lib config::schema");
}

#[test]
fn every_shipped_file_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(faults(&text), Vec::<String>::new(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} files were looked at");
}

#[test]
fn it_refuses_what_check_refuses() {
    for text in [
        "listner: {}",
        "listener: {idle: 30}",
        "listener: {idle: 1s1m}",
        "listener: {idle: ''}",
        "listener: {maxHeadBytes: 64KB}",
        "listener: 3",
        "routes: {}",
        "routes: [{match: a, targets: ['b:1'], upgrades: [h2c]}]",
        "routes: [{match: a, targets: ['b:1'], tls: {insecureSkipVerify: maybe}}]",
        "admin: {expose: everything}",
        "defaultRoutes: [{targets: ['b:1'], timeouts: {unary: {heat: 1s}}}]",
    ] {
        assert!(!faults(text).is_empty(), "{text}");
    }
    assert_eq!(faults("listener: {idle: 1h30m, maxHeadBytes: 65536}\nworkers: null"), [""; 0]);
}
