//! The dashboards and alerts of `deploy/` ask for metrics and labels that the program has, and for no others.
//!
//! Reads expressions as words, not as PromQL: whether Prometheus takes them is for `tests/prometheus.py`, and so is
//! which metric has which label.

use std::collections::BTreeSet;
use std::path::Path;

use kagent_proxy::telemetry::names::{self, HELP};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Those with buckets, a sum and a count.
const HISTOGRAMS: &[&str] = &[
    names::MCP_SECONDS,
    names::A2A_SECONDS,
    names::RESPONSE_HEADERS_SECONDS,
    names::WHOLE_SECONDS,
    names::FIRST_EVENT_SECONDS,
];
/// Labels that every scrape adds, and that of buckets.
const GIVEN: &[&str] = &["instance", "job", "le"];
/// Words of PromQL and of Grafana's variables that are no names of ours.
const WORDS: &[&str] = &[
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "max_over_time",
    "min",
    "offset",
    "or",
    "query_result",
    "rate",
    "sum",
    "unless",
    "vector",
];

/// The names in one expression.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// Outside of braces, and no words of PromQL.
    metrics: BTreeSet<String>,
    /// Of matchers.
    matched: BTreeSet<String>,
    /// That results are grouped by.
    grouped: BTreeSet<String>,
}

/// One expression, where it stands, and the labels that its neighbours show.
#[derive(Debug, Default)]
struct Query {
    place: String,
    expression: String,
    shown: BTreeSet<String>,
}

// === impl Names ===

impl Names {
    fn of(expression: &str) -> Self {
        let mut names = Self::default();
        let mut grouping = false;
        let (mut braces, mut rest) = (false, expression);
        while let Some(first) = rest.chars().next() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = match first {
                // A value that is matched, a variable, a number or a duration.
                '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
                '$' | '0'..='9' => {
                    rest[1..].find(|c| !is_name(c)).map_or(rest.len(), |end| end + 1)
                }
                c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                _ => 1,
            };
            let (token, after) = rest.split_at(end);
            match token {
                "{" => braces = true,
                "}" => braces = false,
                ")" => grouping = false,
                "by" => grouping = true,
                word if !word.starts_with(|c: char| c.is_ascii_alphabetic()) => {}
                word if braces => {
                    names.matched.insert(word.to_owned());
                }
                word if grouping => {
                    names.grouped.insert(word.to_owned());
                }
                word if WORDS.contains(&word) => {}
                word => {
                    names.metrics.insert(word.to_owned());
                }
            }
            rest = after;
        }
        names
    }
}

fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The labels that the code gives to its series: they stand there as `("label", value)`, or as `of("route", value)`.
fn labels() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["metrics", "of_route", "operations"] {
        let text = read(&format!("src/telemetry/{file}.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        for after in code.split("(\"").skip(1) {
            if let Some((label, end)) = after.split_once('"')
                && end.starts_with(',')
            {
                found.insert(label.to_owned());
            }
        }
    }
    for label in ["route", "caller", "error_type", "reason", "cause", "kind"] {
        assert!(found.contains(label), "{found:?}: the search is broken");
    }
    found
}

/// Words between two marks, such as `{{caller}}`.
fn marked(text: &str, before: &str) -> BTreeSet<String> {
    let label = |rest: &str| {
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    text.split(before).skip(1).map(label).collect()
}

/// Every expression of a dashboard: those of panels and those of variables.
fn of_dashboard(name: &str, dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = format!("{name}: {}", panel["title"].as_str().unwrap());
        // The columns of a table that are labels.
        let renamed = panel["transformations"][1]["options"]["renameByName"].as_object();
        let columns = renamed.into_iter().flat_map(|renamed| renamed.keys());
        let columns = columns.filter(|key| !key.starts_with("Value #")).cloned();
        let columns: BTreeSet<String> = columns.collect();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().to_owned();
            let mut shown = marked(target["legendFormat"].as_str().unwrap(), "{{");
            shown.extend(columns.iter().cloned());
            // A heatmap's rows are its buckets.
            shown.remove("le");
            found.push(Query { place: place.clone(), expression, shown });
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let place = format!("{name}: variable {}", variable["name"].as_str().unwrap());
            let expression = variable["definition"].as_str().unwrap().to_owned();
            assert_eq!(variable["query"]["query"], expression.as_str(), "{place}");
            // `label_values(query, label)` is the label of a grouping.
            let values = expression.strip_prefix("label_values(").and_then(|rest| {
                let (query, label) = rest.strip_suffix(')')?.rsplit_once(", ")?;
                Some(format!("count by ({label}) ({query})"))
            });
            let expression = values.unwrap_or(expression);
            found.push(Query { place, expression, shown: BTreeSet::new() });
        }
    }
    found
}

/// Every expression of a file of rules.
fn of_rules(text: &str) -> Vec<Query> {
    let file = Yaml::load_from_str(text).unwrap();
    let mut found = Vec::new();
    for group in file[0]["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let place = rule["alert"].as_str().unwrap().to_owned();
            let expression = rule["expr"].as_str().unwrap().to_owned();
            let mut shown = BTreeSet::new();
            for key in ["summary", "description", "runbook"] {
                let text = rule["annotations"][key].as_str();
                let text = text.unwrap_or_else(|| panic!("{place} has no {key}"));
                shown.append(&mut marked(text, "$labels."));
            }
            assert!(rule["labels"]["severity"].as_str().is_some(), "{place} has no severity");
            found.push(Query { place, expression, shown });
        }
    }
    found
}

/// All of `deploy/`.
fn all() -> Vec<Query> {
    let mut found = of_rules(&read("deploy/alerts/kagent-proxy.yaml"));
    assert!(found.len() >= 10, "only {} alerts found: the search is broken", found.len());
    for name in ["overview", "tools", "sessions"] {
        let text = read(&format!("deploy/dashboards/{name}.json"));
        let queries = of_dashboard(name, &serde_json::from_str(&text).unwrap());
        assert!(queries.len() > 15, "only {} queries found: the search is broken", queries.len());
        found.extend(queries);
    }
    found
}

/// What is wrong with it.
fn faults(query: &Query, labels: &BTreeSet<String>) -> Vec<String> {
    let names = Names::of(&query.expression);
    let mut faults = Vec::new();
    if names.metrics.is_empty() {
        faults.push("no metric".to_owned());
    }
    for metric in &names.metrics {
        let known = HELP.iter().any(|(name, _)| {
            let suffix = metric.strip_prefix(name);
            let is_histogram = HISTOGRAMS.contains(name);
            let suffixes: &[&str] =
                if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            suffix.is_some_and(|suffix| suffixes.contains(&suffix))
        });
        if !known {
            faults.push(format!("metric {metric}"));
        }
    }
    let is_label = |label: &&String| labels.contains(*label) || GIVEN.contains(&label.as_str());
    let used = names.matched.union(&names.grouped).filter(|label| !is_label(label));
    faults.extend(used.map(|label| format!("label {label}")));
    // Without a grouping a result has the labels of its metric.
    let has = |label: &&String| match names.grouped.is_empty() {
        true => is_label(label),
        false => names.grouped.contains(*label),
    };
    let lost = query.shown.iter().filter(|label| !has(label));
    faults.extend(lost.map(|label| format!("shown label {label}")));
    faults.iter().map(|fault| format!("{}: {fault}", query.place)).collect()
}

#[test]
fn dashboards_and_alerts_use_names_of_the_code() {
    let labels = labels();
    let faults: Vec<String> = all().iter().flat_map(|query| faults(query, &labels)).collect();
    assert_eq!(faults, Vec::<String>::new());
}

/// That nothing can be counted which nobody would see.
#[test]
fn every_metric_is_on_a_dashboard_or_in_an_alert() {
    let used: BTreeSet<String> =
        all().iter().flat_map(|query| Names::of(&query.expression).metrics).collect();
    let is_used = |name: &str| {
        let bucket = format!("{name}_bucket");
        used.contains(name) || HISTOGRAMS.contains(&name) && used.contains(&bucket)
    };
    let unused: Vec<&str> =
        HELP.iter().map(|(name, _)| *name).filter(|name| !is_used(name)).collect();
    assert_eq!(unused, Vec::<&str>::new());
}

#[test]
fn wrong_names_are_found() {
    let labels = labels();
    for (expression, shown, wanted) in [
        ("kagent_proxy_request_total", "", &["metric kagent_proxy_request_total"][..]),
        ("sum(rate(up[5m]))", "", &["metric up"]),
        // A histogram has no series of its own name, a counter has no buckets.
        ("kagent_proxy_request_seconds", "", &["metric kagent_proxy_request_seconds"]),
        (
            "rate(kagent_proxy_retries_total_bucket[1m])",
            "",
            &["metric kagent_proxy_retries_total_bucket"],
        ),
        ("kagent_proxy_retries_total{host=\"x\"} offset 15m", "", &["label host"]),
        ("sum by (tool) (kagent_proxy_retries_total{route=~\"$route\"})", "", &["label tool"]),
        ("sum by (route) (kagent_proxy_retries_total)", "caller", &["shown label caller"]),
        ("kagent_proxy_retries_total", "pod", &["shown label pod"]),
        (
            "kagent_proxy_retries_total / 3 or kagent_proxy_events",
            "",
            &["metric kagent_proxy_events"],
        ),
        ("vector(0)", "", &["no metric"]),
        ("max by (instance) (kagent_proxy_retries_total{route!~\"|a\"})", "instance", &[]),
    ] {
        let shown = marked(&format!("{{{{{shown}}}}}"), "{{");
        let shown = shown.into_iter().filter(|label| !label.is_empty()).collect();
        let query = Query { place: "p".to_owned(), expression: expression.to_owned(), shown };
        let wanted: Vec<String> = wanted.iter().map(|fault| format!("p: {fault}")).collect();
        assert_eq!(faults(&query, &labels), wanted, "{expression}");
    }
}

/// What a panel needs to be understood, and what Grafana needs to load it without asking.
#[test]
fn every_panel_says_what_it_shows() {
    for name in ["overview", "tools", "sessions"] {
        let text = read(&format!("deploy/dashboards/{name}.json"));
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(dashboard["uid"], format!("kagent-proxy-{name}"));
        assert_eq!(dashboard["id"], Value::Null, "an id belongs to one Grafana");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(variables[0]["name"], "datasource");
        assert_eq!(variables[0]["type"], "datasource");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
            if panel["type"] == "row" {
                continue;
            }
            let own = ["timeseries", "stat", "table", "heatmap"];
            assert!(own.contains(&panel["type"].as_str().unwrap()), "{title}: a plugin");
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{title}");
            let unit = match panel["type"] == "heatmap" {
                true => &panel["options"]["yAxis"]["unit"],
                false => &panel["fieldConfig"]["defaults"]["unit"],
            };
            assert!(unit.as_str().is_some_and(|unit| !unit.is_empty()), "{title} has no unit");
            let sources = panel["targets"].as_array().unwrap().iter().chain([panel]);
            for source in sources.map(|at| &at["datasource"]["uid"]) {
                assert_eq!(*source, "${datasource}", "{title}");
            }
        }
    }
}
