//! The effective configuration as JSON, for `/config` and `explain`: each value beside its source.
//!
//! What asks for every key of a file shows them too, so that a key is listed once. Secrets are written by where they
//! are, never by what they hold: an inline one has no other text than `redacted`. Knows no key, and nothing of HTTP.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::file::{Mode, NOTHING, Reader};
use super::read::read_root;
use super::{Config, ConfigFaults, Sources};

/// The configuration, and from path to source what was not left at its default.
#[must_use]
pub fn view(config: &Config, sources: &Sources) -> Value {
    let given = sources.iter().map(|(path, source)| (path.to_owned(), json!(source.to_string())));
    json!({ "config": values(config.clone()), "sources": given.collect::<Map<_, _>>() })
}

fn values(mut config: Config) -> Value {
    let (mut sources, mut faults) = (Sources::default(), ConfigFaults::default());
    let mut reader = Reader {
        file: Path::new("view"),
        sources: &mut sources,
        faults: &mut faults,
        mode: Mode::Show(json!({})),
    };
    read_root(&mut reader, &NOTHING, &mut config);
    match reader.mode {
        Mode::Show(shown) => shown,
        Mode::Read | Mode::Outline(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests;
