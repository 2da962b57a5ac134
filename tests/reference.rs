//! docs/training.md holds the reference of what can be asked for as the proto files have it; `TIDEMILL_UPDATE_DOCS=1` writes it anew.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use prost_reflect::{FieldDescriptor, Value};

/// `google.api.FieldBehavior`: fields that the server sets.
const OUTPUT_ONLY: i32 = 3;
const IDENTIFIER: i32 = 8;

const BEGIN: &str = "<!-- reference: made from the proto files -->\n";
const END: &str = "<!-- end of the reference -->\n";

#[test]
fn the_reference_of_training_is_that_of_its_proto() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/training.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark at the begin of the reference");
    let (found, after) = rest.split_once(END).expect("the mark at the end of the reference");
    let made = reference(&["tidemill.type.v1.TrainingSpec", "tidemill.training.v1.Study"]);
    if std::env::var_os("TIDEMILL_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == made,
        "docs/training.md is behind its proto: TIDEMILL_UPDATE_DOCS=1 cargo test -p tidemill-tests reference"
    );
}

/// A table for each root and each message that it holds, with the fields that a caller may set; those of others are known elsewhere.
fn reference(roots: &[&str]) -> String {
    let pool = tidemill_proto::pool();
    let (mut seen, mut waiting) = (BTreeSet::new(), VecDeque::from_iter(roots.iter().map(|root| (*root).to_owned())));
    let mut out = String::new();
    while let Some(name) = waiting.pop_front() {
        if !name.starts_with("tidemill.") || !seen.insert(name.clone()) {
            continue;
        }
        let message = pool.get_message_by_name(&name).expect("a message that a field names");
        let comment = comment(message.parent_file().file_descriptor_proto(), message.path());
        let _ =
            write!(out, "\n### {}\n\n{comment}\n\n| field | type | meaning |\n| --- | --- | --- |\n", message.name());
        for field in message.fields().filter(settable) {
            let kind = field.kind();
            let (mut of, mut choices) = (format!("{kind:?}").to_lowercase(), String::new());
            if field.is_map() {
                of = "map".to_owned();
            } else if let Some(inner) = kind.as_message() {
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

fn settable(field: &FieldDescriptor) -> bool {
    let behavior = tidemill_proto::pool().get_extension_by_name("google.api.field_behavior");
    let behavior = behavior.expect("the pool holds what our files import");
    let options = field.options();
    let values = options.get_extension(&behavior);
    let ours = |value: &Value| matches!(value.as_enum_number(), Some(OUTPUT_ONLY | IDENTIFIER));
    !values.as_list().is_some_and(|values| values.iter().any(ours))
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
