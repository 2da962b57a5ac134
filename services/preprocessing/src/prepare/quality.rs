//! Quality rules after Gopher (arXiv 2112.11446, table A1).

use std::collections::HashSet;

use tidemill_proto::r#type::v1::recipe::Quality;

/// The rules, with the paper's values where the recipe has none.
pub(crate) struct Rules {
    min_words: usize,
    max_words: usize,
    min_alphabetic_ratio: f64,
    max_symbol_ratio: f64,
    min_mean_word_length: f64,
    max_mean_word_length: f64,
    max_duplicate_line_ratio: f64,
}

impl Rules {
    /// From a recipe's step.
    pub(crate) fn of(step: &Quality) -> Self {
        let count = |value: i32, usual| if value > 0 { value as usize } else { usual };
        let figure = |value: f64, usual| if value > 0.0 { value } else { usual };
        Self {
            min_words: count(step.min_words, 50),
            max_words: count(step.max_words, 100_000),
            min_alphabetic_ratio: figure(step.min_alphabetic_ratio, 0.8),
            max_symbol_ratio: figure(step.max_symbol_ratio, 0.1),
            min_mean_word_length: figure(step.min_mean_word_length, 3.0),
            max_mean_word_length: figure(step.max_mean_word_length, 10.0),
            max_duplicate_line_ratio: figure(step.max_duplicate_line_ratio, 0.3),
        }
    }

    /// The first rule that a text breaks.
    pub(crate) fn check(&self, text: &str) -> Result<(), (&'static str, String)> {
        let (mut words, mut characters, mut alphabetic) = (0usize, 0usize, 0usize);
        for word in text.split_whitespace() {
            words += 1;
            characters += word.chars().count();
            alphabetic += usize::from(word.chars().any(char::is_alphabetic));
        }
        if words < self.min_words {
            return Err(("TOO_FEW_WORDS", format!("{words} words, at least {} wanted", self.min_words)));
        }
        if words > self.max_words {
            return Err(("TOO_MANY_WORDS", format!("{words} words, at most {} wanted", self.max_words)));
        }
        let share = |count: usize| count as f64 / words.max(1) as f64;
        let length = share(characters);
        if !(self.min_mean_word_length..=self.max_mean_word_length).contains(&length) {
            let (least, most) = (self.min_mean_word_length, self.max_mean_word_length);
            return Err((
                "WORD_LENGTH",
                format!("words have {length:.2} characters on average, {least} to {most} wanted"),
            ));
        }
        let symbols = share(text.matches('#').count() + text.matches("...").count() + text.matches('…').count());
        if symbols > self.max_symbol_ratio {
            return Err((
                "TOO_MANY_SYMBOLS",
                format!("{symbols:.3} symbols a word, at most {} wanted", self.max_symbol_ratio),
            ));
        }
        let letters = share(alphabetic);
        if letters < self.min_alphabetic_ratio {
            let detail =
                format!("{letters:.3} of the words have a letter, at least {} wanted", self.min_alphabetic_ratio);
            return Err(("TOO_FEW_LETTERS", detail));
        }
        let repeated = repeated_lines(text);
        if repeated > self.max_duplicate_line_ratio {
            let detail =
                format!("{repeated:.3} of the lines repeat another, at most {} wanted", self.max_duplicate_line_ratio);
            return Err(("REPEATED_LINES", detail));
        }
        Ok(())
    }
}

fn repeated_lines(text: &str) -> f64 {
    let mut seen = HashSet::new();
    let (mut lines, mut repeated) = (0usize, 0usize);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        lines += 1;
        repeated += usize::from(!seen.insert(line));
    }
    repeated as f64 / lines.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Option<&'static str> {
        Rules::of(&Quality::default()).check(text).err().map(|(reason, _)| reason)
    }

    #[test]
    fn each_rule_drops_what_it_is_for() {
        let good: String = (0..60).map(|i| format!("word{i} ")).collect();
        assert_eq!(reason(&good), None);
        assert_eq!(reason("too short"), Some("TOO_FEW_WORDS"));
        assert_eq!(reason(&"word ".repeat(100_001)), Some("TOO_MANY_WORDS"));
        assert_eq!(reason(&"ab ".repeat(60)), Some("WORD_LENGTH"));
        assert_eq!(reason(&"abcdefghijkl ".repeat(60)), Some("WORD_LENGTH"));
        assert_eq!(reason(&"word #tag ".repeat(60)), Some("TOO_MANY_SYMBOLS"));
        assert_eq!(reason(&"word 1234 ".repeat(60)), Some("TOO_FEW_LETTERS"));
        assert_eq!(reason(&"the same line\n".repeat(60)), Some("REPEATED_LINES"));
    }

    #[test]
    fn a_recipe_can_move_every_bound() {
        let rules = Rules::of(&Quality { min_words: 2, max_duplicate_line_ratio: 1.0, ..Quality::default() });
        assert!(rules.check("some text").is_ok());
        assert!(rules.check("same line\nsame line\n").is_ok());
        assert!(rules.check("word").unwrap_err().1.contains("at least 2"));
    }
}
