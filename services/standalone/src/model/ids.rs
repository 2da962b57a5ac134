//! ids.json: what goes into a model, as lists of token ids.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use tidemill_models::IGNORED;

/// The fields of ids.json; a bare list is `input_ids`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ids {
    /// Token ids, a list for each row.
    pub(super) input_ids: Vec<Vec<i64>>,
    /// 1 for tokens, 0 for padding behind them.
    pub(super) attention_mask: Option<Vec<Vec<i64>>>,
    /// What each position should be; -100 where it does not count.
    pub(super) labels: Option<Vec<Vec<i64>>>,
    /// The text that an encoder-decoder writes, where it is not the labels moved by one.
    pub(super) decoder_input_ids: Option<Vec<Vec<i64>>>,
}

impl Ids {
    /// Reads and checks the file for a model with this vocabulary.
    pub(super) fn read(path: &Path, vocabulary: i64) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
        Self::parse(&text, vocabulary).map_err(|problem| Failure::content(path, problem))
    }

    fn parse(text: &str, vocabulary: i64) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let value = if value.is_array() { serde_json::json!({"input_ids": value}) } else { value };
        let ids: Self =
            serde_json::from_value(value).map_err(|error| format!("{error}, in lists of lists of token ids"))?;
        check("input_ids", &ids.input_ids, vocabulary, false)?;
        let same = |name: &str, other: &[Vec<i64>], rows: &[Vec<i64>]| {
            let fits = other.len() == rows.len() && other.iter().zip(rows).all(|(other, row)| other.len() == row.len());
            if fits { Ok(()) } else { Err(format!("{name}: its rows must be as many and as long as those beside it")) }
        };
        if let Some(mask) = &ids.attention_mask {
            same("attention_mask", mask, &ids.input_ids)?;
            for (number, row) in mask.iter().enumerate() {
                let tokens = row.iter().take_while(|flag| **flag == 1).count();
                if tokens == 0 || row[tokens..].iter().any(|flag| *flag != 0) {
                    return Err(format!(
                        "attention_mask: row {number} must be ones, then zeros: padding stands at the end"
                    ));
                }
            }
        }
        if let Some(labels) = &ids.labels {
            check("labels", labels, vocabulary, true)?;
        }
        if let Some(text) = &ids.decoder_input_ids {
            check("decoder_input_ids", text, vocabulary, false)?;
            if let Some(labels) = &ids.labels {
                same("labels", labels, text)?;
            }
        }
        Ok(ids)
    }

    /// Tokens of each row, without its padding.
    pub(super) fn lengths(&self) -> Vec<usize> {
        match &self.attention_mask {
            Some(mask) => mask.iter().map(|row| row.iter().filter(|flag| **flag == 1).count()).collect(),
            None => self.input_ids.iter().map(Vec::len).collect(),
        }
    }
}

fn check(name: &str, rows: &[Vec<i64>], vocabulary: i64, labels: bool) -> Result<(), String> {
    if rows.is_empty() {
        return Err(format!("{name}: no rows"));
    }
    for (number, row) in rows.iter().enumerate() {
        if row.is_empty() {
            return Err(format!("{name}: row {number} is empty"));
        }
        let valid = |id: i64| (0..vocabulary).contains(&id) || labels && id == IGNORED;
        if let Some(id) = row.iter().find(|id| !valid(**id)) {
            return Err(format!("{name}: row {number} has the id {id}, and the vocabulary has {vocabulary}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_list_is_input_ids() {
        let ids = Ids::parse("[[1, 2], [3, 4]]", 5).unwrap();
        assert_eq!(ids.input_ids, [[1, 2], [3, 4]]);
        assert_eq!(ids.lengths(), [2, 2]);
    }

    #[test]
    fn padding_stands_at_the_end() {
        let ids = Ids::parse(r#"{"input_ids": [[1, 2, 0]], "attention_mask": [[1, 1, 0]]}"#, 5).unwrap();
        assert_eq!(ids.lengths(), [2]);
        for mask in ["[[0, 1, 1]]", "[[1, 0, 1]]", "[[0, 0, 0]]", "[[1, 1, 2]]", "[[1, 1]]"] {
            let text = format!(r#"{{"input_ids": [[1, 2, 0]], "attention_mask": {mask}}}"#);
            assert!(Ids::parse(&text, 5).unwrap_err().contains("attention_mask"), "{mask}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("{", "not JSON"),
            ("[]", "input_ids: no rows"),
            ("[[1], []]", "input_ids: row 1 is empty"),
            ("[[5]]", "input_ids: row 0 has the id 5, and the vocabulary has 5"),
            ("[[-100]]", "the id -100"),
            ("[1, 2]", "lists of lists of token ids"),
            (r#"{"inputs": [[1]]}"#, "unknown field `inputs`"),
            (r#"{"input_ids": [[1]], "labels": [[9]]}"#, "labels: row 0 has the id 9"),
            (r#"{"input_ids": [[1]], "decoder_input_ids": [[1, 2]], "labels": [[1]]}"#, "labels: its rows must be"),
        ] {
            let problem = Ids::parse(text, 5).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
