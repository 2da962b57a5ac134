//! Blocks of which only the input is kept while training, and which run again for their gradients.

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;
use tidemill_torch::{
    Error as TorchError, Result as TorchResult,
    recompute::{Part, recompute},
};

use crate::{Attention, Documents, Error, Result};

/// What happens around the runs of a model's blocks: weights that are spread over ranks come together before, and go after.
pub trait Around: Debug + Send + Sync {
    /// Before a run of a block.
    fn enter(&self, block: usize) -> TorchResult<()>;

    /// After it, and where there is one after the backward pass through it: then the parameters have their gradients.
    fn leave(&self, block: usize) -> TorchResult<()>;
}

/// That a model's blocks run again, and what happens around that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Again {
    pub(crate) around: Option<Arc<dyn Around>>,
}

/// How the sequences of a whole pass are laid, kept until its gradients are made.
pub(crate) struct Laid {
    how: How,
    again: Again,
}

enum How {
    Full,
    Documents(Documents),
}

impl Laid {
    /// Nothing where blocks do not run again, or a cache is read: that is never learned from.
    pub(crate) fn of(attention: &Attention<'_>, again: Option<&Again>) -> Result<Option<Self>> {
        let Some(again) = again else { return Ok(None) };
        let how = match attention {
            Attention::Full => How::Full,
            Attention::Documents(documents) => How::Documents(documents.share()),
            Attention::Cached(_) if again.around.is_some() => {
                return Err(Error::Unsupported("a model that is spread over ranks writes no text".to_owned()));
            }
            Attention::Cached(_) => return Ok(None),
        };
        Ok(Some(Self { how, again: again.clone() }))
    }

    /// What the block of a number makes of `x`; `block` holds all that it computes with, and runs again for gradients.
    pub(crate) fn through<B>(&self, number: usize, x: &Tensor, block: B) -> Result<Tensor>
    where
        B: Fn(&Tensor, &mut Attention<'_>) -> Result<Tensor> + Send + 'static,
    {
        let how = match &self.how {
            How::Full => How::Full,
            How::Documents(documents) => How::Documents(documents.share()),
        };
        Ok(recompute(x, Run { number, how, around: self.again.around.clone(), block })?)
    }
}

/// A block in one pass.
struct Run<B> {
    number: usize,
    how: How,
    around: Option<Arc<dyn Around>>,
    block: B,
}

impl<B: Fn(&Tensor, &mut Attention<'_>) -> Result<Tensor> + Send> Part for Run<B> {
    fn run(&self, x: &Tensor) -> TorchResult<Tensor> {
        if let Some(around) = &self.around {
            around.enter(self.number)?;
        }
        let mut attention = match &self.how {
            How::Full => Attention::Full,
            How::Documents(documents) => Attention::Documents(documents),
        };
        (self.block)(x, &mut attention).map_err(|error| match error {
            Error::Torch(error) => error,
            other => TorchError::Shim(other.to_string()),
        })
    }

    fn leave(&self) -> TorchResult<()> {
        self.around.as_ref().map_or(Ok(()), |around| around.leave(self.number))
    }
}
