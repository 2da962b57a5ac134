//! Telephone numbers: international with a plus sign, North American, and national with a leading zero.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// Each form with the numbers of digits it may have.
static FORMS: LazyLock<[(Regex, Range<usize>); 3]> = LazyLock::new(|| {
    let form = |pattern: &str, digits| (Regex::new(pattern).expect("the pattern is constant"), digits);
    [
        // +49 (0)30 123456, +1-212-555-0123
        form(r"\+[1-9][0-9]{0,2}(?:[ .\-/]?\(?[0-9]{1,5}\)?){1,7}", 8..16),
        // (212) 555-0123, 212-555-0123, 212.555.0123, 1 212 555 0123
        form(
            r"(?:1[ .\-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .\-][0-9]{4}|[2-9][0-9]{2}(?:-[2-9][0-9]{2}-|\.[2-9][0-9]{2}\.| [2-9][0-9]{2} )[0-9]{4})",
            10..12,
        ),
        // 030 1234567, 0171/1234567, 01 23 45 67 89, (020) 7946 0958
        form(
            r"0[1-9](?:[ .\-][0-9]{2}){4}|(?:\(0[1-9][0-9]{1,3}\) ?|0[1-9][0-9]{1,3}[ /\-])[0-9]{3,8}(?:[ \-][0-9]{2,5}){0,3}",
            9..13,
        ),
    ]
});

/// Where numbers stand, form by form.
pub(crate) fn find(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    FORMS.iter().flat_map(move |(form, digits)| {
        form.find_iter(text).map(|found| found.range()).filter(move |range| {
            let count = text[range.clone()].bytes().filter(u8::is_ascii_digit).count();
            digits.contains(&count) && stands_alone(text, range)
        })
    })
}

/// Whether the range is no part of a longer number, amount, date or word.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '+' | '#' | '$' | '€' | '£' | '%' | '=');
    let joint = |c: char| matches!(c, '.' | ',' | '-' | '/' | ':');
    let joined = |near: Option<char>, far: Option<char>| {
        near.is_some_and(|near| part(near) || joint(near) && far.is_some_and(|far| far.is_ascii_digit()))
    };
    let mut before = text[..range.start].chars().rev();
    let mut after = text[range.end..].chars();
    !joined(before.next(), before.next()) && !joined(after.next(), after.next())
}
