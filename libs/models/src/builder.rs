//! Makes a model's parameters in a fixed order, from a seed or from a weights file.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use tidemill_torch::nf4::Nf4;

use crate::{
    Result, initial,
    linear::Linear,
    parameter::{Parameter, Piece},
    weight::Weight,
};

/// Where values come from.
pub(crate) enum Source {
    /// Drawn, keyed by the seed.
    Seed(u64),
    /// Read; what is used is taken out, so that what remains is too much.
    Tensors(BTreeMap<String, Tensor>),
}

/// How a parameter starts when it is drawn.
#[derive(Clone, Copy)]
pub(crate) enum Initial<'a> {
    /// Of this deviation.
    Normal(f64),
    /// Between minus and plus this.
    Uniform(f64),
    Ones,
    Zeros,
    /// The sizes of these rows.
    Norms(&'a Tensor),
}

pub(crate) struct Builder {
    source: Source,
    device: Device,
    /// Whether matrices inside layers are kept in NF4, one after the other: all of them are never whole at a time.
    quantize: bool,
    /// Numbers that are.
    pub(crate) quantized: i64,
    parameters: Vec<Parameter>,
    problems: Vec<String>,
}

impl Builder {
    pub(crate) fn new(source: Source, device: Device, quantize: bool) -> Self {
        Self { source, device, quantize, quantized: 0, parameters: Vec::new(), problems: Vec::new() }
    }

    /// A vector that is one tensor on disk.
    pub(crate) fn vector(&mut self, name: String, size: i64, initial: Initial<'_>) -> Result<Tensor> {
        let pieces = vec![Piece { name: name.clone(), rows: size }];
        self.make(name, pieces, None, false, initial)
    }

    /// A matrix [rows, columns] that is one tensor on disk.
    pub(crate) fn matrix(&mut self, name: String, rows: i64, columns: i64, initial: Initial<'_>) -> Result<Tensor> {
        let pieces = vec![Piece { name: name.clone(), rows }];
        self.make(name, pieces, Some(columns), false, initial)
    }

    /// A linear layer, and the module of that name on disk.
    pub(crate) fn linear(
        &mut self,
        module: String,
        outputs: i64,
        inputs: i64,
        initial: Initial<'_>,
        bias: bool,
    ) -> Result<Linear> {
        self.stacked(module.clone(), &[(module, outputs)], inputs, initial, bias)
    }

    /// A linear layer whose runs of rows are modules of their own on disk, as (module, rows).
    pub(crate) fn stacked(
        &mut self,
        name: String,
        modules: &[(String, i64)],
        inputs: i64,
        initial: Initial<'_>,
        bias: bool,
    ) -> Result<Linear> {
        self.any_linear(name, modules, inputs, initial, bias, false)
    }

    /// A linear layer whose weight is [inputs, outputs] on disk.
    pub(crate) fn transposed(
        &mut self,
        module: String,
        outputs: i64,
        inputs: i64,
        initial: Initial<'_>,
        bias: bool,
    ) -> Result<Linear> {
        self.any_linear(module.clone(), &[(module, outputs)], inputs, initial, bias, true)
    }

    fn any_linear(
        &mut self,
        name: String,
        modules: &[(String, i64)],
        inputs: i64,
        initial: Initial<'_>,
        bias: bool,
        transposed: bool,
    ) -> Result<Linear> {
        let pieces = |what: &str| -> Vec<Piece> {
            modules.iter().map(|(module, rows)| Piece { name: format!("{module}.{what}"), rows: *rows }).collect()
        };
        let modules = pieces("weight");
        let weight = self.make(format!("{name}.weight"), modules.clone(), Some(inputs), transposed, initial)?;
        let weight = self.kept(weight, &modules)?;
        let bias = match bias {
            true => Some(self.make(format!("{name}.bias"), pieces("bias"), None, false, Initial::Zeros)?),
            false => None,
        };
        Ok(Linear { weight, bias, modules: modules.into(), transposed, adapters: Vec::new() })
    }

    /// The matrix that was made last as the layer keeps it.
    fn kept(&mut self, weight: Tensor, modules: &[Piece]) -> Result<Weight> {
        let inner = self.parameters.last().is_some_and(Parameter::is_inner_matrix);
        if !(self.quantize && inner && self.problems.is_empty()) {
            return Ok(Weight::Whole(weight));
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(modules.len());
        for module in modules {
            parts.push(Nf4::quantize(&weight.f_narrow(0, start, module.rows)?)?);
            start += module.rows;
        }
        self.quantized += weight.numel() as i64;
        self.parameters.pop();
        Ok(Weight::Quantized(parts))
    }

    /// The parameters, or every problem found: missing, misshapen and unknown tensors.
    pub(crate) fn finish(mut self) -> (Vec<Parameter>, Vec<String>) {
        if let Source::Tensors(rest) = &self.source {
            self.problems.extend(rest.keys().map(|name| format!("tensor {name} is not part of this architecture")));
        }
        (self.parameters, self.problems)
    }

    fn make(
        &mut self,
        name: String,
        pieces: Vec<Piece>,
        columns: Option<i64>,
        transposed: bool,
        initial: Initial<'_>,
    ) -> Result<Tensor> {
        let rows = pieces.iter().map(|piece| piece.rows).sum::<i64>();
        let shape: Vec<i64> = [Some(rows), columns].into_iter().flatten().collect();
        let index = self.parameters.len() as u64;
        let tensor = match &mut self.source {
            Source::Seed(seed) => draw(*seed, index, &shape, initial)?,
            Source::Tensors(tensors) => {
                let mut parts = Vec::new();
                for piece in &pieces {
                    let mut expected = vec![piece.rows];
                    expected.extend(columns);
                    if transposed {
                        expected.reverse();
                    }
                    match tensors.remove(&piece.name) {
                        None => self.problems.push(format!("tensor {} is missing", piece.name)),
                        Some(tensor) if tensor.size() != expected => self.problems.push(format!(
                            "tensor {} has shape {:?}, the configuration asks for {expected:?}",
                            piece.name,
                            tensor.size()
                        )),
                        Some(tensor) if !tensor.is_floating_point() => {
                            let problem = format!("tensor {} holds {:?}: not a weight", piece.name, tensor.kind());
                            self.problems.push(problem);
                        }
                        Some(tensor) => parts.push(if transposed { tensor.f_transpose(0, 1)? } else { tensor }),
                    }
                }
                match parts.len() == pieces.len() {
                    true => Tensor::f_cat(&parts, 0)?.f_to_kind(Kind::Float)?.f_contiguous()?,
                    // Never used: `finish` reports the problem.
                    false => Tensor::f_zeros([1], (Kind::Float, Device::Cpu))?,
                }
            }
        };
        let tensor = tensor.f_to_device(self.device)?;
        self.parameters.push(Parameter { name, tensor: tensor.shallow_clone(), pieces, transposed });
        Ok(tensor)
    }
}

/// Values that a seed and a number within the model determine, on every machine alike.
pub(crate) fn draw(seed: u64, index: u64, shape: &[i64], initial: Initial<'_>) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let count = shape.iter().product::<i64>() as usize;
    Ok(match initial {
        Initial::Ones => Tensor::f_ones(shape, options)?,
        Initial::Zeros => Tensor::f_zeros(shape, options)?,
        Initial::Normal(deviation) => {
            Tensor::f_from_slice(&initial::normal(seed, index, count, deviation))?.f_view(shape)?
        }
        Initial::Uniform(bound) => Tensor::f_from_slice(&initial::uniform(seed, index, count, bound))?.f_view(shape)?,
        Initial::Norms(rows) => rows.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), false)?,
    })
}
