//! The JSON Schema of the configuration file, from the same reading that checks a file.
//!
//! The reader is run in outline: every section counts as present and every list as having one item, so
//! that it asks for every key there is. What it asks for is the schema. `config/schema.json` holds the
//! result for editors; a test keeps the two equal.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Config;
use super::file::{KeyAsked, Mode, NOTHING, Reader};
use super::read::read_root;
use super::scalar::Shape;
use super::sources::{ConfigFaults, Sources};

/// The schema, JSON Schema 2020-12.
#[must_use]
pub fn schema() -> Value {
    let (mut sources, mut faults) = (Sources::default(), ConfigFaults::default());
    let mut reader = Reader {
        file: Path::new("outline"),
        sources: &mut sources,
        faults: &mut faults,
        mode: Mode::Outline(Vec::new()),
    };
    // What is missing in an outline are faults that nobody asked about.
    read_root(&mut reader, &NOTHING, &mut Config::default());
    let mut root = map();
    let Mode::Outline(outline) = reader.mode else { return root };
    for (path, asked) in outline {
        if !path.is_empty() {
            place(&mut root, &path, described(&asked));
        }
    }
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    whole.insert("title".to_owned(), json!("Configuration of kagent-proxy"));
    if let Value::Object(root) = root {
        whole.extend(root);
    }
    Value::Object(whole)
}

/// Puts a description where its path leads; what stands above has been asked for before.
fn place(root: &mut Value, path: &str, description: Value) {
    let (above, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = root;
    for step in above.split('.').filter(|step| !step.is_empty()) {
        let Some(next) = below(at, step) else { return };
        at = next;
    }
    let (place, name) = match name.strip_suffix("[]") {
        Some(list) => (below(at, list), "items"),
        None => (at.get_mut("properties"), name),
    };
    if let Some(Value::Object(place)) = place {
        place.insert(name.to_owned(), description);
    }
}

/// The value under a step such as `routes[]` or `tls`.
fn below<'v>(at: &'v mut Value, step: &str) -> Option<&'v mut Value> {
    let (name, item) = match step.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (step, false),
    };
    let found = at.get_mut("properties")?.get_mut(name)?;
    if item { found.get_mut("items") } else { Some(found) }
}

fn map() -> Value {
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": {} })
}

/// `null` counts as absent everywhere.
fn described(asked: &KeyAsked) -> Value {
    match asked {
        KeyAsked::Map => map(),
        KeyAsked::List => json!({ "type": ["array", "null"] }),
        KeyAsked::Scalar(Shape::Text) => json!({ "type": ["string", "null"] }),
        KeyAsked::Scalar(Shape::Switch) => json!({ "type": ["boolean", "null"] }),
        KeyAsked::Scalar(Shape::Number { min, max }) => {
            json!({ "type": ["integer", "null"], "minimum": min, "maximum": max })
        }
        KeyAsked::Scalar(Shape::Ratio) => {
            json!({ "type": ["number", "null"], "minimum": 0, "maximum": 1 })
        }
        KeyAsked::Scalar(Shape::Duration) => json!({
            "description": "A duration such as 30s, 1m30s, 500ms or 0.",
            "anyOf": [
                { "const": 0 },
                { "type": "string", "pattern": "^(0|(?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$" },
                { "type": "null" },
            ],
        }),
        KeyAsked::Scalar(Shape::Size) => json!({
            "description": "A size such as 64KiB, 1MiB or 65536.",
            "type": ["integer", "string", "null"],
            "minimum": 0,
            "pattern": "^[0-9]+(KiB|MiB|GiB)?$",
        }),
        KeyAsked::Words(words) => words_of(words),
        KeyAsked::Scalar(Shape::Words(words)) => words_of(words),
    }
}

fn words_of(words: &[&str]) -> Value {
    let words = words.iter().map(|word| json!(word));
    json!({ "enum": words.chain([Value::Null]).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests;
