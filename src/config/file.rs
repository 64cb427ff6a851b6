//! The YAML file as a tree with line numbers, and the reading of its maps, lists and scalars.
//!
//! What asks a [`Reader`] for every key does three things with it: it reads a file, lists what a file may hold, and
//! shows a configuration. Every fault is collected with its line; nothing here knows what a key means. saphyr is the
//! parser because its tree carries the position of each node.

use std::path::Path;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Value, json};

use super::scalar::{ScalarKind, Shape};
use super::sources::{ConfigFaults, Source, Sources};

/// A value and the line it begins on, from 1.
pub(super) struct Node {
    line: usize,
    data: Data,
}

/// Key, the line of the key, value.
type Entry = (String, usize, Node);
/// An item of a list with its path, and what is shown there.
pub(super) type Item<'n, T> = (&'n Node, String, Option<T>);

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

/// Is asked for each key there is; reads a file's values and notes their sources and faults.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    pub(super) sources: &'a mut Sources,
    pub(super) faults: &'a mut ConfigFaults,
    pub(super) mode: Mode,
}

/// What is done with each key that the reader is asked for.
pub(super) enum Mode {
    /// Its value is taken from the file.
    Read,
    /// What was asked for is noted by its path, items of lists as `[]`. Everything counts as present.
    Outline(Vec<(String, KeyAsked)>),
    /// The value that is in the configuration is put into this tree.
    Show(Value),
}

/// What the reader was asked for at a path.
pub(super) enum KeyAsked {
    Map,
    List,
    Scalar(Shape),
    Words(Vec<&'static str>),
}

/// A value that is not there.
pub(super) static NOTHING: Node = Node { line: 0, data: Data::Null };

// === impl ScalarKind ===

impl<T> ScalarKind<T> {
    /// Words that are not taken are not shown.
    fn asked(&self) -> KeyAsked {
        match self.shape {
            Shape::Words(words) => KeyAsked::Words(
                words.iter().filter(|word| (self.parse)(word).is_ok()).copied().collect(),
            ),
            shape => KeyAsked::Scalar(shape),
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

    /// The line of a map's key; 0 where it is not in the file.
    pub(super) fn key_line(&self, map: &Map<'_>, key: &str) -> usize {
        match self.sources.of(&map.join(key)) {
            Source::File(_, line) => line,
            _ => 0,
        }
    }

    /// The node as a map; an empty one after a fault.
    pub(super) fn map<'n>(&mut self, node: &'n Node, path: &str) -> Map<'n> {
        self.ask(path, KeyAsked::Map);
        if !path.is_empty() {
            self.show(path, json!({}));
        }
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
        if !matches!(self.mode, Mode::Read) {
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

    /// The same, of which null is shown where nothing is.
    pub(super) fn section_of<'n, T>(
        &mut self,
        map: &mut Map<'n>,
        key: &'static str,
        shown: Option<&T>,
    ) -> Option<Map<'n>> {
        if self.shows() && shown.is_none() {
            self.show(&map.join(key), Value::Null);
            return None;
        }
        self.section(map, key)
    }

    /// The items of a list of maps under a key; `None` if the key is absent. Those that are shown are taken out of
    /// `slot`.
    pub(super) fn items<'n, T>(
        &mut self,
        map: &mut Map<'n>,
        key: &'static str,
        slot: &mut Vec<T>,
    ) -> Option<Vec<Item<'n, T>>> {
        if self.shows() {
            let path = map.join(key);
            self.show(&path, json!([]));
            let shown = std::mem::take(slot).into_iter().enumerate();
            return Some(
                shown.map(|(at, item)| (&NOTHING, format!("{path}[{at}]"), Some(item))).collect(),
            );
        }
        let items = self.list(map, key)?.into_iter();
        Some(items.map(|(node, path)| (node, path, None)).collect())
    }

    /// The scalars of a list under a key, without those that are wrong; how many there are, or `None` if the key is
    /// absent.
    pub(super) fn scalars<T>(
        &mut self,
        map: &mut Map<'_>,
        key: &'static str,
        slot: &mut Vec<T>,
        kind: ScalarKind<T>,
    ) -> Option<usize> {
        if self.shows() {
            let shown = slot.iter().map(|value| kind.shown(value)).collect();
            self.show(&map.join(key), shown);
            return Some(slot.len());
        }
        let items = self.list(map, key)?;
        let right = items.iter().filter_map(|(node, path)| self.scalar(node, path, &kind));
        *slot = right.collect();
        Some(items.len())
    }

    /// The items of a list, each with its path.
    fn list<'n>(
        &mut self,
        map: &mut Map<'n>,
        key: &'static str,
    ) -> Option<Vec<(&'n Node, String)>> {
        let (node, path) = self.get(map, key)?;
        if let Mode::Outline(_) = self.mode {
            self.ask(&path, KeyAsked::List);
            return Some(vec![(&NOTHING, format!("{path}[]"))]);
        }
        let Data::List(items) = &node.data else {
            self.fault(node.line, &path, "is not a list; write one `- item` line for each");
            return None;
        };
        Some(items.iter().enumerate().map(|(at, item)| (item, format!("{path}[{at}]"))).collect())
    }

    fn ask(&mut self, path: &str, asked: KeyAsked) {
        if let Mode::Outline(outline) = &mut self.mode {
            outline.push((path.to_owned(), asked));
        }
    }

    /// Whether values go out instead of in.
    pub(super) fn shows(&self) -> bool {
        matches!(self.mode, Mode::Show(_))
    }

    /// Shows a value at a path.
    pub(super) fn show(&mut self, path: &str, value: Value) {
        if let Mode::Show(root) = &mut self.mode {
            put(root, path, value);
        }
    }

    /// From here on, the keys of a map are shown one level deeper than they are read.
    pub(super) fn show_below(&mut self, map: &mut Map<'_>, key: &str) {
        if self.shows() {
            map.path = map.join(key);
            self.show(&map.path, json!({}));
        }
    }

    /// A scalar of this kind.
    fn scalar<T>(&mut self, node: &Node, path: &str, kind: &ScalarKind<T>) -> Option<T> {
        if let Mode::Outline(_) = self.mode {
            self.ask(path, kind.asked());
            return None;
        }
        let Data::Text(text) = &node.data else {
            self.fault(node.line, path, "is not a single value; write it on the key's own line");
            return None;
        };
        (kind.parse)(text).map_err(|reason| self.fault(node.line, path, &reason)).ok()
    }

    /// The value of a key, if it is there and right; `shown` is what is shown of it.
    pub(super) fn value<T>(
        &mut self,
        map: &mut Map<'_>,
        key: &'static str,
        shown: Option<T>,
        kind: ScalarKind<T>,
    ) -> Option<T> {
        if self.shows() {
            let value = shown.as_ref().map_or(Value::Null, |value| kind.shown(value));
            self.show(&map.join(key), value);
            return shown;
        }
        let (node, path) = self.get(map, key)?;
        self.scalar(node, &path, &kind)
    }

    /// Puts the value of a key into its slot.
    pub(super) fn set<T>(
        &mut self,
        map: &mut Map<'_>,
        key: &'static str,
        slot: &mut T,
        kind: ScalarKind<T>,
    ) {
        if self.shows() {
            return self.show(&map.join(key), kind.shown(slot));
        }
        if let Some(value) = self.value(map, key, None, kind) {
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

/// Puts a value where its path leads, such as `routes[0].to.cards`; what stands above has been put before.
fn put(root: &mut Value, path: &str, value: Value) {
    let mut at = root;
    for step in path.split(['.', '[']) {
        let below = match (at, step.strip_suffix(']')) {
            (Value::Object(map), None) => Some(map.entry(step).or_insert(Value::Null)),
            (Value::Array(items), Some(index)) => {
                let index: usize = index.parse().unwrap_or_default();
                if index == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(index)
            }
            _ => None,
        };
        let Some(below) = below else { return };
        at = below;
    }
    *at = value;
}
