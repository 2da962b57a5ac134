use super::*;

fn parse(url: &str) -> Result<Address> {
    Address::parse(url, &["topic_prefix"])
}

#[test]
fn a_plain_url_names_servers_path_and_own_parameters() {
    let address = parse("kafka://b1:9092,[::1]:9093/a.topic?topic_prefix=a%2Fb%20c").unwrap();
    assert_eq!(address.config.get("bootstrap.servers"), Some("b1:9092,[::1]:9093"));
    assert_eq!(address.config.get("security.protocol"), Some("plaintext"));
    assert_eq!(address.path, "a.topic");
    assert_eq!(address.parameter("topic_prefix"), Some("a/b c"));
    assert_eq!(address.masked, "kafka://b1:9092,[::1]:9093/a.topic");
}

#[test]
fn secrets_and_keys_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (password, ca) = (file("password", "a secret \n"), file("ca.pem", "ca"));
    let (certificate, key) = (file("c.pem", "certificate"), file("k.pem", "key"));
    let url = format!(
        "kafka://b:9092?security_protocol=sasl_ssl&sasl_mechanism=SCRAM-SHA-512&sasl_username=u\
         &sasl_password_file={password}&ssl_ca_file={ca}&ssl_certificate_file={certificate}&ssl_key_file={key}"
    );
    let config = parse(&url).unwrap().config;
    for (key, value) in [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "u"),
        ("sasl.password", "a secret "),
        ("ssl.ca.location", &ca),
        ("ssl.certificate.location", &certificate),
        ("ssl.key.location", &key),
    ] {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
}

#[test]
fn a_wrong_url_is_told_what_to_write_and_no_secret_is_repeated() {
    for (url, hints) in [
        ("kafka://b", "host:port"),
        ("kafka://", "host:port"),
        ("kafka://b:9092,:1", "host:port"),
        ("kafka://u:hush@b:9092", "sasl_password_file"),
        (
            "kafka://b:1?sasl_password=hush",
            "unknown parameter sasl_password; known are topic_prefix, security_protocol",
        ),
        ("kafka://b:1?topic_prefix=a&topic_prefix=b", "twice"),
        ("kafka://b:1?security_protocol=tls", "plaintext, ssl, sasl_plaintext, sasl_ssl"),
        ("kafka://b:1?sasl_username=u", "sasl_username needs security_protocol=sasl_ssl"),
        ("kafka://b:1?security_protocol=sasl_ssl&sasl_mechanism=PLAIN&sasl_username=u", "needs sasl_password_file"),
        ("kafka://b:1?ssl_ca_file=/x", "ssl_ca_file needs security_protocol=ssl"),
        ("kafka://b:1?security_protocol=ssl&ssl_ca_file=/no/such", "ssl_ca_file: /no/such"),
        ("kafka://b:1?security_protocol=ssl&ssl_key_file=/dev/null", "ssl_certificate_file and ssl_key_file"),
    ] {
        let text = parse(url).unwrap_err().to_string();
        assert!(text.contains(hints), "{url}: {text}");
        assert!(!text.contains("hush"), "{text}");
    }
}
