//! Unicode normalisation, one kind of line end, no control characters.

use tidemill_proto::r#type::v1::recipe::normalize::Form;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

/// The text in normal form: CR LF and CR become LF; controls other than tab and LF, and byte order marks, go.
pub(crate) fn normalized(text: &str, form: Form) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => plain.push('\n'),
            '\t' | '\n' => plain.push(character),
            '\u{feff}' => {}
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    match form {
        Form::Nfkc if is_nfkc_quick(plain.chars()) != IsNormalized::Yes => plain.nfkc().collect(),
        Form::Unspecified | Form::Nfc if is_nfc_quick(plain.chars()) != IsNormalized::Yes => plain.nfc().collect(),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_brought_into_one_form() {
        for (text, form, expected) in [
            ("a\r\nb\rc\n", Form::Nfc, "a\nb\nc\n"),
            ("a\0b\u{7}c\td\u{85}e", Form::Nfc, "abc\tde"),
            ("\u{feff}text", Form::Nfc, "text"),
            ("cafe\u{301}", Form::Unspecified, "café"),
            ("ﬁ ½ Ⅳ", Form::Nfc, "ﬁ ½ Ⅳ"),
            ("ﬁ ½ Ⅳ", Form::Nfkc, "fi 1⁄2 IV"),
        ] {
            assert_eq!(normalized(text, form), expected);
            assert_eq!(normalized(expected, form), expected, "a second time changes nothing");
        }
    }
}
