//! Where records come from.

use tidemill_proto::r#type::v1::{ConsentBasis, RecordFormat, SourceSpec};

use super::wrong::Wrong;

pub(super) fn check(source: &SourceSpec, wrong: &mut Wrong) {
    let package = source.uri.strip_prefix("npm:");
    let download = package.is_some() || source.uri.starts_with("https://");
    match (source.uri.as_str(), package) {
        ("", _) => wrong.add("source.uri", "it is required"),
        // The rest of a topic's uri, and which hosts are allowed, is for ingestion to check.
        (uri, None) if uri.starts_with("kafka://") || uri.starts_with("https://") => {}
        (uri, None) => wrong.unless(uri.starts_with("file:///") && uri.len() > "file:///".len(), "source.uri", || {
            format!("{uri:?} should begin with file:/// and a path, https://, npm: or kafka://")
        }),
        (uri, Some(package)) => {
            // The first `@` may be that of a scope.
            let version = package.rfind('@').filter(|at| *at > 0).map_or("", |at| &package[at + 1..]);
            wrong.unless(version.starts_with(|first: char| first.is_ascii_digit()), "source.uri", || {
                format!("{uri:?} should look like npm:@scope/package@1.2.3, with an exact version")
            });
        }
    }
    match source.sha256.as_str() {
        "" => wrong.unless(!download, "source.sha256", || "it is required for npm: and https: sources".to_owned()),
        digits => wrong.unless(
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "source.sha256",
            || format!("{digits:?} is not 64 hex digits"),
        ),
    }
    for (index, glob) in source.include.iter().enumerate() {
        if let Err(error) = globset::Glob::new(glob) {
            wrong.add(&format!("source.include[{index}]"), error.to_string());
        }
    }
    if let Err(error) = regex::Regex::new(&source.metadata_pattern) {
        // The whole message draws the pattern over several lines.
        let cause = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        wrong.add("source.metadata_pattern", format!("it is not a regular expression: {cause}"));
    }
    wrong.choice::<RecordFormat>("source.format", source.format, false);
    wrong.text("source.license", &source.license);
    wrong.choice::<ConsentBasis>("source.consent_basis", source.consent_basis, false);
    wrong.count("source.max_record_bytes", source.max_record_bytes);
}
