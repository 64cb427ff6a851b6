//! Series in the text format of Prometheus, each family once, whoever adds to it.
//!
//! Knows the format; nothing of what is counted.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use super::histogram::Samples;
use super::names::BOUNDS;
use super::operations::Durations;

/// Families of series from several sources, each family once: its `TYPE` line, and its series.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<String, (String, String)>);

/// Labels as they stand between braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

// === impl Families ===

impl Families {
    /// Adds what a recorder shows.
    pub(super) fn add(&mut self, text: &str) {
        // An empty line ends a family; within labels a line feed is escaped.
        for family in text.split("\n\n") {
            let Some((kind, series)) = family.split_once('\n') else { continue };
            let name = kind.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next());
            let Some(name) = name else { continue };
            let all = self.of(name, || kind.to_owned());
            all.extend([series, "\n"]);
        }
    }

    /// Adds a counter.
    pub(super) fn counter(&mut self, name: &str, labels: &Labels, count: u64) {
        line(self.of(name, || format!("# TYPE {name} counter")), name, "", labels, count);
    }

    /// Adds a gauge.
    pub(super) fn gauge(&mut self, name: &str, labels: &Labels, value: impl Display) {
        line(self.of(name, || format!("# TYPE {name} gauge")), name, "", labels, value);
    }

    /// Adds a histogram, in seconds.
    pub(super) fn histogram(&mut self, name: &str, labels: &Labels, samples: &Samples) {
        let up_to = BOUNDS.into_iter().zip(samples.up_to);
        let sum = Duration::from_micros(samples.sum);
        self.buckets(name, labels, up_to, (samples.count, sum));
    }

    /// Adds the durations of calls.
    pub(super) fn durations(&mut self, name: &str, labels: &Labels, durations: &Durations) {
        self.buckets(name, labels, durations.up_to(), (durations.count(), durations.sum()));
    }

    /// Adds a histogram: bounds in microseconds, with how many are up to each, how many there are, and their sum.
    fn buckets(
        &mut self,
        name: &str,
        labels: &Labels,
        up_to: impl Iterator<Item = (u64, u64)>,
        (count, sum): (u64, Duration),
    ) {
        let text = self.of(name, || format!("# TYPE {name} histogram"));
        for (bound, count) in up_to {
            let bound = Duration::from_micros(bound).as_secs_f64().to_string();
            line(text, name, "_bucket", &labels.and([("le", bound.as_str())]), count);
        }
        line(text, name, "_bucket", &labels.and([("le", "+Inf")]), count);
        line(text, name, "_sum", labels, sum.as_secs_f64());
        line(text, name, "_count", labels, count);
    }

    /// The series of a family; `kind` is its `TYPE` line if it is new.
    fn of(&mut self, name: &str, kind: impl FnOnce() -> String) -> &mut String {
        &mut self.0.entry(name.to_owned()).or_insert_with(|| (kind(), String::new())).1
    }

    /// The whole text, with these names and help texts.
    pub(super) fn text(self, help: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (name, (kind, series)) in self.0 {
            if let Some((_, help)) = help.iter().find(|(of, _)| *of == name) {
                text.extend(["# HELP ", name.as_str(), " ", *help, "\n"]);
            }
            text.extend([kind.as_str(), "\n", series.as_str(), "\n"]);
        }
        text
    }
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &Labels, value: impl Display) {
    // Writing into text does not fail.
    let _infallible = match labels.0.as_str() {
        "" => writeln!(text, "{name}{suffix} {value}"),
        labels => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

// === impl Labels ===

impl Labels {
    /// One label.
    pub(super) fn of(name: &str, value: &str) -> Self {
        Self::default().and([(name, value)])
    }

    /// These with some more.
    pub(super) fn and<'a>(&self, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = self.0.clone();
        for (name, value) in more {
            if !text.is_empty() {
                text.push(',');
            }
            text.extend([name, "=\""]);
            for char in value.chars() {
                match char {
                    '\n' => text.push_str("\\n"),
                    '"' | '\\' => text.extend(['\\', char]),
                    _ => text.push(char),
                }
            }
            text.push('"');
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_several_sources_is_one() {
        let mut families = Families::default();
        families
            .add("# TYPE b counter\nb{route=\"r\"} 1\nb{route=\"s\"} 2\n\n# TYPE a gauge\na 3\n\n");
        families.add("# TYPE b counter\nb{route=\"t\\n\"} 4\n\n");
        families.add("");
        families.counter("b", &Labels::of("route", "u"), 5);
        let expected = "# HELP a what a is\n# TYPE a gauge\na 3\n\n# TYPE b counter\n\
            b{route=\"r\"} 1\nb{route=\"s\"} 2\nb{route=\"t\\n\"} 4\nb{route=\"u\"} 5\n\n";
        assert_eq!(families.text(&[("a", "what a is"), ("c", "not there")]), expected);
    }
}
