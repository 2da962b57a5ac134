//! The tokens that a tokenizer's post-processor puts around a text, such as `<s>` or `</s>`.

use super::{Kind, Tokenizer};
use crate::Error;

/// Ids before, and ids after.
type Around = (Vec<u32>, Vec<u32>);

impl Tokenizer {
    /// Ids that a model reads before and after a text.
    pub fn around(&self) -> Result<Around, Error> {
        let encode = |special: bool| {
            let encoding =
                self.inner.plain.encode_fast("a", special).map_err(|error| Error::Failed(error.to_string()))?;
            Ok::<_, Error>(encoding.get_ids().to_vec())
        };
        let (bare, whole) = (encode(false)?, encode(true)?);
        let place = whole.windows(bare.len().max(1)).position(|window| window == bare);
        Ok(match place {
            Some(place) => (whole[..place].to_vec(), whole[place + bare.len()..].to_vec()),
            None => (Vec::new(), Vec::new()),
        })
    }

    /// Ids before and after each document of a packed stream. An encoder's tokenizer puts a text between two tokens (`[CLS]`, `[SEP]`),
    /// and so are its documents, as transformers' run_mlm.py has them; others end with the end of text. None without such a token.
    pub fn around_document(&self) -> Result<Option<Around>, Error> {
        if matches!(self.inner.kind, Kind::Other) {
            let (before, after) = self.around()?;
            if !before.is_empty() && !after.is_empty() {
                return Ok(Some((before, after)));
            }
        }
        Ok(self.end_of_text().map(|end| (Vec::new(), vec![end])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_text_is_known() {
        let json = |processor: &str| {
            format!(
                r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,
                "post_processor":{processor},"decoder":null,
                "model":{{"type":"WordLevel","vocab":{{"a":0,"<s>":1,"</s>":2}},"unk_token":"a"}}}}"#
            )
        };
        let bert = json(r#"{"type":"BertProcessing","sep":["</s>",2],"cls":["<s>",1]}"#);
        let tokenizer = Tokenizer::from_bytes(bert.as_bytes()).unwrap();
        assert_eq!(tokenizer.around().unwrap(), (vec![1], vec![2]));
        assert_eq!(tokenizer.around_document().unwrap(), Some((vec![1], vec![2])));
        let tokenizer = Tokenizer::from_bytes(json("null").as_bytes()).unwrap();
        assert_eq!(tokenizer.around().unwrap(), (vec![], vec![]));
        assert_eq!(tokenizer.around_document().unwrap(), Some((vec![], vec![2])));
    }
}
