//! Low-rank adapters (LoRA, rsLoRA, DoRA), with PEFT's meaning of every number and its names on disk.
//!
//! Shapes: n rows in, i inputs, o outputs, r rank.

mod directory;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Kind, Tensor};
use tidemill_torch::ops;

use crate::{
    Error, Result,
    builder::Initial,
    builder::draw,
    linear::Linear,
    parameter::{Parameter, Piece},
    weight::Weight,
};

pub use directory::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
pub(crate) use directory::{read_config, task_type, write};

/// What PEFT puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";

/// A kind of adapter, as PEFT's `LoraConfig` says it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// The product is scaled by alpha / r, or alpha / sqrt(r).
    pub alpha: f64,
    /// Share of the input that is dropped before the product while training.
    pub dropout: f64,
    /// Last parts of the names of adapted modules; empty means all linear layers but the head.
    pub target_modules: Vec<String>,
    /// rsLoRA: the square root in the scale.
    pub use_rslora: bool,
    /// DoRA: the size of each row is learned apart.
    pub use_dora: bool,
}

impl LoraConfig {
    fn scale(&self, r: i64) -> f64 {
        self.alpha / if self.use_rslora { (r as f64).sqrt() } else { r as f64 }
    }

    /// Whether a module is adapted, by its whole name.
    pub(crate) fn targets(&self, module: &str) -> bool {
        let named = |target: &String| module == target || module.ends_with(&format!(".{target}"));
        self.target_modules.is_empty() || self.target_modules.iter().any(named)
    }
}

/// What all adapters of a model do at the moment.
#[derive(Debug)]
pub(crate) struct Switches {
    /// Off makes the model its base.
    pub(crate) enabled: AtomicBool,
    /// Whether inputs are dropped.
    pub(crate) training: AtomicBool,
}

/// An adapter beside some rows of a linear layer.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// First row of the layer's weight that it adapts, and how many.
    pub(crate) start: i64,
    pub(crate) rows: i64,
    /// [r, i].
    a: Tensor,
    /// [o, r].
    b: Tensor,
    /// DoRA's sizes of rows, [o].
    magnitude: Option<Tensor>,
    scale: f64,
    dropout: f64,
    switches: Arc<Switches>,
}

impl Adapter {
    /// What comes on top of the layer's own output: [n, i] -> [n, o]. `base` gives that output without bias, `weight` makes it.
    pub(crate) fn added(&self, x: &Tensor, base: impl FnOnce() -> Result<Tensor>, weight: &Weight) -> Result<Tensor> {
        if !self.switches.enabled.load(Ordering::Relaxed) {
            let mut shape = x.size();
            shape[x.dim() - 1] = self.rows;
            return Ok(Tensor::f_zeros(&shape, (x.kind(), x.device()))?);
        }
        let dropping = self.dropout > 0.0 && self.switches.training.load(Ordering::Relaxed);
        let dropped = if dropping { x.f_dropout(self.dropout, true)? } else { x.shallow_clone() };
        let low = ops::linear(&dropped, &self.a, None)?;
        let product = ops::linear(&low, &self.b, None)?.f_mul_scalar(self.scale)?;
        let Some(magnitude) = &self.magnitude else { return Ok(product) };
        // As PEFT does: with dropout, the base's part comes from the dropped input too.
        let base = if dropping { weight.apply(&dropped, None)? } else { base()? };
        let factor = self.direction(magnitude, &weight.matrix()?)?;
        Ok(base.f_mul(&factor.f_sub_scalar(1.0)?)?.f_add(&product.f_mul(&factor)?)?)
    }

    /// The learned size over the present size of each row of the adapted weight, which counts as a constant (DoRA, section 4.3).
    fn direction(&self, magnitude: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let adapted = weight.f_detach()?.f_add(&self.product()?.f_detach()?)?;
        Ok(magnitude.f_div(&adapted.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), false)?)?)
    }

    /// scale B A, [o, i].
    fn product(&self) -> Result<Tensor> {
        Ok(self.b.f_matmul(&self.a)?.f_mul_scalar(self.scale)?)
    }

    /// The same adapter, by other handles of its tensors.
    pub(crate) fn share(&self) -> Self {
        Self {
            a: self.a.shallow_clone(),
            b: self.b.shallow_clone(),
            magnitude: self.magnitude.as_ref().map(Tensor::shallow_clone),
            switches: self.switches.clone(),
            ..*self
        }
    }

    /// Puts the adapter into its rows of the weight.
    fn merge(&self, weight: &Tensor) -> Result<()> {
        let mut rows = weight.f_detach()?.f_narrow(0, self.start, self.rows)?;
        let mut merged = rows.f_add(&self.product()?.f_detach()?)?;
        if let Some(magnitude) = &self.magnitude {
            merged = merged.f_mul(&self.direction(magnitude, &rows)?.f_detach()?.f_unsqueeze(1)?)?;
        }
        rows.f_copy_(&merged)?;
        Ok(())
    }
}

/// The adapters of a model.
#[derive(Debug)]
pub(crate) struct Lora {
    pub(crate) config: LoraConfig,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) switches: Arc<Switches>,
}

/// Where an adapter's tensors come from.
pub(crate) enum Values<'a> {
    /// A keyed draw, and B is zero: the model does what it did.
    Seed(u64),
    /// Tensors by their names on disk; those used are taken out.
    Tensors(&'a mut std::collections::BTreeMap<String, Tensor>),
}

/// The modules that an adapter's tensors belong to, by their whole names.
pub(crate) fn modules(tensors: &std::collections::BTreeMap<String, Tensor>) -> Vec<String> {
    let module = |name: &String| {
        let module = name.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight")?;
        Some(module.to_owned())
    };
    tensors.keys().filter_map(module).collect()
}

/// Puts adapters beside the layers that the configuration names.
///
/// # Errors
/// No layer has such a name; tensors are missing or misshapen, all listed.
pub(crate) fn attach(linears: Vec<&mut Linear>, config: &LoraConfig, mut values: Values<'_>) -> Result<Lora> {
    let switches = Arc::new(Switches { enabled: AtomicBool::new(true), training: AtomicBool::new(false) });
    let (mut parameters, mut problems, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for linear in linears {
        let inputs = linear.inputs();
        let mut start = 0;
        for Piece { name, rows } in linear.modules.clone().iter() {
            let (module, rows) = (name.trim_end_matches(".weight"), *rows);
            if config.targets(module) {
                let mut make = |what: &str, shape: &[i64], initial| -> Result<Tensor> {
                    let name = format!("{PREFIX}{module}.{what}");
                    let tensor = value(&mut values, &name, shape, initial, parameters.len() as u64, &mut problems)?;
                    let tensor = tensor.f_to_device(linear.weight.device())?;
                    let pieces = vec![Piece { name: name.clone(), rows: tensor.size()[0] }];
                    parameters.push(Parameter { name, tensor: tensor.shallow_clone(), pieces, transposed: false });
                    Ok(tensor)
                };
                // kaiming_uniform with a = sqrt(5), PEFT's choice, comes to this bound.
                let a = make("lora_A.weight", &[config.r, inputs], Initial::Uniform(1.0 / (inputs as f64).sqrt()))?;
                let b = make("lora_B.weight", &[rows, config.r], Initial::Zeros)?;
                let magnitude = match config.use_dora {
                    true => {
                        let weight = linear.weight.part(start, rows)?.matrix()?;
                        Some(make("lora_magnitude_vector", &[rows], Initial::Norms(&weight))?)
                    }
                    false => None,
                };
                let (scale, dropout, switches) = (config.scale(config.r), config.dropout, switches.clone());
                linear.adapters.push(Adapter { start, rows, a, b, magnitude, scale, dropout, switches });
            } else {
                known.push(module.to_owned());
            }
            start += rows;
        }
    }
    if parameters.is_empty() {
        known.sort();
        let last: std::collections::BTreeSet<&str> = known.iter().filter_map(|name| name.rsplit('.').next()).collect();
        problems.push(format!("target_modules: {:?} name no linear layer; there are {last:?}", config.target_modules));
    }
    if let Values::Tensors(rest) = values {
        problems.extend(rest.keys().map(|name| format!("tensor {name} adapts nothing in this model")));
    }
    if problems.is_empty() {
        Ok(Lora { config: config.clone(), parameters, switches })
    } else {
        Err(Error::Adapter(problems))
    }
}

fn value(
    values: &mut Values<'_>,
    name: &str,
    shape: &[i64],
    initial: Initial<'_>,
    index: u64,
    problems: &mut Vec<String>,
) -> Result<Tensor> {
    match values {
        Values::Seed(seed) => draw(*seed, index, shape, initial),
        Values::Tensors(tensors) => {
            match tensors.remove(name) {
                Some(tensor) if tensor.size() == shape => return Ok(tensor.f_to_kind(Kind::Float)?),
                Some(tensor) => {
                    problems.push(format!("tensor {name} has shape {:?}, expected {shape:?}", tensor.size()));
                }
                None => problems.push(format!("tensor {name} is missing")),
            }
            draw(0, 0, shape, Initial::Zeros)
        }
    }
}

/// Puts all adapters into their weights, which are whole, and takes them off.
pub(crate) fn merge(linears: Vec<&mut Linear>) -> Result<()> {
    for linear in linears {
        for adapter in linear.adapters.drain(..) {
            adapter.merge(&linear.weight.matrix()?)?;
        }
    }
    Ok(())
}
