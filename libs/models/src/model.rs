//! A model of any family: its configuration, its parameters and its layers.
//!
//! Shapes: b batch, t time, c width, v vocabulary.

mod memory;
mod pair;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tch::{Device, Kind, Tensor};
use tidemill_torch::ops;

use crate::{
    Attention, Config, Error, LoraConfig, Parameter, Result,
    bert::Bert,
    builder::{Builder, Source},
    gpt2::Gpt2,
    linear::Linear,
    llama::Llama,
    lora::{self, Lora, Values},
    recompute::Again,
    t5::T5,
};

pub use pair::Pairs;

/// Target that a loss skips.
pub const IGNORED: i64 = -100;

/// A model of one of the families.
#[derive(Debug)]
pub struct Model {
    config: Config,
    device: Device,
    parameters: Vec<Parameter>,
    network: Network,
    adapter: Option<Lora>,
    /// Numbers of weights that are kept in NF4, and are no parameters.
    quantized: i64,
    /// How blocks run again for their gradients, where they do.
    recomputing: Option<Again>,
}

#[derive(Debug)]
enum Network {
    Llama(Llama),
    Gpt2(Gpt2),
    Bert(Bert),
    T5(T5),
}

impl Model {
    /// A new model with weights drawn by `seed`: the same on every machine.
    pub fn new(config: Config, seed: u64, device: Device) -> Result<Self> {
        let (model, problems) = Self::build(config, Source::Seed(seed), device, false)?;
        debug_assert!(problems.is_empty(), "drawing cannot fail: {problems:?}");
        Ok(model)
    }

    /// A model of the given tensors (Hugging Face's names and layout), or every problem with them; `quantize` keeps the matrices inside
    /// its layers in NF4.
    pub(crate) fn from_tensors(
        config: Config,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        quantize: bool,
    ) -> Result<std::result::Result<Self, Vec<String>>> {
        let (model, problems) = Self::build(config, Source::Tensors(tensors), device, quantize)?;
        Ok(if problems.is_empty() { Ok(model) } else { Err(problems) })
    }

    fn build(config: Config, source: Source, device: Device, quantize: bool) -> Result<(Self, Vec<String>)> {
        let mut builder = Builder::new(source, device, quantize);
        let network = match &config {
            Config::Llama(config) => Network::Llama(Llama::new(&mut builder, config, device)?),
            Config::Gpt2(config) => Network::Gpt2(Gpt2::new(&mut builder, config)?),
            Config::Bert(config) => Network::Bert(Bert::new(&mut builder, config)?),
            Config::T5(config) => Network::T5(T5::new(&mut builder, config, device)?),
        };
        let quantized = builder.quantized;
        let (parameters, problems) = builder.finish();
        Ok((Self { config, device, parameters, network, adapter: None, quantized, recomputing: None }, problems))
    }

    /// What it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensors that are trained, in a fixed order: an adapter's where there is one, else all.
    pub fn parameters(&self) -> &[Parameter] {
        self.adapter.as_ref().map_or(&self.parameters, |adapter| &adapter.parameters)
    }

    /// All tensors of the model itself, in a fixed order, but those that are kept in NF4.
    pub fn base_parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many numbers the model has, without an adapter's.
    pub fn parameter_count(&self) -> i64 {
        count(&self.parameters) + self.quantized
    }

    /// How many numbers are trained.
    pub fn trained_count(&self) -> i64 {
        count(self.parameters())
    }

    /// Makes backward passes reach the trained parameters, and turns dropout on. Off in a model that was just made or loaded.
    pub fn set_trainable(&self, trainable: bool) -> Result<()> {
        for parameter in self.parameters() {
            // The flag is shared by all handles of a tensor, the layers' too.
            let _ = parameter.tensor.f_set_requires_grad(trainable)?;
        }
        self.set_dropout(trainable);
        Ok(())
    }

    /// Turns dropout on or off; it has an effect in adapters alone.
    pub fn set_dropout(&self, on: bool) {
        if let Some(adapter) = &self.adapter {
            adapter.switches.training.store(on, Ordering::Relaxed);
        }
    }

    /// Puts a new adapter beside the layers: from now on it is what is trained. B is zero, so outputs stay what they were.
    ///
    /// # Errors
    /// There is one already, or no layer is named.
    pub fn attach_adapter(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        self.attach(config, Values::Seed(seed))
    }

    pub(crate) fn attach(&mut self, config: &LoraConfig, values: Values<'_>) -> Result<()> {
        if self.adapter.is_some() {
            return Err(Error::Adapter(vec!["the model has an adapter already; merge it first".to_owned()]));
        }
        self.adapter = Some(lora::attach(self.linears(), config, values)?);
        Ok(())
    }

    /// The adapter's configuration, where there is one.
    pub fn adapter(&self) -> Option<&LoraConfig> {
        self.adapter.as_ref().map(|adapter| &adapter.config)
    }

    /// Runs `body` with the model as it is without its adapter.
    pub fn without_adapter<T>(&self, body: impl FnOnce() -> T) -> T {
        let Some(adapter) = &self.adapter else { return body() };
        adapter.switches.enabled.store(false, Ordering::Relaxed);
        let result = body();
        adapter.switches.enabled.store(true, Ordering::Relaxed);
        result
    }

    /// Makes the adapter part of the weights.
    ///
    /// # Errors
    /// The weights are quantised: what is learned beside them is merged into whole ones ([`Model::adopt_adapter`]).
    pub fn merge_adapter(&mut self) -> Result<()> {
        if self.quantized > 0 && self.adapter.is_some() {
            return Err(Error::Adapter(vec!["the base is quantised: merge into its whole weights".to_owned()]));
        }
        if self.adapter.take().is_some() {
            lora::merge(self.linears())?;
        }
        Ok(())
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        match &mut self.network {
            Network::Llama(network) => network.linears(),
            Network::Gpt2(network) => network.linears(),
            Network::Bert(network) => network.linears(),
            Network::T5(network) => network.linears(),
        }
    }

    /// Names of the modules of linear layers, as checkpoints and adapters name them, and whether their weights are [in, out] there.
    pub fn modules(&mut self) -> Vec<(String, bool)> {
        let of_layer = |linear: &mut Linear| {
            let transposed = linear.transposed;
            let names = linear.modules.iter().map(|piece| piece.name.trim_end_matches(".weight").to_owned());
            names.map(|name| (name, transposed)).collect::<Vec<_>>()
        };
        self.linears().into_iter().flat_map(of_layer).collect()
    }

    /// Logits of every position: ids [b,t] -> [b,t,v].
    ///
    /// # Errors
    /// An encoder without a head, or an encoder-decoder ([`Model::forward_pair`] is for those).
    pub fn forward(&self, ids_bt: &Tensor, attention: Attention<'_>) -> Result<Tensor> {
        self.logits(&self.states(ids_bt, attention)?)
    }

    /// Logits after the last token only: ids [b,t] -> [b,v]. A prompt needs no others.
    pub fn next(&self, ids_bt: &Tensor, attention: Attention<'_>) -> Result<Tensor> {
        self.logits(&self.states(ids_bt, attention)?.f_select(1, -1)?)
    }

    /// Sum of the negative log-likelihoods (nats) of `targets_bt`, skipping [`IGNORED`] ones, never forming all logits at once. `z_loss`
    /// weighs the squares of the log-sum-exps.
    pub fn loss_sum(
        &self,
        ids_bt: &Tensor,
        targets_bt: &Tensor,
        attention: Attention<'_>,
        z_loss: f64,
    ) -> Result<Tensor> {
        let x_nc = self.states(ids_bt, attention)?.f_flatten(0, 1)?;
        let (x_nc, targets_n, _) = supervised(x_nc, targets_bt.f_flatten(0, 1)?)?;
        let (x_nc, head_vc) = self.before_head(&x_nc)?;
        Ok(ops::cross_entropy_sum(&x_nc, &head_vc, &targets_n, IGNORED, z_loss)?)
    }

    /// Negative log-likelihood (nats) of each of `targets_bt`, 0 for [`IGNORED`] ones: [b*t], float32.
    pub fn token_losses(&self, ids_bt: &Tensor, targets_bt: &Tensor, attention: Attention<'_>) -> Result<Tensor> {
        self.token_losses_at(ids_bt, targets_bt, attention, 1.0)
    }

    /// As [`Model::token_losses`], of the distribution that a temperature makes of the model's: logits are divided by it.
    pub fn token_losses_at(
        &self,
        ids_bt: &Tensor,
        targets_bt: &Tensor,
        attention: Attention<'_>,
        temperature: f64,
    ) -> Result<Tensor> {
        let x_nc = self.states(ids_bt, attention)?.f_flatten(0, 1)?;
        let count = x_nc.size()[0];
        let (x_nc, targets_n, places) = supervised(x_nc, targets_bt.f_flatten(0, 1)?)?;
        let (mut x_nc, head_vc) = self.before_head(&x_nc)?;
        if temperature != 1.0 {
            x_nc = x_nc.f_div_scalar(temperature)?;
        }
        let losses = ops::token_losses(&x_nc, &head_vc, &targets_n, IGNORED)?;
        Ok(match places {
            Some(places) => {
                losses.f_new_zeros([count], (losses.kind(), losses.device()))?.f_index_add(0, &places, &losses)?
            }
            None => losses,
        })
    }

    /// The last layer's output after its norm: ids [b,t] -> [b,t,c].
    pub fn states(&self, ids_bt: &Tensor, mut attention: Attention<'_>) -> Result<Tensor> {
        attention.check(ids_bt, self.config.context_length())?;
        let again = self.recomputing.as_ref();
        let x_btc = match &self.network {
            Network::Llama(network) => network.hidden(ids_bt, &mut attention, again)?,
            Network::Gpt2(network) => network.hidden(ids_bt, &mut attention, again)?,
            Network::Bert(network) => network.hidden(ids_bt, &mut attention, again)?,
            Network::T5(_) => {
                return Err(Error::Unsupported("t5 reads a source and writes a text: give both".to_owned()));
            }
        };
        if let Attention::Cached(cache) = attention {
            cache.advance(ids_bt.size()[1]);
        }
        Ok(x_btc)
    }

    /// Embeddings of texts: the mean of an encoder's states, of length 1: ids [b,t] -> [b,c].
    pub fn embed(&self, ids_bt: &Tensor) -> Result<Tensor> {
        let mean_bc = self.states(ids_bt, Attention::Full)?.f_mean_dim([1i64].as_slice(), false, Kind::Float)?;
        let length_b = mean_bc.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), true)?.f_clamp_min(1e-12)?;
        Ok(mean_bc.f_div(&length_b)?)
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        match &self.network {
            Network::Bert(network) => {
                let (x, bias) = network.transformed(x)?.ok_or_else(no_head)?;
                Ok(ops::linear(&x, network.embedding(), Some(bias))?)
            }
            _ => Ok(ops::linear(x, self.head()?, None)?),
        }
    }

    /// Rows and a matrix whose products are the logits.
    fn before_head(&self, x_nc: &Tensor) -> Result<(Tensor, Tensor)> {
        match &self.network {
            Network::Bert(network) => {
                let (x_nc, bias_v) = network.transformed(x_nc)?.ok_or_else(no_head)?;
                // The bias becomes a column, and the rows get a one for it.
                let ones = x_nc.f_new_ones([x_nc.size()[0], 1], (x_nc.kind(), x_nc.device()))?;
                let head = Tensor::f_cat(&[network.embedding(), &bias_v.f_unsqueeze(1)?], 1)?;
                Ok((Tensor::f_cat(&[x_nc, ones], 1)?, head))
            }
            _ => Ok((x_nc.shallow_clone(), self.head()?.shallow_clone())),
        }
    }

    pub(crate) fn head(&self) -> Result<&Tensor> {
        match &self.network {
            Network::Llama(network) => Ok(network.head()),
            Network::Gpt2(network) => Ok(network.head()),
            Network::T5(network) => Ok(network.head()),
            Network::Bert(_) => Err(no_head()),
        }
    }

    /// Its tensors under Hugging Face's names, as they are on disk: those that are trained.
    pub fn disk_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        on_disk(self.parameters())
    }

    /// The tensors of the model itself under Hugging Face's names, whether or not it has an adapter.
    ///
    /// # Errors
    /// They are quantised.
    pub fn base_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        if self.quantized > 0 {
            let text = "a quantised model is not written: its weights are where they were read from";
            return Err(Error::Unsupported(text.to_owned()));
        }
        on_disk(&self.parameters)
    }

    /// Gradients of the trained tensors under the names and in the shapes that the tensors have on disk; those that have one.
    pub fn disk_gradients(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for parameter in self.parameters() {
            let gradient = parameter.tensor.f_grad()?;
            if gradient.defined() {
                tensors.extend(parameter.cut(&gradient)?);
            }
        }
        Ok(tensors)
    }
}

/// Leaves out rows that no target asks for, which would be the dearest of all: their logits. Gives the places of those that stay, if not
/// all do.
fn supervised(x_nc: Tensor, targets_n: Tensor) -> Result<(Tensor, Tensor, Option<Tensor>)> {
    let places = targets_n.f_ne(IGNORED)?.f_nonzero()?.f_flatten(0, 1)?;
    let kept = places.size()[0];
    if kept == targets_n.size()[0] || kept == 0 {
        return Ok((x_nc, targets_n, None));
    }
    Ok((x_nc.f_index_select(0, &places)?, targets_n.f_index_select(0, &places)?, Some(places)))
}

fn count(parameters: &[Parameter]) -> i64 {
    parameters.iter().map(|parameter| parameter.tensor.numel() as i64).sum()
}

fn on_disk(parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    for parameter in parameters {
        tensors.extend(parameter.cut(&parameter.tensor)?);
    }
    Ok(tensors)
}

fn no_head() -> Error {
    Error::Unsupported("this encoder has no masked-LM head: it gives states and embeddings only".to_owned())
}
