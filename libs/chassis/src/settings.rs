//! Settings in three layers: embedded defaults < the file at `TIDEMILL_CONFIG` < environment `TIDEMILL__SECTION__KEY`.
//!
//! The defaults name every key, so a key that they lack is a mistake, and so is a value of another kind. All mistakes are listed
//! at once.

use std::collections::BTreeMap;

use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;

/// Defaults of the sections that this crate reads.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Sections that a shared file may hold, also where this process does not read them.
const SECTIONS: &[&str] = &[
    "server",
    "telemetry",
    "platform",
    "services",
    "ingestion",
    "preprocessing",
    "training",
    "evaluation",
    "registry",
    "inference",
    "pipeline",
    "gateway",
];

/// Every mistake found, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the settings have {} mistake(s):\n{}", .0.len(), .0.iter().map(|m| format!("  - {m}")).collect::<Vec<_>>().join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// Merged settings of one process.
#[derive(Clone, Debug)]
pub struct Settings {
    merged: Config,
}

impl Settings {
    /// Loads the layers: `defaults` (TOML texts of the components in this process), the file, the environment.
    ///
    /// # Errors
    /// All unknown keys and wrong kinds, with the layer they are in.
    pub fn load(defaults: &[&str]) -> Result<Self, Mistakes> {
        let file = match std::env::var("TIDEMILL_CONFIG") {
            Ok(path) if !path.is_empty() => match std::fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(error) => {
                    return Err(Mistakes(vec![format!("TIDEMILL_CONFIG names {path}, which cannot be read: {error}")]));
                }
            },
            _ => None,
        };
        let env = std::env::vars().filter(|(key, _)| key.starts_with("TIDEMILL__")).collect();
        Self::from_layers(defaults, file, env)
    }

    /// As [`Settings::load`], with the file (its name and text) and the environment given.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_layers(
        defaults: &[&str],
        file: Option<(String, String)>,
        env: BTreeMap<String, String>,
    ) -> Result<Self, Mistakes> {
        let mut builder = Config::builder();
        for text in std::iter::once(&DEFAULTS).chain(defaults) {
            builder = builder.add_source(File::from_str(text, FileFormat::Toml));
        }
        let base = builder.clone().build().expect("embedded defaults are valid TOML");
        let known = leaves(base.cache.clone());
        let mut mistakes = Vec::new();

        if let Some((path, text)) = file {
            let source = File::from_str(&text, FileFormat::Toml);
            match Config::builder().add_source(source.clone()).build() {
                Ok(layer) => {
                    check(&path, leaves(layer.cache.clone()), &known, &mut mistakes);
                    builder = builder.add_source(source);
                }
                Err(error) => mistakes.push(format!("{path} is not valid TOML: {error}")),
            }
        }

        let environment = Environment::with_prefix("TIDEMILL")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .source(Some(env.into_iter().collect()));
        match Config::builder().add_source(environment.clone()).build() {
            Ok(layer) => check("environment", leaves(layer.cache.clone()), &known, &mut mistakes),
            Err(error) => mistakes.push(format!("the environment cannot be read: {error}")),
        }
        builder = builder.add_source(environment);

        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let merged = builder.build().map_err(|error| Mistakes(vec![error.to_string()]))?;
        Ok(Self { merged })
    }

    /// Reads one section. Section structs have a field for every key of the defaults and `deny_unknown_fields`.
    ///
    /// # Errors
    /// A value that the struct does not accept, with its key.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, Mistakes> {
        self.merged.get(name).map_err(|error| Mistakes(vec![format!("[{name}]: {error}")]))
    }

    /// The merged settings as `section.key = value` lines, with secrets masked.
    pub fn dump(&self) -> String {
        let mut lines = String::new();
        for (key, value) in leaves(self.merged.cache.clone()) {
            let secret = ["secret", "password", "token", "api_key"].iter().any(|word| key.contains(word));
            let secret = secret && !key.ends_with("_file");
            let value = if secret { "********".to_owned() } else { format!("{:?}", value.to_string()) };
            lines.push_str(&format!("{key} = {value}\n"));
        }
        lines
    }
}

fn check(layer: &str, found: BTreeMap<String, Value>, known: &BTreeMap<String, Value>, mistakes: &mut Vec<String>) {
    for (key, value) in found {
        let Some(default) = known.get(&key) else {
            let section = key.split('.').next().unwrap_or_default();
            let of_another_process =
                SECTIONS.contains(&section) && !known.keys().any(|k| k.starts_with(&format!("{section}.")));
            if !of_another_process {
                let near = known.keys().find(|k| k.ends_with(key.rsplit('.').next().unwrap_or_default()));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                mistakes.push(format!("{layer}: unknown key {key}{hint}"));
            }
            continue;
        };
        if let Some(expected) = mismatch(&default.kind, &value.kind) {
            mistakes.push(format!("{layer}: {key} = {:?} should be {expected}", value.to_string()));
        }
    }
}

fn mismatch(default: &ValueKind, given: &ValueKind) -> Option<&'static str> {
    use ValueKind as K;
    match (default, given) {
        (K::Boolean(_), K::Boolean(_)) | (K::Array(_), K::Array(_)) => None,
        (K::I64(_), K::I64(_) | K::U64(_)) | (K::Float(_), K::Float(_) | K::I64(_)) => None,
        (K::String(_), K::String(_) | K::I64(_) | K::Float(_) | K::Boolean(_)) => None,
        (K::Boolean(_), _) => Some("true or false"),
        (K::I64(_), _) => Some("a whole number"),
        (K::Float(_), _) => Some("a number"),
        (K::Array(_), _) => Some("a list"),
        (K::String(_), _) => Some("a text"),
        _ => None,
    }
}

fn leaves(root: Value) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: Value, into: &mut BTreeMap<String, Value>) {
        match value.kind {
            ValueKind::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&key, value, into);
                }
            }
            _ => {
                into.insert(prefix.to_owned(), value);
            }
        }
    }
    let mut into = BTreeMap::new();
    walk("", root, &mut into);
    into
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTRA: &str = "[gateway]\nrate = 1.5\nstore = true\n";

    fn load(file: &str, env: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::from_layers(&[EXTRA], Some(("tidemill.toml".to_owned(), file.to_owned())), env)
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let settings = load("[gateway]\nrate = 2\nstore = false\n", &[("TIDEMILL__GATEWAY__RATE", "3")]).unwrap();
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Gateway {
            rate: f64,
            store: bool,
        }
        let gateway: Gateway = settings.section("gateway").unwrap();
        assert_eq!((gateway.rate, gateway.store), (3.0, false));
    }

    #[test]
    fn all_mistakes_are_listed_at_once() {
        let file = "[gateway]\nrat = 2\nstore = \"maybe\"\n[nonsense]\nx = 1\n[server]\nmax_message_bytes = \"big\"\n";
        let mistakes = load(file, &[("TIDEMILL__GATEWAY__STOR", "1")]).unwrap_err();
        assert_eq!(mistakes.0.len(), 5, "{mistakes}");
        assert!(mistakes.to_string().contains("nonsense.x"));
    }

    #[test]
    fn sections_of_other_processes_are_left_alone() {
        assert!(load("[training]\nanything = 1\n", &[]).is_ok());
    }

    #[test]
    fn secrets_are_masked() {
        let settings =
            Settings::from_layers(&["[services]\nauth_token = \"hunter2\"\n"], None, BTreeMap::new()).unwrap();
        assert!(!settings.dump().contains("hunter2"));
        assert!(settings.dump().contains("server.grpc_address"));
    }
}
