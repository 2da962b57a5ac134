//! Recognisers of personal data and their redaction. Pure, and linear in the length of the text.
//!
//! Precision comes before recall: a year, an amount or a date that is taken for a phone number damages every history book.

mod phone;

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// E-mail address.
    Email,
    /// Telephone number.
    Phone,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Email, Self::Phone];

    /// What stands in the text's place.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Email => "<EMAIL>",
            Self::Phone => "<PHONE>",
        }
    }
}

/// One piece of personal data in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Where it stands in the original text, in bytes.
    pub range: Range<usize>,
}

/// Personal data of these kinds, in the order of the text, without overlaps.
#[must_use]
pub fn find(text: &str, kinds: &[Kind]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if kinds.contains(&Kind::Email) && text.contains('@') {
        findings.extend(EMAIL.find_iter(text).map(|found| Finding { kind: Kind::Email, range: found.range() }));
    }
    if kinds.contains(&Kind::Phone) {
        findings.extend(phone::find(text).map(|range| Finding { kind: Kind::Phone, range }));
    }
    findings.sort_by_key(|finding| finding.range.start);
    let mut end = 0;
    findings.retain(|finding| {
        let apart = finding.range.start >= end;
        if apart {
            end = finding.range.end;
        }
        apart
    });
    findings
}

/// The text with each finding replaced by its placeholder, and the findings.
#[must_use]
pub fn redact(text: &str, kinds: &[Kind]) -> (String, Vec<Finding>) {
    let findings = find(text, kinds);
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for finding in &findings {
        redacted.push_str(&text[end..finding.range.start]);
        redacted.push_str(finding.kind.placeholder());
        end = finding.range.end;
    }
    redacted.push_str(&text[end..]);
    (redacted, findings)
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    let local = r"[\p{L}0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[\p{L}0-9!#$%&'*+/=?^_`{|}~-]+)*";
    let domain = r"(?:[\p{L}0-9](?:[\p{L}0-9-]{0,61}[\p{L}0-9])?\.)+\p{L}{2,24}";
    Regex::new(&format!("{local}@{domain}")).expect("the pattern is constant")
});

#[cfg(test)]
mod tests;
