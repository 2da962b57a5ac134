//! What an encoder-decoder makes of sources and texts: of one of each, or of many at once.
//!
//! Shapes: b batch, s time of the source, t time of the text, c width, v vocabulary.

use tch::Tensor;
use tidemill_torch::ops;

use super::{IGNORED, Model, Network, supervised};
use crate::{
    Attention, Documents, Error, Result,
    t5::{Encoded, T5},
};

/// Sources laid end to end, [1, s], and of each the text that the decoder reads, [1, t], in the same order.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    /// Ids of the sources.
    pub sources: &'a Tensor,
    /// Where they lie.
    pub source_documents: &'a Documents,
    /// Ids of the texts.
    pub texts: &'a Tensor,
    /// Where they lie.
    pub text_documents: &'a Documents,
}

impl Model {
    /// An encoder-decoder's states of a source: ids [b,s] -> [b,s,c].
    pub fn encode(&self, source_bs: &Tensor, mut attention: Attention<'_>) -> Result<Tensor> {
        attention.check(source_bs, self.config.context_length())?;
        self.pair()?.encode(source_bs, &mut attention, self.recomputing.as_ref())
    }

    /// An encoder-decoder's logits of a text after its source was encoded: ids [b,t] -> [b,t,v]. Both are laid out the same way: whole
    /// sequences, or as many documents.
    pub fn decode(
        &self,
        ids_bt: &Tensor,
        mut attention: Attention<'_>,
        states_bsc: &Tensor,
        source: Attention<'_>,
    ) -> Result<Tensor> {
        attention.check(ids_bt, self.config.context_length())?;
        let network = self.pair()?;
        let encoded = Encoded { states_bsc, attention: &source };
        let x_btc = network.decode(ids_bt, &mut attention, encoded, self.recomputing.as_ref())?;
        if let Attention::Cached(cache) = attention {
            cache.advance(ids_bt.size()[1]);
        }
        Ok(ops::linear(&x_btc, network.head(), None)?)
    }

    /// An encoder-decoder's logits: source [b,s], text [b,t] -> [b,t,v].
    pub fn forward_pair(&self, source_bs: &Tensor, ids_bt: &Tensor) -> Result<Tensor> {
        let states_bsc = self.encode(source_bs, Attention::Full)?;
        self.decode(ids_bt, Attention::Full, &states_bsc, Attention::Full)
    }

    fn pair(&self) -> Result<&T5> {
        match &self.network {
            Network::T5(network) => Ok(network),
            _ => Err(Error::Unsupported(format!("{} has no encoder and decoder", self.config.model_type()))),
        }
    }

    /// As [`Model::loss_sum`], of texts after their sources.
    pub fn pairs_loss_sum(&self, pairs: Pairs<'_>, targets_bt: &Tensor, z_loss: f64) -> Result<Tensor> {
        let x_nc = self.pairs_states(pairs)?.f_flatten(0, 1)?;
        let (x_nc, targets_n, _) = supervised(x_nc, targets_bt.f_flatten(0, 1)?)?;
        Ok(ops::cross_entropy_sum(&x_nc, self.pair()?.head(), &targets_n, IGNORED, z_loss)?)
    }

    /// As [`Model::token_losses`], of texts after their sources: [t].
    pub fn pairs_token_losses(&self, pairs: Pairs<'_>, targets_bt: &Tensor) -> Result<Tensor> {
        let x_nc = self.pairs_states(pairs)?.f_flatten(0, 1)?;
        Ok(ops::token_losses(&x_nc, self.pair()?.head(), &targets_bt.f_flatten(0, 1)?, IGNORED)?)
    }

    /// The decoder's states, ready for the head: [1, t, c].
    fn pairs_states(&self, pairs: Pairs<'_>) -> Result<Tensor> {
        let Pairs { sources, source_documents, texts, text_documents } = pairs;
        let (count, texts_count) = (source_documents.lengths().len(), text_documents.lengths().len());
        if count != texts_count {
            return Err(Error::Unsupported(format!("{count} sources have {texts_count} texts: each needs its own")));
        }
        let states_bsc = self.encode(sources, Attention::Documents(source_documents))?;
        let mut attention = Attention::Documents(text_documents);
        attention.check(texts, self.config.context_length())?;
        let source = Attention::Documents(source_documents);
        let encoded = Encoded { states_bsc: &states_bsc, attention: &source };
        self.pair()?.decode(texts, &mut attention, encoded, self.recomputing.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// Source, text and targets.
    type Ids<'a> = (&'a [i64], &'a [i64], &'a [i64]);

    #[test]
    fn pairs_laid_end_to_end_lose_what_each_loses_alone() {
        let model = Model::new(crate::tests::t5(true), 1, Device::Cpu).unwrap();
        let row = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0);
        let pairs: [Ids<'_>; 2] = [(&[5, 6, 7, 1], &[0, 9, 8], &[9, 8, 1]), (&[4, 1], &[0, 3], &[3, IGNORED])];
        let documents = |lengths: &[i64]| Documents::new(lengths.to_vec(), Device::Cpu).unwrap();
        let loss = |chosen: &[Ids<'_>]| {
            let joined = |part: fn(&Ids<'_>) -> Vec<i64>| row(&chosen.iter().flat_map(part).collect::<Vec<_>>());
            let lengths =
                |part: fn(&Ids<'_>) -> usize| documents(&chosen.iter().map(|p| part(p) as i64).collect::<Vec<_>>());
            let (sources, texts, targets) =
                (joined(|p| p.0.to_vec()), joined(|p| p.1.to_vec()), joined(|p| p.2.to_vec()));
            let (from, to) = (lengths(|p| p.0.len()), lengths(|p| p.1.len()));
            let pairs = Pairs { sources: &sources, source_documents: &from, texts: &texts, text_documents: &to };
            let each = model.pairs_token_losses(pairs, &targets).unwrap();
            let sum = model.pairs_loss_sum(pairs, &targets, 0.0).unwrap().double_value(&[]);
            assert!((each.sum(Kind::Double).double_value(&[]) - sum).abs() < 1e-4);
            sum
        };
        let alone: f64 = pairs.iter().map(|pair| loss(&[*pair])).sum();
        assert!((loss(&pairs) - alone).abs() < 1e-4);
        // The same by way of all logits.
        let logits = model.forward_pair(&row(pairs[0].0), &row(pairs[0].1)).unwrap();
        let wanted = Tensor::from_slice(pairs[0].2).view([1, -1, 1]);
        let expected =
            -logits.log_softmax(-1, Kind::Float).gather(2, &wanted, false).sum(Kind::Double).double_value(&[]);
        assert!((loss(&pairs[..1]) - expected).abs() < 1e-4);
        let (one, two) = (documents(&[4]), documents(&[1, 2]));
        let (sources, texts) = (row(pairs[0].0), row(pairs[0].1));
        let wrong = Pairs { sources: &sources, source_documents: &one, texts: &texts, text_documents: &two };
        assert!(model.pairs_loss_sum(wrong, &texts, 0.0).unwrap_err().to_string().contains("1 sources have 2 texts"));
    }
}
