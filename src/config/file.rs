//! The YAML file as a tree with line numbers, and the reading of its maps, lists and scalars.
//!
//! Every fault is collected with its line; nothing here knows what a key means. saphyr is the parser because its
//! tree carries the position of each node.

use std::path::Path;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::scalar::{Kind, Shape};
use super::sources::{ConfigFaults, Source, Sources};

/// A value and the line it begins on, from 1.
pub(super) struct Node {
    line: usize,
    data: Data,
}

/// Key, the line of the key, value.
type Entry = (String, usize, Node);
/// An item of a list with its path.
pub(super) type Item<'n> = (&'n Node, String);

enum Data {
    Map(Vec<Entry>),
    List(Vec<Node>),
    Text(String),
    Null,
}

/// A map whose keys are being asked for.
pub(super) struct Map<'n> {
    path: String,
    entries: &'n [Entry],
    known: Vec<&'static str>,
}

/// Reads a file's values and notes their sources and faults.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    pub(super) sources: &'a mut Sources,
    pub(super) faults: &'a mut ConfigFaults,
    /// What was asked for, by path, items of lists as `[]`. With it everything counts as present.
    pub(super) outline: Option<Vec<(String, Asked)>>,
}

/// What the reader was asked for at a path.
pub(super) enum Asked {
    Map,
    List,
    Scalar(Shape),
    Words(Vec<&'static str>),
}

/// A value that is not there.
pub(super) static NOTHING: Node = Node { line: 0, data: Data::Null };

// === impl Kind ===

impl<T> Kind<T> {
    /// Words that are not taken are not shown.
    fn asked(&self) -> Asked {
        match self.shape {
            Shape::Words(words) => Asked::Words(
                words.iter().filter(|word| (self.parse)(word).is_ok()).copied().collect(),
            ),
            shape => Asked::Scalar(shape),
        }
    }
}

// === impl Node ===

impl Node {
    /// The line it begins on.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    fn from_yaml(yaml: &MarkedYaml<'_>) -> Self {
        let line = yaml.span.start.line();
        let data = match &yaml.data {
            YamlData::Mapping(map) => {
                Data::Map(map.iter().map(|(key, value)| entry(key, value)).collect())
            }
            YamlData::Sequence(list) => Data::List(list.iter().map(Self::from_yaml).collect()),
            YamlData::Value(scalar) => scalar_text(scalar).map_or(Data::Null, Data::Text),
            YamlData::Tagged(_, inner) => return Self::from_yaml(inner),
            _ => Data::Null,
        };
        Self { line, data }
    }
}

fn entry(key: &MarkedYaml<'_>, value: &MarkedYaml<'_>) -> Entry {
    let name = match &key.data {
        YamlData::Value(scalar) => scalar_text(scalar).unwrap_or_default(),
        _ => String::new(),
    };
    (name, key.span.start.line(), Node::from_yaml(value))
}

fn scalar_text(scalar: &Scalar<'_>) -> Option<String> {
    match scalar {
        Scalar::Null => None,
        Scalar::Boolean(value) => Some(value.to_string()),
        Scalar::Integer(value) => Some(value.to_string()),
        Scalar::FloatingPoint(value) => Some(value.to_string()),
        Scalar::String(text) => Some(text.to_string()),
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// Parses the text; `None` after a fault, and for a file without content.
    pub(super) fn parse(&mut self, text: &str) -> Option<Node> {
        match MarkedYaml::load_from_str(text) {
            Ok(documents) if documents.len() > 1 => {
                self.fault(0, "", "has several YAML documents; write one");
                None
            }
            Ok(documents) => documents.first().map(Node::from_yaml),
            Err(error) => {
                self.fault(error.marker().line(), "", &format!("is not YAML: {}", error.info()));
                None
            }
        }
    }

    pub(super) fn fault(&mut self, line: usize, path: &str, reason: &str) {
        self.faults.add(&Source::File(self.file.to_owned(), line), path, reason);
    }

    /// The node as a map; an empty one after a fault.
    pub(super) fn map<'n>(&mut self, node: &'n Node, path: &str) -> Map<'n> {
        self.ask(path, Asked::Map);
        let entries: &[_] = match &node.data {
            Data::Map(entries) => entries,
            Data::Null => &[],
            _ => {
                self.fault(node.line, path, "is not a map; write `key: value` lines below it");
                &[]
            }
        };
        Map { path: path.to_owned(), entries, known: Vec::new() }
    }

    /// The value of a key with its path; `null` counts as absent.
    pub(super) fn get<'n>(
        &mut self,
        map: &mut Map<'n>,
        key: &'static str,
    ) -> Option<(&'n Node, String)> {
        map.known.push(key);
        if self.outline.is_some() {
            return Some((&NOTHING, map.join(key)));
        }
        let (_, line, node) = map.entries.iter().find(|(name, ..)| name == key)?;
        let path = map.join(key);
        self.sources.set(path.clone(), Source::File(self.file.to_owned(), *line));
        (!matches!(node.data, Data::Null)).then_some((node, path))
    }

    /// The section under a key.
    pub(super) fn section<'n>(&mut self, map: &mut Map<'n>, key: &'static str) -> Option<Map<'n>> {
        let (node, path) = self.get(map, key)?;
        Some(self.map(node, &path))
    }

    /// The items of a list under a key, each with its path; `None` if the key is absent.
    pub(super) fn list<'n>(
        &mut self,
        map: &mut Map<'n>,
        key: &'static str,
    ) -> Option<Vec<Item<'n>>> {
        let (node, path) = self.get(map, key)?;
        if self.outline.is_some() {
            self.ask(&path, Asked::List);
            return Some(vec![(&NOTHING, format!("{path}[]"))]);
        }
        let Data::List(items) = &node.data else {
            self.fault(node.line, &path, "is not a list; write one `- item` line for each");
            return None;
        };
        Some(items.iter().enumerate().map(|(at, item)| (item, format!("{path}[{at}]"))).collect())
    }

    fn ask(&mut self, path: &str, asked: Asked) {
        if let Some(outline) = &mut self.outline {
            outline.push((path.to_owned(), asked));
        }
    }

    /// A scalar of this kind.
    pub(super) fn scalar<T>(&mut self, node: &Node, path: &str, kind: Kind<T>) -> Option<T> {
        if self.outline.is_some() {
            self.ask(path, kind.asked());
            return None;
        }
        let Data::Text(text) = &node.data else {
            self.fault(node.line, path, "is not a single value; write it on the key's own line");
            return None;
        };
        (kind.parse)(text).map_err(|reason| self.fault(node.line, path, &reason)).ok()
    }

    /// The value of a key, if it is there and right.
    pub(super) fn value<T>(
        &mut self,
        map: &mut Map<'_>,
        key: &'static str,
        kind: Kind<T>,
    ) -> Option<T> {
        let (node, path) = self.get(map, key)?;
        self.scalar(node, &path, kind)
    }

    /// Puts the value of a key into its slot.
    pub(super) fn set<T>(
        &mut self,
        map: &mut Map<'_>,
        key: &'static str,
        slot: &mut T,
        kind: Kind<T>,
    ) {
        if let Some(value) = self.value(map, key, kind) {
            *slot = value;
        }
    }

    /// Refuses the keys nobody asked for.
    pub(super) fn end(&mut self, map: &Map<'_>) {
        for (name, line, _) in map.entries {
            if map.known.contains(&name.as_str()) {
                continue;
            }
            let nearest =
                map.known.iter().min_by_key(|known| strsim::damerau_levenshtein(name, known));
            let near = nearest
                .filter(|known| strsim::damerau_levenshtein(name, known) <= 1 + name.len() / 3);
            let help = match near {
                Some(known) => format!("did you mean {known}?"),
                None => format!("write one of {}", map.known.join(", ")),
            };
            self.fault(*line, &map.join(name), &format!("is not a known key; {help}"));
        }
    }
}

// === impl Map ===

impl Map<'_> {
    /// The path of a key in it.
    pub(super) fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
