//! YAML as a tree that keeps lines and duplicate keys. Anchors and aliases work; merge keys do not.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::Mistake;

/// A file is a page or two: more than this is a mistake, or an attack with aliases.
const MOST_NODES: usize = 20_000;
/// Deeper nesting than any message of ours has.
const MOST_LEVELS: usize = 40;

/// One value with its line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar { text: String, quoted: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its line.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Node {
    /// Nothing, `~` or `null`, without quotes.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }
}

/// A list or map whose end has not come.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Key>,
}

/// Parses a file of one document.
pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Mistake {
            line: error.marker().line(),
            field: String::new(),
            text: format!("this is not valid YAML: {}", error.info()),
        })?;
        builder.event(event, span.start.line())?;
    }
    builder.root.ok_or_else(|| Mistake {
        line: 1,
        field: String::new(),
        text: "the file is empty; pipelines/demo.yaml and `tidemill study run --help` are examples to start from"
            .to_owned(),
    })
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Mistake> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain };
                self.add(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(Node { line, ..node }, 0),
                None => Err(mistake(line, "this alias stands inside its own anchor; write the value out")),
            },
            Event::SequenceStart(anchor, _) => self.begin(Node { line, value: Value::List(Vec::new()) }, anchor),
            Event::MappingStart(anchor, _) => self.begin(Node { line, value: Value::Map(Vec::new()) }, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                self.nodes -= open.node.size().min(self.nodes);
                self.add(open.node, open.anchor)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if self.open.len() >= MOST_LEVELS {
            return Err(mistake(node.line, "this is nested deeper than any file of ours; check the indentation"));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        self.nodes += node.size();
        if self.nodes > MOST_NODES {
            return Err(mistake(node.line, "the document is larger than any file of ours; check its aliases"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if self.root.is_some() {
                return Err(mistake(node.line, "a second document begins here; a file holds one"));
            }
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => open.key = Some(Key { line: node.line, text }),
                _ => return Err(mistake(node.line, "a key must be a word; check the indentation")),
            },
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn mistake(line: usize, text: &str) -> Mistake {
    Mistake { line, field: String::new(), text: text.to_owned() }
}
