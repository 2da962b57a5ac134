use super::*;

fn redacted(text: &str) -> String {
    redact(text, &Kind::ALL).0
}

#[test]
fn addresses_are_found() {
    for address in [
        "jo@example.org",
        "jo.van-den_berg+tag@mail.example.co.uk",
        "o'neil@example.com",
        "JO@EXAMPLE.ORG",
        "1@a1.io",
        "grüße@müller.de",
    ] {
        assert_eq!(redacted(&format!("Write to {address}.")), "Write to <EMAIL>.", "{address}");
        assert_eq!(redacted(&format!("<{address}>, or")), "<<EMAIL>>, or", "{address}");
    }
}

#[test]
fn what_is_no_address_stays() {
    for text in
        ["@handle", "a@b", "3 apples @ 5 cents", "jo@", "@example.org", "jo @ example.org", "user@localhost", "a@.com"]
    {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn numbers_are_found() {
    for number in [
        "+1 212-555-0123",
        "+1-212-555-0123",
        "+12125550123",
        "+49 30 1234567",
        "+49 (0)30 1234567",
        "+44 20 7946 0958",
        "+33 1 23 45 67 89",
        "(212) 555-0123",
        "(212)555-0123",
        "212-555-0123",
        "212.555.0123",
        "212 555 0123",
        "1-800-555-0199",
        "030 1234567",
        "0171/1234567",
        "020 7946 0958",
        "(020) 7946 0958",
        "01 23 45 67 89",
    ] {
        assert_eq!(redacted(&format!("Call {number}, now")), "Call <PHONE>, now", "{number}");
        assert_eq!(redacted(&format!("tel:{number}.")), "tel:<PHONE>.", "{number}");
    }
}

#[test]
fn years_amounts_and_dates_stay() {
    for text in [
        "in 1790, 1791 and 1792",
        "the years 1861-1865",
        "1,234,567 men",
        "$1,234,567.89",
        "$ 2125550123",
        "2020-01-02",
        "2020-01-02 12:30:45",
        "01-02-2020",
        "01/02/2020",
        "01.02.2020",
        "01 02 2020 12",
        "3.14159265358979",
        "212-555-01234",
        "9212-555-0123",
        "1.212.555.0123.4",
        "192.168.100.200",
        "sections 101, 102 and 103",
        "pages 212-215",
        "123-45-6789",
        "04-1234567",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1111",
        "sha 0123456789abcdef",
        "order #212-555-0123",
        "2,125,550,123",
        "from 1 200 to 3 400 000 inhabitants",
        "$135,586.00 212",
        "+5 percent",
        "0.123 4567890",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn only_the_kinds_asked_for_are_replaced() {
    let text = "jo@example.org, 212-555-0123";
    assert_eq!(redact(text, &[Kind::Email]).0, "<EMAIL>, 212-555-0123");
    assert_eq!(redact(text, &[Kind::Phone]).0, "jo@example.org, <PHONE>");
    assert_eq!(redact(text, &[]).0, text);
    let (_, findings) = redact(text, &Kind::ALL);
    assert_eq!(findings.iter().map(|f| &text[f.range.clone()]).collect::<Vec<_>>(), ["jo@example.org", "212-555-0123"]);
}

#[test]
fn a_number_inside_an_address_is_one_finding() {
    assert_eq!(redacted("212-555-0123@example.org"), "<EMAIL>");
}

#[test]
fn redacting_again_changes_nothing() {
    let once = redacted("jo@example.org +49 30 1234567 and 212-555-0123");
    assert_eq!(redacted(&once), once);
}

#[test]
fn long_hostile_text_takes_linear_time() {
    for unit in ["a@", "+1 ", "0171/", "212-", "a.", "(", "1 "] {
        let text = unit.repeat(2_000_000 / unit.len());
        let _found = find(&text, &Kind::ALL);
    }
}
