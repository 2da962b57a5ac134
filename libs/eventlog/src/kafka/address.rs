//! `kafka://b1:9092,b2:9092/path?security_protocol=sasl_ssl&…`: where a cluster is and how a client is admitted to it.
//!
//! Secrets are read from files, never from the URL, and nothing but servers and path of a URL is ever printed.

use std::collections::HashMap;
use std::path::Path;

use percent_encoding::percent_decode_str;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::{Error, Result};

/// Parameters that every URL of a cluster may have.
const SECURITY: &[&str] = &[
    "security_protocol",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password_file",
    "ssl_ca_file",
    "ssl_certificate_file",
    "ssl_key_file",
];

const PROTOCOLS: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// What may be wrong with a part of a URL.
type Checked<T> = std::result::Result<T, String>;

/// A cluster, and how to be admitted to it.
#[derive(Debug)]
pub(crate) struct Address {
    /// Servers, security, and what all our clients have in common.
    pub(crate) config: ClientConfig,
    /// What stands between the servers and the parameters, without its slash; may be empty.
    pub(crate) path: String,
    /// The URL without its parameters: for logs and errors.
    pub(crate) masked: String,
    own: HashMap<String, String>,
}

impl Address {
    /// Reads a URL, and the files that it names. `own` are the parameters that the caller knows beside those of [`SECURITY`].
    ///
    /// # Errors
    /// [`Error::Address`] with the parameter and the remedy.
    pub(crate) fn parse(url: &str, own: &[&str]) -> Result<Address> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let rest = place.strip_prefix("kafka://").unwrap_or_default();
        let (servers, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Whoever writes a password into the URL shall not find it in a log.
        let (credentials, servers) = servers.rsplit_once('@').unwrap_or(("", servers));
        let slash = if path.is_empty() { "" } else { "/" };
        let masked = format!("kafka://{servers}{slash}{path}");
        let wrong = |reason: String| Error::Address { url: masked.clone(), reason };
        if !credentials.is_empty() {
            return Err(wrong(
                "credentials do not belong before @; use sasl_username and sasl_password_file".to_owned(),
            ));
        }
        if !servers.split(',').all(is_server) {
            return Err(wrong("name the servers as host:port,host:port: kafka://b1:9092,b2:9092".to_owned()));
        }
        let mut parameters = parameters(query, own).map_err(&wrong)?;
        let mut config = common(servers);
        secure(&mut config, &mut parameters).map_err(&wrong)?;
        Ok(Address { config, path: path.to_owned(), masked: masked.clone(), own: parameters })
    }

    /// The value of one of the caller's own parameters, if the URL has it.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str)
    }

    /// That the URL is wrong, and why.
    pub(crate) fn wrong(&self, reason: String) -> Error {
        Error::Address { url: self.masked.clone(), reason }
    }
}

fn is_server(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn parameters(query: &str, own: &[&str]) -> Checked<HashMap<String, String>> {
    let mut found = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !own.contains(&name) && !SECURITY.contains(&name) {
            let known = [own, SECURITY].concat().join(", ");
            return Err(format!("unknown parameter {name}; known are {known}"));
        }
        let value = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
        if found.insert(name.to_owned(), value.into_owned()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(found)
}

/// How long a group waits for a member that fell silent: who dies is replaced this soon. After a longer outage members come back under
/// new names, and the group waits this long for the old ones. A broker takes no less unless it is told to.
pub(crate) const SESSION_MILLIS: &str = "6000";

fn common(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("client.id", "tidemill")
        .set("socket.keepalive.enable", "true")
        // So that a client is back within seconds after its broker is.
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Moves the parameters of security into the configuration; leaves the caller's own.
fn secure(config: &mut ClientConfig, parameters: &mut HashMap<String, String>) -> Checked<()> {
    let protocol = parameters.remove("security_protocol").unwrap_or_else(|| "plaintext".to_owned());
    one_of("security_protocol", &protocol, PROTOCOLS)?;
    config.set("security.protocol", &protocol);

    let sasl = ["sasl_mechanism", "sasl_username", "sasl_password_file"].map(|name| (name, parameters.remove(name)));
    for (name, value) in &sasl {
        match value {
            Some(_) if !protocol.starts_with("sasl") => {
                return Err(format!("{name} needs security_protocol=sasl_ssl (or sasl_plaintext)"));
            }
            None if protocol.starts_with("sasl") => return Err(format!("security_protocol={protocol} needs {name}")),
            _ => {}
        }
    }
    if let [(_, Some(mechanism)), (_, Some(username)), (name, Some(file))] = sasl {
        one_of("sasl_mechanism", &mechanism, MECHANISMS)?;
        let password = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {file}: {error}"))?;
        config.set("sasl.mechanism", mechanism).set("sasl.username", username);
        config.set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }

    for (name, key) in [
        ("ssl_ca_file", "ssl.ca.location"),
        ("ssl_certificate_file", "ssl.certificate.location"),
        ("ssl_key_file", "ssl.key.location"),
    ] {
        let Some(file) = parameters.remove(name) else { continue };
        if !protocol.ends_with("ssl") {
            return Err(format!("{name} needs security_protocol=ssl or sasl_ssl"));
        }
        std::fs::File::open(Path::new(&file)).map_err(|error| format!("{name}: {file}: {error}"))?;
        config.set(key, file);
    }
    if config.get("ssl.certificate.location").is_some() != config.get("ssl.key.location").is_some() {
        return Err("ssl_certificate_file and ssl_key_file belong together".to_owned());
    }
    Ok(())
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Checked<()> {
    if known.contains(&value) {
        return Ok(());
    }
    Err(format!("{name}={value} is unknown; use one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests;
