//! Wrong fields of one request, collected so that the caller sees all of them at once.

use tidemill_proto::names;

use crate::{Error, error};

/// Wrong fields so far.
#[derive(Default)]
pub(crate) struct Violations(Vec<(String, String)>);

impl Violations {
    /// Notes a wrong field.
    pub(crate) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push((field.into(), description.into()));
    }

    /// Notes a field that is empty.
    pub(crate) fn required(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.add(field, "it is required");
        }
    }

    /// Notes a name that does not look like `pattern`, or is not a single resource's.
    pub(crate) fn name(&mut self, field: &str, value: &str, pattern: &str) {
        match names::ids(value, pattern) {
            Err(error) => self.add(field, error.to_string()),
            Ok(ids) if ids.contains(&"-") => self.add(field, format!("{value:?} names many; name one")),
            Ok(_) => {}
        }
    }

    /// Notes an id that is not one.
    pub(crate) fn id(&mut self, field: &str, value: &str) {
        if let Err(error) = names::check_id(value) {
            self.add(field, error.to_string());
        }
    }

    /// Notes a digest that is not one.
    pub(crate) fn digest(&mut self, field: &str, value: &str) {
        if let Err(error) = value.parse::<tidemill_artifacts::Digest>() {
            self.add(field, error.to_string());
        }
    }

    /// An error if there was any.
    pub(crate) fn check(self) -> error::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self.0)) }
    }
}
