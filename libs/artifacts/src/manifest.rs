//! A manifest: the files of an artifact, what it is, and what it came from.
//!
//! Its bytes are canonical (sorted entries and annotations, fixed key order, no white space), so that the same content always has
//! the same digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Result};

/// The files of an artifact, what it is, and what it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it is: `dataset`, `tokenizer`, `model`, `checkpoint`, ...
    pub kind: String,
    /// Its files; any order, but each path once.
    pub entries: Vec<Entry>,
    /// What it was made from, in an order that means something to the maker.
    pub parents: Vec<Digest>,
    /// What else is known about it. Never a time, a random id, a host or a job: those would change the digest.
    pub annotations: BTreeMap<String, String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Relative path with `/`, `data/part-00000.parquet`.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Manifest {
    /// The entry of a path.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let mut sorted = self.clone();
        sorted.entries.sort_by(|a, b| a.path.cmp(&b.path));
        serde_json::to_vec(&sorted).map_err(|error| Error::invalid("manifest", error.to_string()))
    }

    /// The digest under which [`crate::Artifacts::put_manifest`] stores it.
    pub fn digest(&self) -> Result<Digest> {
        self.encode().map(Digest::of)
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| Error::invalid("manifest", error.to_string()))?;
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<()> {
        if self.kind.is_empty() {
            return Err(Error::invalid("kind", "it is empty"));
        }
        let mut paths: Vec<&str> = self.entries.iter().map(|entry| entry.path.as_str()).collect();
        paths.sort_unstable();
        for (index, path) in paths.iter().enumerate() {
            let reason = path_problem(path).or_else(|| {
                // A file that is also a folder sorts before what is in it, but not always directly: `a`, `a.b`, `a/c`.
                let next = paths.get(index + 1)?;
                let clash = *next == *path || {
                    let inside = format!("{path}/");
                    let at = paths.partition_point(|other| *other < inside.as_str());
                    paths.get(at).is_some_and(|other| other.starts_with(&inside))
                };
                clash.then_some("it occurs twice, or is also a folder")
            });
            if let Some(reason) = reason {
                return Err(Error::invalid(format!("entries[{path:?}].path"), reason));
            }
        }
        Ok(())
    }
}

/// What is wrong with a path: entries become files below a folder that the caller chose, and must not leave it.
fn path_problem(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        return Some("it must be relative");
    }
    if path.contains(['\\', '\0']) {
        return Some("it must not contain a backslash or a null byte");
    }
    if path.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return Some("it must not contain empty segments, `.` or `..`");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.to_owned(), digest: Digest::of(path), size: path.len() as u64 }
    }

    #[test]
    fn the_same_content_has_the_same_bytes_in_any_order() {
        let mut manifest =
            Manifest { kind: "model".to_owned(), entries: vec![entry("b"), entry("a")], ..Manifest::default() };
        manifest.annotations.insert("z".to_owned(), "1".to_owned());
        manifest.annotations.insert("a".to_owned(), "2".to_owned());
        let bytes = manifest.encode().unwrap();
        manifest.entries.reverse();
        assert_eq!(manifest.encode().unwrap(), bytes);
        let a = Digest::of("a");
        let b = Digest::of("b");
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            format!(
                r#"{{"kind":"model","entries":[{{"path":"a","digest":"{a}","size":1}},{{"path":"b","digest":"{b}","size":1}}],"parents":[],"annotations":{{"a":"2","z":"1"}}}}"#
            )
        );
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        assert_eq!(manifest.size(), 2);
    }

    #[test]
    fn a_path_that_leaves_the_folder_is_refused_by_name() {
        for path in ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0"] {
            let manifest = Manifest { kind: "x".to_owned(), entries: vec![entry(path)], ..Manifest::default() };
            let error = manifest.encode().unwrap_err().to_string();
            assert!(error.contains("entries["), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_path_that_occurs_twice_or_is_also_a_folder_is_refused() {
        for paths in [&["a", "b", "a"][..], &["a/c", "a", "a.b"][..]] {
            let entries = paths.iter().map(|path| entry(path)).collect();
            let manifest = Manifest { kind: "x".to_owned(), entries, ..Manifest::default() };
            assert!(manifest.encode().is_err(), "{paths:?}");
        }
    }
}
