//! Keys and values of the tokens already read, so that each new token costs one position.

use tch::{Device, Kind, Tensor};

use crate::{Error, Model, Result};

/// Preallocated keys and values of sequences that grow together: [rows, kv heads, capacity, head size] a layer, float32.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Layer>,
    length: i64,
    capacity: i64,
}

#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    /// An empty cache for one sequence of `model`; `capacity` is cut to the model's context.
    pub fn new(model: &Model, capacity: i64) -> Result<Self> {
        Self::rows(model, capacity, 1)
    }

    /// An empty cache for so many sequences.
    pub fn rows(model: &Model, capacity: i64, rows: i64) -> Result<Self> {
        let config = model.config();
        let capacity = capacity.clamp(1, config.context_length());
        let shape = [rows, config.kv_heads(), capacity, config.head_size()];
        let place = || -> Result<Tensor> { Ok(Tensor::f_zeros(shape, (Kind::Float, model.device()))?) };
        let layers =
            (0..config.layers()).map(|_| Ok(Layer { keys: place()?, values: place()? })).collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, length: 0, capacity })
    }

    /// Tokens held.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// Tokens it can hold.
    pub fn capacity(&self) -> i64 {
        self.capacity
    }

    /// Forgets all tokens after the first `length`: a shared prefix stays, the rest is read anew.
    pub fn truncate(&mut self, length: i64) {
        self.length = self.length.min(length.max(0));
    }

    /// Bytes that a cache of this capacity takes.
    pub fn bytes(&self) -> i64 {
        self.layers.iter().map(|layer| 2 * 4 * layer.keys.numel() as i64).sum()
    }

    /// Lets sequence `i` go on from what sequence `rows[i]` has read.
    pub fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        for layer in &mut self.layers {
            layer.keys = layer.keys.f_index_select(0, rows)?;
            layer.values = layer.values.f_index_select(0, rows)?;
        }
        Ok(())
    }

    pub(crate) fn check(&self, rows: i64, added: i64) -> Result<()> {
        if let Some(layer) = self.layers.first()
            && layer.keys.size()[0] != rows
        {
            return Err(Error::Shape(vec![rows, added]));
        }
        let needed = self.length + added;
        if needed > self.capacity {
            return Err(Error::ContextExceeded { needed, capacity: self.capacity });
        }
        Ok(())
    }

    /// Stores one layer's keys and values of new tokens; returns those of all tokens, views into the cache.
    pub(crate) fn extend(&self, layer: usize, keys_bktd: &Tensor, values_bktd: &Tensor) -> Result<(Tensor, Tensor)> {
        let Layer { keys, values } = &self.layers[layer];
        let added = keys_bktd.size()[2];
        keys.f_narrow(2, self.length, added)?.f_copy_(keys_bktd)?;
        values.f_narrow(2, self.length, added)?.f_copy_(values_bktd)?;
        let all = self.length + added;
        Ok((keys.f_narrow(2, 0, all)?, values.f_narrow(2, 0, all)?))
    }

    /// Counts tokens that every layer has stored.
    pub(crate) fn advance(&mut self, added: i64) {
        self.length += added;
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.layers.first().map_or(Device::Cpu, |layer| layer.keys.device())
    }
}
