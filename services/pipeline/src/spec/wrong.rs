//! Wrong fields, as they are found.

use tidemill_proto::names;

/// Wrong fields so far.
#[derive(Default)]
pub(super) struct Wrong(Vec<(String, String)>);

impl Wrong {
    /// Notes a wrong field of the document.
    pub(super) fn add(&mut self, field: &str, text: impl Into<String>) {
        self.0.push((format!("spec.{field}"), text.into()));
    }

    /// Notes a field unless a condition holds.
    pub(super) fn unless(&mut self, holds: bool, field: &str, text: impl FnOnce() -> String) {
        if !holds {
            self.add(field, text());
        }
    }

    /// Notes a part that is missing.
    pub(super) fn required<'a, T>(&mut self, field: &str, part: Option<&'a T>) -> Option<&'a T> {
        self.unless(part.is_some(), field, || "it is required".to_owned());
        part
    }

    /// Notes a text that is empty.
    pub(super) fn text(&mut self, field: &str, text: &str) {
        self.unless(!text.trim().is_empty(), field, || "it is required".to_owned());
    }

    /// Notes an id that is not one; tells whether it is.
    pub(super) fn id(&mut self, field: &str, id: &str) -> bool {
        let checked = names::check_id(id);
        let good = checked.is_ok();
        match checked {
            Err(_) if id.is_empty() => self.add(field, "it is required"),
            Err(error) => self.add(field, error.to_string()),
            Ok(()) => {}
        }
        good
    }

    /// Notes a size below 1 or beyond reason; tells whether it is a size.
    pub(super) fn size(&mut self, field: &str, value: i32, largest: i32) -> bool {
        let good = (1..=largest).contains(&value);
        self.unless(good, field, || format!("{value} should be 1 to {largest}"));
        good
    }

    /// Notes a number that is negative, where 0 takes the default.
    pub(super) fn count(&mut self, field: &str, value: i64) {
        self.unless(value >= 0, field, || format!("{value} is negative; use 0 for the default"));
    }

    /// Notes a number outside `low..=high`, or no number.
    pub(super) fn within(&mut self, field: &str, value: f64, low: f64, high: f64) {
        self.unless((low..=high).contains(&value), field, || format!("{value} should be {low} to {high}"));
    }

    /// Notes a value of an enum that is unknown, or unspecified where that is not allowed.
    pub(super) fn choice<E: TryFrom<i32>>(&mut self, field: &str, value: i32, may_be_unspecified: bool) {
        if value == 0 && !may_be_unspecified {
            self.add(field, "it is required");
        } else if E::try_from(value).is_err() {
            self.add(field, format!("{value} is not one of its values"));
        }
    }

    /// What was noted.
    pub(super) fn into_fields(self) -> Vec<(String, String)> {
        self.0
    }
}
