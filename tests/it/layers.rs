//! Layers point downward: no module may name one that stands above it, or beside it.

use std::path::{Path, PathBuf};

/// Upper layers first; modules on one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["app"],
    &["reload"],
    &["listener", "admin"],
    &["explain", "check"],
    &["proxy", "build", "discovery"],
    &["route"],
    &["upstream"],
    &["body", "tls"],
    &["telemetry"],
    &["config"],
    &["cli"],
    &["protocol", "rewrite", "drain", "headers", "readiness", "demo", "socket"],
];

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|line| line.contains(&module));
    found.unwrap_or_else(|| panic!("module {module} has no layer: add it to LAYERS"))
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn every_import_points_downward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in all.iter().filter(|file| !file.ends_with("lib.rs")) {
        let first = file.strip_prefix(&src).unwrap().iter().next().unwrap();
        let module = first.to_str().unwrap().trim_end_matches(".rs");
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
        assert!(code.lines().count() <= 450, "{} has outgrown its purpose", file.display());
        for mention in code.split("crate::").skip(1) {
            let name: String =
                mention.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            seen += 1;
            if name != module && !name.is_empty() && layer(&name) <= layer(module) {
                wrong.push(format!("{}: crate::{name}", file.display()));
            }
        }
    }
    let unsafe_code =
        |file: &&PathBuf| std::fs::read_to_string(file).unwrap().contains("unsafe_code");
    let unsafe_files: Vec<_> = all.iter().filter(unsafe_code).collect();
    assert_eq!(unsafe_files, [&src.join("socket/open.rs")], "unsafe code stands in one place");
    assert!(seen > 20, "only {seen} mentions found: the search is broken");
    assert_eq!(wrong, Vec::<String>::new());
}
