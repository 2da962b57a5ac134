//! Takes fields out of a JSON object one by one, and remembers what is wrong with each.

use serde_json::{Map, Value};

pub(crate) struct Fields {
    map: Map<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    pub(crate) fn new(map: Map<String, Value>) -> Self {
        Self { map, problems: Vec::new() }
    }

    /// A positive integer that must be there.
    pub(crate) fn size(&mut self, name: &str) -> i64 {
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
    pub(crate) fn size_or(&mut self, name: &str, default: i64) -> i64 {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.take(name);
            return default;
        }
        self.size(name)
    }

    /// A positive number that must be there.
    pub(crate) fn number(&mut self, name: &str) -> f64 {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.problem(name, "missing");
        }
        self.number_or(name, 1.0)
    }

    /// Whether another object has the same fields, but for one.
    pub(crate) fn same(&self, other: &Self, but: &str) -> bool {
        let of = |fields: &Self| {
            let mut map = fields.map.clone();
            map.remove(but);
            map
        };
        of(self) == of(other)
    }

    /// A positive number, or `default` where absent or null.
    pub(crate) fn number_or(&mut self, name: &str, default: f64) -> f64 {
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

    pub(crate) fn bool_or(&mut self, name: &str, default: bool) -> bool {
        match self.take(name) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(value)) => value,
            Some(other) => {
                self.problem(name, &format!("{other} is not true or false"));
                default
            }
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.problem(name, &format!("{other} is not a string"));
                None
            }
        }
    }

    /// Whatever is there, or none where absent or null.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.take(name).filter(|value| !value.is_null())
    }

    /// A list of strings, or none where absent or null.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let texts =
            value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.problem(name, &format!("{value} is not a list of strings"));
        }
        texts
    }

    /// A token id, or none where absent or null. Of a list, as some models have several ends, the first.
    pub(crate) fn token(&mut self, name: &str) -> Option<i64> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let value = value.as_array().and_then(|list| list.first().cloned()).unwrap_or(value);
                let id = value.as_i64().filter(|id| *id >= 0);
                if id.is_none() {
                    self.problem(name, &format!("{value} is not a token id"));
                }
                id
            }
        }
    }

    /// An object, or none where absent or null.
    pub(crate) fn object(&mut self, name: &str) -> Option<Fields> {
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
    pub(crate) fn absorb(&mut self, name: &str, inner: Fields) {
        self.problems.extend(inner.finish().into_iter().map(|problem| format!("{name}.{problem}")));
    }

    /// Fields that change nothing here: any value will do.
    pub(crate) fn accept_any(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A switch that this crate supports in one position only.
    pub(crate) fn require_default(&mut self, name: &str, supported: &Value) {
        if let Some(value) = self.take(name)
            && !value.is_null()
            && value != *supported
            && value.as_f64().is_none_or(|value| Some(value) != supported.as_f64())
        {
            self.problem(name, &format!("{value} is not supported, only {supported}"));
        }
    }

    pub(crate) fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// All problems; a field that nobody took is one.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.problems.extend(self.map.keys().map(|name| format!("{name}: unknown field")));
        self.problems
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }
}
