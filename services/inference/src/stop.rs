//! Stop strings: text is given out as soon as it cannot be the beginning of one.
//!
//! What comes out does not depend on how the text was cut into pieces: the stop string that is complete first ends it.

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Text to give out; may be empty.
    Text(String),
    /// Text before a stop string, which ends the answer.
    Stopped(String),
}

impl StopFilter {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a piece in.
    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        if self.stops.is_empty() {
            return Passed::Text(piece.to_owned());
        }
        let seen = self.held.len();
        self.held.push_str(piece);
        let held = self.held.as_bytes();
        for end in seen + 1..=held.len() {
            let complete = self.stops.iter().filter(|stop| held[..end].ends_with(stop.as_bytes()));
            // Of two that end here, the longer one began first.
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                self.held.truncate(end - stop.len());
                return Passed::Stopped(std::mem::take(&mut self.held));
            }
        }
        let begun = |start: &usize| self.stops.iter().any(|stop| stop.as_bytes().starts_with(&held[*start..]));
        let keep = (0..held.len()).filter(|start| self.held.is_char_boundary(*start)).find(begun);
        let rest = self.held.split_off(keep.unwrap_or(held.len()));
        Passed::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What is left when no more text comes.
    pub(crate) fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(stops: &[&str]) -> StopFilter {
        StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    /// The text given out, and whether a stop string ended it.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let mut filter = filter(stops);
        let mut out = String::new();
        for piece in pieces {
            match filter.push(piece) {
                Passed::Text(text) => out.push_str(&text),
                Passed::Stopped(text) => return (out + &text, true),
            }
        }
        (out + &filter.finish(), false)
    }

    #[test]
    fn text_before_the_stop_is_returned_and_the_stop_is_not() {
        assert_eq!(run(&["\n\n"], ["one\ntwo\n", "\nthree"]), ("one\ntwo".to_owned(), true));
        assert_eq!(run(&["STOP"], ["ST", "OR", "E"]), ("STORE".to_owned(), false));
        assert_eq!(run(&["STOP"], ["a S", "T", "O", "P b"]), ("a ".to_owned(), true));
        assert_eq!(run(&[], ["as it ", "is"]), ("as it is".to_owned(), false));
    }

    #[test]
    fn only_what_may_begin_a_stop_is_held_back() {
        let mut filter = filter(&["aab"]);
        assert_eq!(filter.push("xa"), Passed::Text("x".to_owned()));
        assert_eq!(filter.push("a"), Passed::Text(String::new()));
        assert_eq!(filter.push("a"), Passed::Text("a".to_owned()));
        assert_eq!(filter.push("b"), Passed::Stopped(String::new()));
    }

    #[test]
    fn the_cut_into_pieces_does_not_matter() {
        let texts = ["abcabd", "xxabab", "aé日本é", "the end.\n\nUser: more", "aaaaab", "bcab", ""];
        let stops: [&[&str]; 6] =
            [&["abd"], &["b", "abab"], &["日本", "é"], &["\n\nUser:", "User"], &["aab"], &["cab", "ab"]];
        for text in texts {
            for stops in stops {
                let whole = run(stops, [text]);
                let characters: Vec<String> = text.chars().map(String::from).collect();
                assert_eq!(run(stops, characters.iter().map(String::as_str)), whole, "{text:?} {stops:?}");
                for (cut, _) in text.char_indices() {
                    assert_eq!(run(stops, [&text[..cut], &text[cut..]]), whole, "{text:?} {stops:?} at {cut}");
                }
                assert!(stops.iter().all(|stop| !whole.0.contains(stop)), "{whole:?} holds a stop string");
            }
        }
    }
}
