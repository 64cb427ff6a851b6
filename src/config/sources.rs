//! Where each value of the configuration came from, and the faults that name such a place.
//!
//! Precedence is flag, environment, file, default. Knows no section of the configuration. [`Sources`]
//! goes to `/config` and `explain`, [`ConfigFaults`] to the terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave it.
    Default,
    /// This line of this file, counted from 1; line 0 is the file as a whole.
    File(PathBuf, usize),
    /// This environment variable.
    Env(&'static str),
    /// This flag, with its dashes.
    Flag(&'static str),
}

/// From configuration path, such as `listener.idle` or `routes[2].targets`, to source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Source>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_of}: {}{}{reason}", path, if path.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// Where the value stood.
    pub source_of: Source,
    /// Which value, such as `routes[2].targets`; empty for a file that cannot be read at all.
    pub path: String,
    /// What is wrong and what to write instead.
    pub reason: String,
}

/// Everything that is wrong; never empty when returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigError>);

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

// === impl Sources ===

impl Sources {
    /// Records where `path` came from; whoever is set last counts.
    pub fn set(&mut self, path: impl Into<String>, source: Source) {
        self.0.insert(path.into(), source);
    }

    /// The source of a path, or of the nearest path above it that has one.
    #[must_use]
    pub fn of(&self, path: &str) -> Source {
        let mut path = path;
        loop {
            if let Some(source) = self.0.get(path) {
                return source.clone();
            }
            let Some(end) = path.rfind(['.', '[']) else { return Source::Default };
            path = path.get(..end).unwrap_or_default();
        }
    }

    /// The source of just this path, if it has one.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Source> {
        self.0.get(path)
    }

    /// Forgets a path and all below it.
    pub fn forget(&mut self, path: &str) {
        self.0.retain(|key, _| {
            key.strip_prefix(path)
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with(['.', '[']))
        });
    }

    /// All that is known, in the order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.0.iter().map(|(path, source)| (path.as_str(), source))
    }
}

// === impl ConfigFaults ===

impl ConfigFaults {
    /// Adds one.
    pub fn add(&mut self, source: &Source, path: impl Into<String>, reason: impl Into<String>) {
        self.0.push(ConfigError {
            source_of: source.clone(),
            path: path.into(),
            reason: reason.into(),
        });
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
