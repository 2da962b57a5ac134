//! `{% generation %}…{% endgeneration %}` in templates. The engine knows no such tags, so they are rewritten into ones it knows, which
//! write a character that no text may hold around what the assistant says, where that is asked for.

/// Begins and ends what the assistant says: noncharacters, which Unicode keeps for use inside programs.
pub(super) const OPEN: char = '\u{FDD0}';
pub(super) const CLOSE: char = '\u{FDD1}';

/// A template with the tags rewritten, and whether it had any.
pub(super) fn rewritten(source: &str) -> (String, bool) {
    let (mut text, mut marked) = (String::with_capacity(source.len()), false);
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        match mark(tag) {
            Some((left, character, right, length)) => {
                // Two tags with the character between them: each keeps its side's trimming of white space.
                text.push_str(&format!("{{%{left} if tidemill_marks %}}{character}{{% endif {right}%}}"));
                marked = true;
                rest = &tag[length..];
            }
            None => {
                text.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    text.push_str(rest);
    (text, marked)
}

/// The tag that `text` begins with: its trim marks, the character it stands for, and its length.
fn mark(text: &str) -> Option<(&str, char, &str, usize)> {
    let inside = text.strip_prefix("{%")?;
    let end = inside.find("%}")?;
    let inside = &inside[..end];
    let left = if inside.starts_with(['-', '+']) { &inside[..1] } else { "" };
    let word = &inside[left.len()..];
    let right = if word.ends_with(['-', '+']) { &word[word.len() - 1..] } else { "" };
    let character = match word[..word.len() - right.len()].trim() {
        "generation" => OPEN,
        "endgeneration" => CLOSE,
        _ => return None,
    };
    Some((left, character, right, 2 + end + 2))
}

/// Qwen 3 and its kin write an answer's thoughts only where no other answer follows. While a model learns, every answer is the last one
/// of its conversation, so all are written as that one is; TRL's training templates do the same.
pub(super) fn every_answer_as_the_last(source: &str) -> String {
    const ONLY_IN_THE_LAST: [&str; 2] =
        ["loop.index0 > ns.last_query_index", "loop.last or (not loop.last and reasoning_content)"];
    if !source.contains(ONLY_IN_THE_LAST[0]) {
        return source.to_owned();
    }
    ONLY_IN_THE_LAST.iter().fold(source.to_owned(), |text, condition| text.replace(condition, "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_tags_are_rewritten() {
        let (text, marked) = rewritten("a{%- generation -%}b{%endgeneration%}c{% if x %}d{% endif %}{% generation");
        let open = format!("{{%- if tidemill_marks %}}{OPEN}{{% endif -%}}");
        let close = format!("{{% if tidemill_marks %}}{CLOSE}{{% endif %}}");
        assert_eq!(text, format!("a{open}b{close}c{{% if x %}}d{{% endif %}}{{% generation"));
        assert!(marked);
        let plain = "{{ generation }}{% for generation in x %}{% endfor %}{#- generation -#}";
        assert_eq!(rewritten(plain), (plain.to_owned(), false));
    }
}
