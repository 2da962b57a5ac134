//! The URL that names a server: `scheme://user:password@host:port/path?parameter=value&…`.
//!
//! Every adapter of a server reads its settings from one. Parameters are known by name, so that a misspelt one is an error and no
//! silent default; secrets come from files that parameters name; an [`Address`] prints without its password.

use std::fmt;

/// What is wrong with an address, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has no parameter of that name.
    #[error("unknown parameter {name:?}; known are {known}")]
    Unknown {
        /// As it was written.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A parameter has no acceptable value.
    #[error("parameter {name}={value:?}: {reason}")]
    Value {
        /// Which.
        name: String,
        /// As it was written.
        value: String,
        /// Why, and what would be.
        reason: String,
    },
    /// The text is no URL.
    #[error("it should look like {0}")]
    Shape(&'static str),
    /// A file that a parameter names cannot be read.
    #[error("{name}: {path}: {source}")]
    File {
        /// Which parameter.
        name: String,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A parsed URL. Prints without its password.
#[derive(Clone)]
pub struct Address {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    host: String,
    path: String,
    query: String,
    parameters: Vec<(String, String)>,
}

impl Address {
    /// Reads a URL; `known` are its parameters, `example` shows what it should look like.
    ///
    /// # Errors
    /// It has another shape, or a parameter that is not known.
    pub fn parse(url: &str, known: &[&str], example: &'static str) -> Result<Address, Error> {
        let shape = || Error::Shape(example);
        let (scheme, rest) = url.split_once("://").ok_or_else(shape)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, "")) => (Some(decode(user).ok_or_else(shape)?), None),
            Some((user, password)) => {
                (Some(decode(user).ok_or_else(shape)?), Some(decode(password).ok_or_else(shape)?))
            }
            None => (None, None),
        };
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                return Err(Error::Unknown { name: name.to_owned(), known: known.join(", ") });
            }
            parameters.push((name.to_owned(), decode(value).ok_or_else(shape)?));
        }
        let path = decode(path).ok_or_else(shape)?;
        let (scheme, host, query) = (scheme.to_owned(), host.to_owned(), query.to_owned());
        Ok(Address { scheme, user: user.filter(|user| !user.is_empty()), password, host, path, query, parameters })
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, if one is named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host with its port, as it was written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, and its port or the usual one.
    ///
    /// # Errors
    /// There is no host, or its port is no number.
    pub fn host_and_port(&self, usual: u16, example: &'static str) -> Result<(&str, u16), Error> {
        let (host, port) = match self.host.rsplit_once(':') {
            // An IPv6 address stands in brackets; its colons separate no port.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| Error::Shape(example))?),
            _ => (self.host.as_str(), usual),
        };
        match host.trim_start_matches('[').trim_end_matches(']') {
            "" => Err(Error::Shape(example)),
            host => Ok((host, port)),
        }
    }

    /// What follows the host, without the first slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A parameter, if it is given and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The bytes of the file that a parameter names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = |path: &str| {
            std::fs::read(path).map_err(|source| Error::File { name: name.to_owned(), path: path.to_owned(), source })
        };
        self.get(name).map(read).transpose()
    }

    /// The password: from the file that `password_file` names, else the one in the URL.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn password(&self) -> Result<Option<String>, Error> {
        match self.file("password_file")? {
            Some(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            None => Ok(self.password.clone()),
        }
    }

    /// What is wrong with a parameter's value.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> Error {
        let value = self.get(name).unwrap_or_default().to_owned();
        Error::Value { name: name.to_owned(), value, reason: reason.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://", self.scheme)?;
        match (&self.user, &self.password) {
            (Some(user), Some(_)) => write!(formatter, "{user}:***@")?,
            (None, Some(_)) => write!(formatter, ":***@")?,
            (Some(user), None) => write!(formatter, "{user}@")?,
            (None, None) => {}
        }
        formatter.write_str(&self.host)?;
        if !self.path.is_empty() {
            write!(formatter, "/{}", self.path)?;
        }
        if !self.query.is_empty() {
            write!(formatter, "?{}", self.query)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Address({self})")
    }
}

/// A URL as it may be printed, whatever its shape: what may be a password is left out.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{}", &rest[end..])
        }
        _ => url.to_owned(),
    }
}

/// Replaces `%2F` and the like.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "x://host:1/path";

    fn parse(url: &str) -> Result<Address, Error> {
        Address::parse(url, &["password_file", "mode"], EXAMPLE)
    }

    #[test]
    fn an_address_is_taken_apart() {
        let address = parse("x://me%40home:s%3Acret@host:12/a/b?mode=full&password_file=").unwrap();
        assert_eq!((address.scheme(), address.user(), address.path()), ("x", Some("me@home"), "a/b"));
        assert_eq!(address.host_and_port(1, EXAMPLE).unwrap(), ("host", 12));
        assert_eq!(address.password().unwrap().as_deref(), Some("s:cret"));
        assert_eq!((address.get("mode"), address.get("password_file")), (Some("full"), None));
        let bare = parse("x://[::1]").unwrap();
        assert_eq!((bare.user(), bare.path()), (None, ""));
        assert_eq!(bare.host_and_port(7, EXAMPLE).unwrap(), ("::1", 7));
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "from the file\n").unwrap();
        let url = format!("x://me:secret@host/db?password_file={}", file.display());
        let address = parse(&url).unwrap();
        assert_eq!(address.password().unwrap().as_deref(), Some("from the file"));
        for text in [address.to_string(), format!("{address:?}"), masked(&url), masked("x://:secret@host")] {
            assert!(!text.contains("secret") && text.contains(":***@host"), "{text}");
        }
        let missing = parse("x://host?password_file=/does/not/exist").unwrap().password().unwrap_err().to_string();
        assert!(missing.contains("password_file") && missing.contains("/does/not/exist"), "{missing}");
    }

    #[test]
    fn a_strange_address_is_refused_with_the_remedy() {
        let unknown = parse("x://host?mood=full").unwrap_err().to_string();
        assert!(unknown.contains("\"mood\"") && unknown.contains("password_file, mode"), "{unknown}");
        for url in ["x:host", "x://host/%zz", "x://host?mode=%f"] {
            assert!(parse(url).unwrap_err().to_string().contains(EXAMPLE), "{url}");
        }
        for url in ["x://host:many", "x://:1"] {
            assert!(parse(url).unwrap().host_and_port(1, EXAMPLE).is_err(), "{url}");
        }
    }
}
