//! Resource names: `collection/id/collection/id` (AIP-122).

/// Why a name or an id is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {expected}")]
pub struct InvalidName {
    /// What was given.
    pub value: String,
    /// What it should be.
    pub what: String,
    /// How it should look.
    pub expected: String,
}

/// Checks an id: lower-case letters, digits and hyphens, starting with a letter or digit, at most 63.
pub fn check_id(id: &str) -> Result<(), InvalidName> {
    let ok = !id.is_empty()
        && id.len() <= 63
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-');
    ok.then_some(()).ok_or_else(|| InvalidName {
        value: id.chars().take(80).collect(),
        what: "id".to_owned(),
        expected: "use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end".to_owned(),
    })
}

/// Checks a name against a pattern such as `models/-/versions/-` and returns its ids.
pub fn ids<'a>(name: &'a str, pattern: &str) -> Result<Vec<&'a str>, InvalidName> {
    let error = || InvalidName {
        value: name.chars().take(200).collect(),
        what: "name".to_owned(),
        expected: format!("it should look like {}", pattern.replace('-', "{id}")),
    };
    let parts: Vec<&str> = name.split('/').collect();
    let expected: Vec<&str> = pattern.split('/').collect();
    if parts.len() != expected.len() {
        return Err(error());
    }
    let mut found = Vec::new();
    for (part, expected) in parts.iter().zip(&expected) {
        if *expected == "-" {
            if *part != "-" {
                check_id(part).map_err(|_| error())?;
            }
            found.push(*part);
        } else if part != expected {
            return Err(error());
        }
    }
    Ok(found)
}

/// The last id of a name.
pub fn last_id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The name of the resource that a name is under: `models/a` for `models/a/versions/1`; empty at the top.
pub fn parent(name: &str) -> &str {
    let mut slashes = name.rmatch_indices('/').map(|(at, _)| at);
    slashes.nth(1).map_or("", |at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_ids() {
        assert_eq!(ids("models/a/versions/12", "models/-/versions/-").unwrap(), ["a", "12"]);
        assert_eq!(parent("models/a/versions/12"), "models/a");
        assert_eq!(parent("models/a"), "");
        assert_eq!(last_id("models/a/versions/12"), "12");
    }

    #[test]
    fn names_that_could_leave_their_collection_are_refused() {
        for name in [
            "models/../versions/1",
            "models/a",
            "models/a/versions/",
            "models/A/versions/1",
            "x/a/versions/1",
            "models/a%2f/versions/1",
        ] {
            assert!(ids(name, "models/-/versions/-").is_err(), "{name}");
        }
        assert!(check_id(&"a".repeat(64)).is_err());
    }
}
