//! Takes fields out of a JSON object one by one, and remembers what is wrong with each.

use serde_json::{Map, Value};

pub(super) struct Fields {
    map: Map<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map, problems: Vec::new() }
    }

    /// A positive integer that must be there.
    pub(super) fn size(&mut self, name: &str) -> i64 {
        match self.take(name) {
            None => self.problem(name, "missing"),
            Some(value) => match value.as_i64() {
                Some(size) if (1..=i64::from(i32::MAX)).contains(&size) => return size,
                _ => self.problem(name, &format!("{value} is not a positive integer")),
            },
        }
        1
    }

    /// A positive integer, or `default` where absent or null.
    pub(super) fn size_or(&mut self, name: &str, default: i64) -> i64 {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.take(name);
            return default;
        }
        self.size(name)
    }

    /// A positive number, or `default` where absent or null.
    pub(super) fn number_or(&mut self, name: &str, default: f64) -> f64 {
        match self.take(name) {
            None | Some(Value::Null) => default,
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => number,
                _ => {
                    self.problem(name, &format!("{value} is not a positive number"));
                    default
                }
            },
        }
    }

    pub(super) fn bool_or(&mut self, name: &str, default: bool) -> bool {
        match self.take(name) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(value)) => value,
            Some(other) => {
                self.problem(name, &format!("{other} is not true or false"));
                default
            }
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.problem(name, &format!("{other} is not a string"));
                None
            }
        }
    }

    /// A token id, or none where absent or null.
    pub(super) fn token(&mut self, name: &str) -> Option<i64> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let id = value.as_i64().filter(|id| *id >= 0);
                if id.is_none() {
                    self.problem(name, &format!("{value} is not a token id"));
                }
                id
            }
        }
    }

    /// An object, or none where absent or null.
    pub(super) fn object(&mut self, name: &str) -> Option<Fields> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(Self::new(map)),
            Some(other) => {
                self.problem(name, &format!("{other} is not an object"));
                None
            }
        }
    }

    /// The problems of an object taken out of this one, under its name.
    pub(super) fn absorb(&mut self, name: &str, inner: Fields) {
        self.problems.extend(inner.finish().into_iter().map(|problem| format!("{name}.{problem}")));
    }

    /// Fields that change nothing here: any value will do.
    pub(super) fn accept_any(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A switch that this crate supports in one position only.
    pub(super) fn require_default(&mut self, name: &str, supported: &Value) {
        if let Some(value) = self.take(name)
            && !value.is_null()
            && value != *supported
            && value.as_f64().is_none_or(|value| Some(value) != supported.as_f64())
        {
            self.problem(name, &format!("{value} is not supported, only {supported}"));
        }
    }

    pub(super) fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// All problems; a field that nobody took is one.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.problems.extend(self.map.keys().map(|name| format!("{name}: unknown field")));
        self.problems
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }
}
