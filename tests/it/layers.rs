//! Layers point downward: no module may name one that stands above it, or beside it; inside the request
//! path no room knows one above it; and no files import each other in a circle. What is written about this is as it
//! is: the lists of layers, and the files that a file's first lines name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Upper layers first; modules on one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["app"],
    &["reload"],
    &["listener", "admin"],
    &["explain", "top", "tap", "cli/check", "doctor", "sight"],
    &["proxy", "static_routes", "discovery"],
    &["route"],
    &["session"],
    &["upstream", "otlp"],
    &["body", "tls", "supervise"],
    &["telemetry"],
    &["config"],
    &["cli", "admin_client"],
    &[
        "protocol",
        "rewrite",
        "drain",
        "headers",
        "readiness",
        "demo",
        "socket",
        "workers",
        "columns",
    ],
    &["authority", "backoff", "plain_path"],
];

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|line| line.contains(&module));
    found.unwrap_or_else(|| panic!("module {module} has no layer: add it to LAYERS"))
}

/// The Rust files below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
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
        let inside = file.strip_prefix(&src).unwrap();
        let whole = inside.to_str().unwrap().trim_end_matches(".rs");
        let first = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        // A command stands above what it is a command of, though its flags are text at the bottom.
        let module = if LAYERS.concat().contains(&whole) { whole } else { first };
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

/// The groups of names in a text, the names of each in order, without those that are no modules of the library.
fn groups(lines: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let sorted = lines.map(|mut names| {
        names.retain(|name| name != "main" && !name.contains('/'));
        names.sort();
        names
    });
    sorted.filter(|names| !names.is_empty()).collect()
}

#[test]
fn both_drawings_of_the_layers_show_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let layers = groups(LAYERS.iter().map(|names| owned(names)));
    let text = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let module = |line: &str| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned);
    let in_lib = groups(text.split("\n\n").map(|group| group.lines().filter_map(module).collect()));
    assert_eq!(in_lib, layers, "src/lib.rs");
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("| modules | for |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let names = rows.map(|row| row.split('|').nth(1).unwrap());
    let in_table =
        groups(names.map(|names| names.split('`').skip(1).step_by(2).map(str::to_owned).collect()));
    assert_eq!(in_table, layers, "ARCHITECTURE.md");
}

#[test]
fn files_that_the_first_lines_of_a_file_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    files(&root.join("src"), &mut all);
    files(&root.join("tests/it"), &mut all);
    let (mut seen, mut missing) = (0, Vec::new());
    for file in &all {
        let text = std::fs::read_to_string(file).unwrap();
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let is_path = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
        for name in header.split(|c| !is_path(c)).map(|word| word.trim_end_matches('.')) {
            let others = name.contains('/') && (name.ends_with(".json") || name.ends_with(".yaml"));
            if !name.ends_with(".rs") && !others {
                continue;
            }
            seen += 1;
            // Beside the file, in its own folder, or from the root or the sources.
            let near = [file.with_file_name(name), file.with_extension("").join(name)];
            let far = [root.join("src").join(name), root.join(name)];
            if !near.iter().chain(&far).any(|path| path.exists()) {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(seen > 10, "only {seen} names found: the search is broken");
    assert_eq!(missing, Vec::<String>::new());
}

/// The rooms of the request path and what each may not know.
const ROOMS: &[(&str, &[&str])] = &[
    ("request", &["send", "reply", "record", "routes"]),
    ("send", &["reply"]),
    ("reply", &["send", "routes"]),
    ("record", &["send", "reply", "routes"]),
    ("routes", &["request", "send", "reply", "record", "way"]),
    ("way", &["request", "send", "reply", "record", "routes"]),
    ("call", &["request", "send", "reply", "record", "routes", "way", "error"]),
    ("instead", &["request", "send", "reply", "record", "routes", "call", "error"]),
    ("error", &["request", "send", "reply", "record", "routes", "way", "call"]),
    ("limiter", &["request", "send", "reply", "record", "routes", "way", "call", "error"]),
    ("sight", &["request", "send", "reply", "record", "routes", "way", "call", "error"]),
    ("posted", &["request", "send", "reply", "record", "routes", "way", "call", "error", "sight"]),
    ("service", &[]),
    ("control", &[]),
    ("reason", &["request", "send", "reply", "record", "routes", "way", "call", "error"]),
];

#[test]
fn no_room_of_the_request_path_knows_one_it_should_not() {
    let all = imports();
    let room = |file: &str| {
        let inside = file.strip_prefix("proxy/")?;
        Some(inside.split(['/', '.']).next().unwrap().to_owned())
    };
    let mut wrong = Vec::new();
    let mut rooms = BTreeSet::new();
    for (file, imported) in &all {
        let Some(own) = room(file) else { continue };
        let rule = ROOMS.iter().find(|(name, _)| *name == own);
        let (_, hidden) = rule.unwrap_or_else(|| panic!("{own} is no room: add it to ROOMS"));
        rooms.insert(own);
        for other in imported.iter().filter(|other| *other != "proxy.rs") {
            if room(other).is_some_and(|other| hidden.contains(&&*other)) {
                wrong.push(format!("{file} knows {other}"));
            }
        }
        // What wraps the whole path, and what makes it.
        let above = ["proxy/service.rs", "proxy/control.rs"];
        if imported.contains("proxy.rs") && !above.contains(&&**file) {
            wrong.push(format!("{file} knows proxy.rs"));
        }
    }
    assert_eq!(rooms.len(), ROOMS.len(), "a room is gone: take it out of ROOMS");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_files_of_the_request_path_or_the_configuration_import_each_other_in_a_circle() {
    let mut all = imports();
    assert!(all["proxy/send.rs"].contains("proxy/send/dial.rs"), "the search is broken");
    assert!(all["proxy/send/dial.rs"].contains("proxy/send/retry.rs"), "the search is broken");
    all.retain(|file, _| file.starts_with("proxy") || file.starts_with("config/"));
    // What imports nothing that is left is in no circle.
    let mut left: BTreeSet<String> = all.keys().cloned().collect();
    loop {
        let is_free = |file: &&String| all[*file].iter().all(|other| !left.contains(other));
        let free: Vec<String> = left.iter().filter(is_free).cloned().collect();
        if free.is_empty() {
            break;
        }
        left.retain(|file| !free.contains(file));
    }
    let within = |file: &String| all[file].intersection(&left).cloned().collect::<Vec<_>>();
    let circles: Vec<_> = left.iter().map(|file| (file, within(file))).collect();
    assert_eq!(circles, [], "each imports one of the others");
}

/// The parts of a request's body, and the others that each may know.
const BODY: &[(&str, &[&str])] = &[
    ("body/echo.rs", &[]),
    ("body/progress.rs", &[]),
    ("body/replay.rs", &[]),
    ("body/seen.rs", &["protocol/calls.rs"]),
    ("body/tap.rs", &["body/replay.rs", "body/seen.rs", "protocol/calls.rs"]),
];

#[test]
fn the_parts_of_a_body_know_neither_the_body_nor_anything_above_it() {
    let mut all = imports();
    assert!(all["body.rs"].contains("body/tap.rs"), "the search is broken");
    all.retain(|file, _| file.starts_with("body/"));
    for (file, imported) in &all {
        let rule = BODY.iter().find(|(name, _)| name == file);
        let (_, allowed) = rule.unwrap_or_else(|| panic!("{file} is unknown: add it to BODY"));
        assert_eq!(imported.iter().collect::<Vec<_>>(), *allowed, "{file}");
    }
    assert_eq!(all.len(), BODY.len(), "a part is gone: take it out of BODY");
}

/// Which files each file imports from, both relative to `src`.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let names: BTreeSet<String> = all
        .iter()
        .map(|file| file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib.rs")
        .collect();
    let mut found = BTreeMap::new();
    for name in &names {
        let text = std::fs::read_to_string(src.join(name)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: String =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let own: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
        let parent = &own[..own.len() - 1];
        let mut starts: Vec<(String, Vec<&str>)> = vec![
            ("crate::".to_owned(), Vec::new()),
            ("super::".to_owned(), parent.to_vec()),
            ("self::".to_owned(), own.clone()),
        ];
        // A module is in scope where it is declared.
        for child in
            names.iter().filter_map(|file| file.strip_prefix(&format!("{}/", own.join("/"))))
        {
            if let Some(child) = child.strip_suffix(".rs").filter(|child| !child.contains('/')) {
                starts.push((format!("{child}::"), [own.clone(), vec![child]].concat()));
            }
        }
        let mut imported = BTreeSet::new();
        for (word, base) in &starts {
            for (at, _) in code.match_indices(word.as_str()) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                reached(&code[at + word.len()..], base, &names, &mut imported);
            }
        }
        imported.remove(name);
        found.insert(name.clone(), imported);
    }
    found
}

/// The files that a path leads to, such as `retry::Retry` or `{conn::Connection, facts::Facts}`.
fn reached(path: &str, base: &[&str], names: &BTreeSet<String>, into: &mut BTreeSet<String>) {
    if let Some(group) = path.strip_prefix('{') {
        let mut depth = 1;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            depth += i32::from(c == '{');
            depth -= i32::from(c == '}');
            if (c == ',' && depth == 1) || depth == 0 {
                reached(group[start..at].trim_start(), base, names, into);
                start = at + 1;
            }
            if depth == 0 {
                return;
            }
        }
    }
    let word: String =
        path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let next = [base, &[&word]].concat();
    if names.contains(&format!("{}.rs", next.join("/"))) {
        match path[word.len()..].strip_prefix("::") {
            Some(rest) => reached(rest, &next, names, into),
            None => {
                into.insert(format!("{}.rs", next.join("/")));
            }
        }
    } else if !base.is_empty() {
        into.insert(format!("{}.rs", base.join("/")));
    }
}
