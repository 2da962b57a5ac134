//! docs/training.md holds the reference of TrainingSpec as the proto file has it; `TIDEMILL_UPDATE_DOCS=1` writes it anew.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- reference: made from proto/tidemill/type/v1/training_spec.proto -->\n";
const END: &str = "<!-- end of the reference -->\n";

#[test]
fn the_reference_of_training_is_that_of_its_proto() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/training.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark at the begin of the reference");
    let (found, after) = rest.split_once(END).expect("the mark at the end of the reference");
    let made = reference("tidemill.type.v1.TrainingSpec");
    if std::env::var_os("TIDEMILL_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == made,
        "docs/training.md is behind its proto: TIDEMILL_UPDATE_DOCS=1 cargo test -p tidemill-tests reference"
    );
}

/// A table for a message and for each that it holds.
fn reference(root: &str) -> String {
    let pool = tidemill_proto::pool();
    let (mut seen, mut waiting) = (BTreeSet::new(), VecDeque::from([root.to_owned()]));
    let mut out = String::new();
    while let Some(name) = waiting.pop_front() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let message = pool.get_message_by_name(&name).expect("a message that a field names");
        let comment = comment(message.parent_file().file_descriptor_proto(), message.path());
        let _ =
            write!(out, "\n### {}\n\n{comment}\n\n| field | type | meaning |\n| --- | --- | --- |\n", message.name());
        for field in message.fields() {
            let kind = field.kind();
            let (mut of, mut choices) = (format!("{kind:?}").to_lowercase(), String::new());
            if let Some(inner) = kind.as_message() {
                waiting.push_back(inner.full_name().to_owned());
                of = inner.name().to_owned();
            } else if let Some(inner) = kind.as_enum() {
                let prefix = format!("{}_", snake(inner.name()).to_uppercase());
                let names = inner.values().map(|value| value.name().trim_start_matches(&prefix).to_owned());
                of = names.filter(|name| name != "UNSPECIFIED").collect::<Vec<_>>().join(", ");
            }
            if field.is_list() {
                of = format!("list of {of}");
            }
            if let Some(group) = field.containing_oneof().filter(|group| !group.is_synthetic()) {
                choices = format!(" One of `{}`.", group.name());
            }
            let meaning = self::comment(field.parent_file().file_descriptor_proto(), field.path());
            let _ = writeln!(out, "| `{}` | {of} | {meaning}{choices} |", field.name());
        }
    }
    out + "\n"
}

/// The comment before a part of a file, as one line.
fn comment(file: &prost_types::FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let found =
        locations.filter(|location| location.path == path).find_map(|location| location.leading_comments.clone());
    found.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(character);
    }
    out
}
