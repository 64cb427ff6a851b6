//! What the documents say of the program, where a program can compare it: links, decision numbers, flags,
//! fields and endpoints.
//!
//! The tables of errors, metrics and the access log's fields are compared beside the code that they repeat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where people look, and where decisions are cited.
const PLACES: &[&str] =
    &["src", "tests", "benches", "examples", "config", "deploy", "fuzz/fuzz_targets", "docs"];

fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true if ["golden", "node_modules", "__pycache__", "target"].contains(&&*name) => {}
            true => files(&path, into),
            false => into.push(path),
        }
    }
}

/// Pages for people: those of the root, of `docs/`, and the READMEs.
fn pages() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for place in PLACES {
        files(&Path::new(ROOT).join(place), &mut all);
    }
    let root = std::fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap().path());
    all.extend(root.filter(|path| path.is_file()));
    all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    all
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut seen = 0;
    let mut dead = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            seen += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = to.is_dir()
                || std::fs::read_to_string(&to).is_ok_and(|text| {
                    let mut headings = text.lines().filter(|line| line.starts_with('#'));
                    fragment.is_empty()
                        || headings.any(|line| anchor(line.trim_start_matches('#')) == fragment)
                });
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(seen > 30, "only {seen} links found: the search is broken");
    assert_eq!(dead, Vec::<String>::new());
}

/// As .editorconfig says. A table's row, code and a link cannot be broken.
#[test]
fn no_line_of_prose_is_longer_than_120_columns() {
    let mut seen = 0;
    let mut long = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut is_code = false;
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            }
            if is_code || line.starts_with('|') {
                continue;
            }
            seen += 1;
            let breaks = line.trim_start_matches(['-', ' ']).contains(' ');
            if line.chars().count() > 120 && breaks {
                long.push(format!("{}:{}", page.display(), at + 1));
            }
        }
    }
    assert!(seen > 1000, "only {seen} lines found: the search is broken");
    assert_eq!(long, Vec::<String>::new());
}

/// Words such as D11: a letter and one or two digits, alone.
fn numbers(text: &str, letter: char) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_number = |word: &&str| {
        let digits = word.strip_prefix(letter).unwrap_or_default();
        (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    words.filter(is_number).map(ToOwned::to_owned).collect()
}

#[test]
fn every_decision_that_is_cited_is_explained() {
    let explained: BTreeSet<String> = read("docs/decisions.md")
        .lines()
        .filter_map(|line| line.strip_prefix("**D")?.split(['.', ' ']).next())
        .map(|number| format!("D{number}"))
        .collect();
    let mut all = Vec::new();
    for place in PLACES {
        files(&Path::new(ROOT).join(place), &mut all);
    }
    let known = ["rs", "py", "md", "yaml", "sh", "toml", "tpl"];
    all.retain(|path| path.extension().is_some_and(|e| known.iter().any(|known| e == *known)));
    let mut cited = BTreeSet::new();
    let mut unknown = Vec::new();
    for file in all.iter().filter(|file| !file.ends_with("tests/it/docs.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for number in numbers(&text, 'D') {
            if !explained.contains(&number) {
                unknown.push(format!("{}: {number}", file.display()));
            }
            cited.insert(number);
        }
        // Numbers of papers that nobody here can read.
        let comments = text.lines().filter(|line| line.trim_start().starts_with(['/', '#']));
        for line in comments {
            let foreign = ["(contract ", "(trap "].iter().any(|word| line.contains(word));
            if foreign || !numbers(line, 'R').is_empty() {
                unknown.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(cited.len() > 10, "only {cited:?} found: the search is broken");
    assert_eq!(unknown, Vec::<String>::new());
}

/// Every version of a package that a file of pins has.
fn pins() -> BTreeSet<(String, String)> {
    let mut all = Vec::new();
    files(&Path::new(ROOT).join("tests/clients"), &mut all);
    let mut pins = BTreeSet::new();
    for file in &all {
        let name = file.file_name().unwrap().to_string_lossy();
        let is_pins = name.starts_with("requirements-")
            || ["package.json", "go.mod", "Cargo.toml"].contains(&&*name);
        if !is_pins {
            continue;
        }
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let line = line.trim().trim_end_matches(',').trim_start_matches("require ");
            let pin = line
                .split_once("==")
                .or_else(|| line.strip_prefix('"')?.strip_suffix('"')?.split_once("\": \""))
                .or_else(|| line.split_once(" = { version = \"="))
                .or_else(|| line.split_once(" v"));
            if let Some((package, version)) = pin {
                let version = version.split(['"', ' ']).next().unwrap();
                pins.insert((package.to_owned(), version.to_owned()));
            }
        }
    }
    pins
}

/// `python3 tests/clients/run.py --matrix PROGRAM` writes the table anew.
#[test]
fn the_table_of_sdks_has_the_versions_that_are_pinned() {
    let pins = pins();
    let page = read("docs/compatibility.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> =
        page.lines().filter(|line| line.contains("| `")).map(cells).collect();
    assert!(rows.len() > 15, "the table is empty");
    let mut shown = BTreeSet::new();
    for row in &rows {
        assert!(row[5] == row[6] && row[5] != "0", "direct and proxied differ: {row:?}");
        shown.insert((row[2].trim_matches('`').to_owned(), row[3].clone()));
    }
    let packages: BTreeSet<&String> = shown.iter().map(|(package, _)| package).collect();
    let pinned = pins.iter().filter(|(package, _)| packages.contains(package)).cloned();
    assert_eq!(shown, pinned.collect(), "run the suites again, with --matrix");
}

#[test]
fn every_flag_and_variable_is_documented() {
    let page = read("docs/configuration.md");
    let mut missing = Vec::new();
    let command = <kagent_proxy::cli::Cli as clap::CommandFactory>::command();
    let run = command.find_subcommand("run").unwrap();
    for argument in run.get_arguments().filter_map(clap::Arg::get_long) {
        if argument != "help" && !page.contains(&format!("| `--{argument}")) {
            missing.push(argument.to_owned());
        }
    }
    let source = read("src/config/overlay.rs");
    let names =
        source.split('"').filter(|text| text.starts_with("KAGENT_PROXY_") && text.len() > 13);
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() > 10, "only {names:?} found: the search is broken");
    missing.extend(names.iter().filter(|name| !page.contains(**name)).map(|&name| name.to_owned()));
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_admin_endpoint_and_outcome_is_documented() {
    let operations = read("docs/operations.md");
    let admin = read("src/admin.rs");
    let endpoints: BTreeSet<&str> = admin
        .split('"')
        .filter(|text| text.len() > 1 && text.strip_prefix('/').is_some_and(is_word))
        .collect();
    assert!(endpoints.len() >= 7, "only {endpoints:?} found: the search is broken");
    let missing: Vec<_> =
        endpoints.iter().filter(|path| !operations.contains(&format!(" {path}"))).collect();
    assert_eq!(missing, Vec::<&&str>::new());

    let logs = read("docs/metrics-and-logs.md");
    let record = read("src/telemetry/record.rs");
    let outcomes = record.split("impl Outcome {").nth(1).unwrap().split("=== impl").next().unwrap();
    let outcomes: BTreeSet<&str> = outcomes.split('"').filter(|text| is_word(text)).collect();
    assert!(outcomes.contains("complete") && outcomes.len() >= 7, "{outcomes:?}");
    let missing: Vec<_> =
        outcomes.iter().filter(|word| !logs.contains(&format!("`{word}`"))).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

#[test]
fn the_architecture_names_every_module() {
    let page = read("ARCHITECTURE.md");
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let modules: Vec<&str> = modules.collect();
    assert!(modules.len() > 15, "only {modules:?} found: the search is broken");
    let table: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let table = table.join("\n");
    let missing: Vec<_> =
        modules.iter().filter(|module| !table.contains(&format!("`{module}`"))).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

/// What RELEASING.md says of arm64, which no machine of ours can build for.
#[test]
fn no_file_of_the_source_asks_for_the_processor() {
    let mut all = Vec::new();
    files(&Path::new(ROOT).join("src"), &mut all);
    let words = ["target_arch", "target_pointer", "target_endian", "::arch::", "_ne_bytes"];
    let mut wrong = Vec::new();
    for file in &all {
        let text = std::fs::read_to_string(file).unwrap();
        let found = words.iter().filter(|word| text.contains(**word));
        wrong.extend(found.map(|word| format!("{}: {word}", file.display())));
    }
    assert!(all.len() > 100, "only {} files found: the search is broken", all.len());
    assert_eq!(wrong, Vec::<String>::new());
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
