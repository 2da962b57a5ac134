//! One trained tensor, and the tensors of the weights file that it is made of.

use tch::Tensor;

use crate::Result;

/// A tensor in memory. Projections that read the same input are one matrix here and several tensors on disk.
#[derive(Debug)]
pub struct Parameter {
    /// Unique within the model.
    pub name: String,
    /// float32, on the model's device.
    pub tensor: Tensor,
    pub(crate) pieces: Vec<Piece>,
    /// On disk as [in, out] (GPT-2's Conv1D), in memory as [out, in].
    pub(crate) transposed: bool,
}

/// A run of rows of a parameter that is a tensor of its own on disk, under Hugging Face's name.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) rows: i64,
}

impl Parameter {
    /// Whether weight decay applies: to matrices, not to norms and biases.
    pub fn is_matrix(&self) -> bool {
        self.tensor.dim() > 1
    }

    /// Whether it is a matrix inside the layers: neither an embedding nor a head.
    pub fn is_inner_matrix(&self) -> bool {
        const OUTER: [&str; 8] =
            ["embed", "wte.", "wpe.", "shared.", "lm_head.", "relative_attention_bias", "pooler.", "cls."];
        self.is_matrix() && !OUTER.iter().any(|part| self.name.contains(part))
    }

    /// Whether it is a table whose rows are looked up.
    pub fn is_embedding(&self) -> bool {
        const TABLES: [&str; 5] = ["embed", "wte.", "wpe.", "shared.", "relative_attention_bias"];
        TABLES.iter().any(|part| self.name.contains(part))
    }

    /// The number of the block that it belongs to, if it does to one. The blocks of an encoder are even and those of a decoder odd where a
    /// model has both; what all of them use belongs to none, though a checkpoint keeps it in the first.
    pub fn block(&self) -> Option<usize> {
        let number: usize = self.name.split('.').find_map(|part| part.parse().ok()).filter(|_| !self.is_embedding())?;
        Some(match self.name.split_once(".block.") {
            Some((stack, _)) => 2 * number + usize::from(stack == "decoder"),
            None => number,
        })
    }

    /// Runs of rows that are matrices of their own.
    pub fn rows(&self) -> Vec<i64> {
        self.pieces.iter().map(|piece| piece.rows).collect()
    }

    /// A tensor of the parameter's shape (itself, its gradient) as the tensors on disk, contiguous and on the CPU.
    pub fn cut(&self, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut row = 0;
        let mut tensors = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let rows = tensor.f_detach()?.f_narrow(0, row, piece.rows)?;
            row += piece.rows;
            let rows = if self.transposed { rows.f_transpose(0, 1)? } else { rows };
            tensors.push((piece.name.clone(), rows.f_to_device(tch::Device::Cpu)?.f_contiguous()?));
        }
        Ok(tensors)
    }

    /// The parts of the tensor that are tensors on disk, in their shapes there; writing into one changes the parameter.
    pub(crate) fn views(&self) -> Result<Vec<(String, Tensor)>> {
        let mut row = 0;
        let mut views = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let rows = self.tensor.f_detach()?.f_narrow(0, row, piece.rows)?;
            row += piece.rows;
            views.push((piece.name.clone(), if self.transposed { rows.f_transpose(0, 1)? } else { rows }));
        }
        Ok(views)
    }
}
