//! Makes a model's parameters in a fixed order, from a seed or from a weights file.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::{
    Result, initial,
    parameter::{Parameter, Piece},
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
pub(crate) enum Initial {
    Normal(f64),
    Ones,
    Zeros,
}

pub(crate) struct Builder {
    source: Source,
    device: Device,
    parameters: Vec<Parameter>,
    problems: Vec<String>,
}

impl Builder {
    pub(crate) fn new(source: Source, device: Device) -> Self {
        Self { source, device, parameters: Vec::new(), problems: Vec::new() }
    }

    /// A vector that is one tensor on disk.
    pub(crate) fn vector(&mut self, name: String, size: i64, initial: Initial) -> Result<Tensor> {
        let pieces = vec![Piece { name: name.clone(), rows: size }];
        self.make(name, pieces, None, false, initial)
    }

    /// A matrix [rows, columns] that is one tensor on disk.
    pub(crate) fn matrix(&mut self, name: String, rows: i64, columns: i64, initial: Initial) -> Result<Tensor> {
        let pieces = vec![Piece { name: name.clone(), rows }];
        self.make(name, pieces, Some(columns), false, initial)
    }

    /// A matrix whose runs of rows are tensors of their own on disk.
    pub(crate) fn stacked(
        &mut self,
        name: String,
        pieces: Vec<(String, i64)>,
        columns: i64,
        initial: Initial,
    ) -> Result<Tensor> {
        let pieces = pieces.into_iter().map(|(name, rows)| Piece { name, rows }).collect();
        self.make(name, pieces, Some(columns), false, initial)
    }

    /// A matrix [rows, columns] that is [columns, rows] on disk.
    pub(crate) fn transposed(&mut self, name: String, rows: i64, columns: i64, initial: Initial) -> Result<Tensor> {
        let pieces = vec![Piece { name: name.clone(), rows }];
        self.make(name, pieces, Some(columns), true, initial)
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
        initial: Initial,
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

fn draw(seed: u64, index: u64, shape: &[i64], initial: Initial) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    Ok(match initial {
        Initial::Ones => Tensor::f_ones(shape, options)?,
        Initial::Zeros => Tensor::f_zeros(shape, options)?,
        Initial::Normal(deviation) => {
            let count = shape.iter().product::<i64>() as usize;
            Tensor::f_from_slice(&initial::normal(seed, index, count, deviation))?.f_view(shape)?
        }
    })
}
