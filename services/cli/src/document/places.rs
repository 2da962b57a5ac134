//! Where each field of a document stands, so that what a server says about a field leads back to a line.

use std::collections::BTreeMap;

/// Lines by field path: `recipe.steps[0].quality`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<String, usize>);

impl Places {
    /// Notes a field's line.
    pub(super) fn note(&mut self, path: &str, line: usize) {
        self.0.insert(path.to_owned(), line);
    }

    /// The line of a field, or of the nearest one around it; the path may begin as a request's does (`pipeline.spec.`).
    pub(crate) fn line(&self, path: &str) -> usize {
        let mut path = Self::inside(path);
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return 1,
            }
        }
    }

    /// A request's field path as the document has it.
    pub(crate) fn inside(path: &str) -> &str {
        let path = path.strip_prefix("pipeline.").unwrap_or(path);
        path.strip_prefix("spec.").unwrap_or(path)
    }
}
