//! The series of each route in a recorder of their own, so that they go when the last user of the route
//! is gone, and no sooner.
//!
//! The exporter itself forgets series by age only, and a route may be silent for days. Knows the text
//! format of Prometheus; nothing of what is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::names::SECONDS;

/// The recorders of routes, by the routes' labels.
#[derive(Debug, Default)]
pub(super) struct Series(Mutex<BTreeMap<String, Weak<PrometheusRecorder>>>);

/// Families of series from several recorders, each family once: its `TYPE` line, and its series.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<String, (String, String)>);

/// What every recorder is built from: durations have the buckets of [`SECONDS`].
///
/// # Errors
/// When the list of buckets is empty, which a test excludes.
pub(super) fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
}

// === impl Series ===

impl Series {
    /// The recorder of this route: the one in use, or a new one that begins at zero. Its series are
    /// shown as long as somebody holds it.
    pub(super) fn of(&self, route: &str) -> Arc<PrometheusRecorder> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = routes.get(route).and_then(Weak::upgrade) {
            return recorder;
        }
        // The program does not start with buckets at fault.
        let builder = builder().unwrap_or_default().add_global_label("route", route);
        let recorder = Arc::new(builder.build_recorder());
        routes.insert(route.to_owned(), Arc::downgrade(&recorder));
        recorder
    }

    /// The recorders of all routes that somebody holds, in the order of their labels.
    pub(super) fn live(&self) -> Vec<Arc<PrometheusRecorder>> {
        let mut live = Vec::new();
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, recorder| {
            let held = recorder.upgrade();
            let is_held = held.is_some();
            live.extend(held);
            is_held
        });
        live
    }
}

// === impl Families ===

impl Families {
    /// Adds what a recorder shows.
    pub(super) fn add(&mut self, text: &str) {
        // An empty line ends a family; within labels a line feed is escaped.
        for family in text.split("\n\n") {
            let Some((kind, series)) = family.split_once('\n') else { continue };
            let name = kind.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next());
            let Some(name) = name else { continue };
            if !self.0.contains_key(name) {
                self.0.insert(name.to_owned(), (kind.to_owned(), String::new()));
            }
            if let Some((_, all)) = self.0.get_mut(name) {
                all.push_str(series);
                all.push('\n');
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_several_recorders_is_one() {
        let mut families = Families::default();
        families
            .add("# TYPE b counter\nb{route=\"r\"} 1\nb{route=\"s\"} 2\n\n# TYPE a gauge\na 3\n\n");
        families.add("# TYPE b counter\nb{route=\"t\\n\"} 4\n\n");
        families.add("");
        let expected = "# HELP a what a is\n# TYPE a gauge\na 3\n\n\
            # TYPE b counter\nb{route=\"r\"} 1\nb{route=\"s\"} 2\nb{route=\"t\\n\"} 4\n\n";
        assert_eq!(families.text(&[("a", "what a is"), ("c", "not there")]), expected);
    }

    #[test]
    fn a_recorder_lives_as_long_as_it_is_held() {
        let series = Series::default();
        let (one, two) = (series.of("r"), series.of("r"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(series.live().len(), 1);
        drop(one);
        assert_eq!(series.live().len(), 1);
        drop(two);
        assert_eq!(series.live().len(), 0);
        assert!(series.0.lock().unwrap().is_empty(), "nothing is kept of it");
    }
}
