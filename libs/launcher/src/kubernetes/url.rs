//! `kubernetes:///<namespace>?job_template=/path/to/job.yaml`.

use std::path::PathBuf;

/// What the URL says.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    /// `None`: the pod's own, or that of the kubeconfig.
    pub(super) namespace: Option<String>,
    pub(super) job_template: PathBuf,
}

/// Reads the URL.
///
/// # Errors
/// What is wrong with it, and how it should be.
pub(super) fn parse(url: &str) -> Result<Address, String> {
    let rest = url.strip_prefix("kubernetes:///").ok_or(
        "no host belongs there, the cluster is this process's own or that of KUBECONFIG: \
         kubernetes:///<namespace>?job_template=/path/to/job.yaml",
    )?;
    let (namespace, query) = rest.split_once('?').unwrap_or((rest, ""));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !namespace.bytes().all(plain) {
        return Err(format!("the namespace {namespace:?} is not lower-case letters, digits and `-`"));
    }
    let mut job_template = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("job_template", path)) if path.starts_with('/') => job_template = Some(PathBuf::from(path)),
            Some(("job_template", path)) => return Err(format!("job_template={path} should be a full path")),
            _ => {
                let name = pair.split('=').next().unwrap_or(pair);
                return Err(format!("unknown query parameter {name:?}; known: job_template"));
            }
        }
    }
    let job_template =
        job_template.ok_or("job_template is missing: the file with the Job that workers are made from")?;
    Ok(Address { namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()), job_template })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_namespace_and_template() {
        let address = |namespace: Option<&str>| Address {
            namespace: namespace.map(str::to_owned),
            job_template: PathBuf::from("/etc/job.yaml"),
        };
        assert_eq!(parse("kubernetes:///ml?job_template=/etc/job.yaml").unwrap(), address(Some("ml")));
        assert_eq!(parse("kubernetes:///?job_template=/etc/job.yaml").unwrap(), address(None));
    }

    #[test]
    fn a_wrong_url_is_refused_with_what_is_wrong() {
        for (url, hint) in [
            ("kubernetes:", "KUBECONFIG"),
            ("kubernetes://host/ml?job_template=/a", "no host"),
            ("kubernetes:///ml", "job_template is missing"),
            ("kubernetes:///ml?job_template=a", "full path"),
            ("kubernetes:///ml?job_template=/a&image=x", "\"image\"; known: job_template"),
            ("kubernetes:///ML?job_template=/a", "\"ML\""),
        ] {
            let text = parse(url).unwrap_err();
            assert!(text.contains(hint), "{url}: {text}");
        }
    }
}
