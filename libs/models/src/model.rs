//! A model of any family: its configuration, its parameters and its layers.
//!
//! Shapes: b batch, t time, c width, v vocabulary.

use std::collections::BTreeMap;

use tch::{Device, Tensor};
use tidemill_torch::ops;

use crate::{
    Attention, Config, Error, Parameter, Result,
    builder::{Builder, Source},
    gpt2::Gpt2,
    llama::Llama,
};

/// Target that a loss skips.
pub const IGNORED: i64 = -100;

/// A decoder: token ids in, logits out.
#[derive(Debug)]
pub struct Model {
    config: Config,
    device: Device,
    parameters: Vec<Parameter>,
    network: Network,
}

#[derive(Debug)]
enum Network {
    Llama(Llama),
    Gpt2(Gpt2),
}

impl Model {
    /// A new model with weights drawn by `seed`: the same on every machine.
    pub fn new(config: Config, seed: u64, device: Device) -> Result<Self> {
        let (model, problems) = Self::build(config, Source::Seed(seed), device)?;
        debug_assert!(problems.is_empty(), "drawing cannot fail: {problems:?}");
        Ok(model)
    }

    /// A model of the given tensors (Hugging Face's names and layout), or every problem with them.
    pub(crate) fn from_tensors(
        config: Config,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
    ) -> Result<std::result::Result<Self, Vec<String>>> {
        let (model, problems) = Self::build(config, Source::Tensors(tensors), device)?;
        Ok(if problems.is_empty() { Ok(model) } else { Err(problems) })
    }

    fn build(config: Config, source: Source, device: Device) -> Result<(Self, Vec<String>)> {
        let mut builder = Builder::new(source, device);
        let network = match &config {
            Config::Llama(config) => Network::Llama(Llama::new(&mut builder, config, device)?),
            Config::Gpt2(config) => Network::Gpt2(Gpt2::new(&mut builder, config)?),
        };
        let (parameters, problems) = builder.finish();
        Ok((Self { config, device, parameters, network }, problems))
    }

    /// What it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All trained tensors, in a fixed order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> i64 {
        self.parameters.iter().map(|parameter| parameter.tensor.numel() as i64).sum()
    }

    /// Makes backward passes reach the parameters. Off in a model that was just made or loaded.
    pub fn set_trainable(&self, trainable: bool) -> Result<()> {
        for parameter in &self.parameters {
            // The flag is shared by all handles of a tensor, the layers' too.
            let _ = parameter.tensor.f_set_requires_grad(trainable)?;
        }
        Ok(())
    }

    /// Logits of every position: ids [b,t] -> [b,t,v].
    pub fn forward(&self, ids_bt: &Tensor, attention: Attention<'_>) -> Result<Tensor> {
        let x_btc = self.hidden(ids_bt, attention)?;
        Ok(ops::linear(&x_btc, self.head(), None)?)
    }

    /// Logits after the last token only: ids [b,t] -> [b,v]. A prompt needs no others.
    pub fn next(&self, ids_bt: &Tensor, attention: Attention<'_>) -> Result<Tensor> {
        let x_btc = self.hidden(ids_bt, attention)?;
        let last_bc = x_btc.f_select(1, -1)?;
        Ok(ops::linear(&last_bc, self.head(), None)?)
    }

    /// Sum of the negative log-likelihoods (nats) of `targets_bt`, skipping [`IGNORED`] ones, never forming all logits at once.
    pub fn loss_sum(&self, ids_bt: &Tensor, targets_bt: &Tensor) -> Result<Tensor> {
        let x_btc = self.hidden(ids_bt, Attention::Full)?;
        let x_nc = x_btc.f_flatten(0, 1)?;
        Ok(ops::cross_entropy_sum(&x_nc, self.head(), &targets_bt.f_flatten(0, 1)?, IGNORED)?)
    }

    /// The last layer's output after its norm: ids [b,t] -> [b,t,c].
    fn hidden(&self, ids_bt: &Tensor, mut attention: Attention<'_>) -> Result<Tensor> {
        let (b, t) = ids_bt.size2().map_err(|_| Error::Shape(ids_bt.size()))?;
        if b == 0 || t == 0 {
            return Err(Error::Shape(ids_bt.size()));
        }
        let needed = attention.start() + t;
        if needed > self.config.context_length() {
            return Err(Error::ContextExceeded { needed, capacity: self.config.context_length() });
        }
        if let Attention::Cached(cache) = &attention {
            cache.check(t)?;
        }
        let x_btc = match &self.network {
            Network::Llama(network) => network.hidden(ids_bt, &mut attention)?,
            Network::Gpt2(network) => network.hidden(ids_bt, &mut attention)?,
        };
        if let Attention::Cached(cache) = attention {
            cache.advance(t);
        }
        Ok(x_btc)
    }

    fn head(&self) -> &Tensor {
        match &self.network {
            Network::Llama(network) => network.head(),
            Network::Gpt2(network) => network.head(),
        }
    }

    /// Its tensors under Hugging Face's names, as they are on disk.
    pub fn disk_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for parameter in &self.parameters {
            tensors.extend(parameter.on_disk()?);
        }
        Ok(tensors)
    }
}
