//! Blocks of which only the inputs are kept while training, and which run again for their gradients.

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
    layout: Layout,
    again: Again,
}

/// How sequences lie that are read whole.
pub(crate) enum Layout {
    Full,
    Documents(Documents),
}

impl Layout {
    /// Nothing where a cache is read.
    pub(crate) fn of(attention: &Attention<'_>) -> Option<Self> {
        match attention {
            Attention::Full => Some(Self::Full),
            Attention::Documents(documents) => Some(Self::Documents(documents.share())),
            Attention::Cached(_) => None,
        }
    }

    pub(crate) fn attention(&self) -> Attention<'_> {
        match self {
            Self::Full => Attention::Full,
            Self::Documents(documents) => Attention::Documents(documents),
        }
    }
}

impl Laid {
    /// Nothing where blocks do not run again, or a cache is read: that is never learned from.
    pub(crate) fn of(attention: &Attention<'_>, again: Option<&Again>) -> Result<Option<Self>> {
        let Some(again) = again else { return Ok(None) };
        match Layout::of(attention) {
            Some(layout) => Ok(Some(Self { layout, again: again.clone() })),
            None if again.around.is_some() => {
                Err(Error::Unsupported("a model that is spread over ranks writes no text".to_owned()))
            }
            None => Ok(None),
        }
    }

    /// What the block of a number makes of `inputs`; `block` holds all else that it computes with, and runs again for gradients.
    pub(crate) fn through<const N: usize, B>(&self, number: usize, inputs: [&Tensor; N], block: B) -> Result<Tensor>
    where
        B: Fn(&[Tensor; N], &mut Attention<'_>) -> Result<Tensor> + Send + 'static,
    {
        let layout = match &self.layout {
            Layout::Full => Layout::Full,
            Layout::Documents(documents) => Layout::Documents(documents.share()),
        };
        Ok(recompute(&inputs, Run { number, layout, around: self.again.around.clone(), block })?)
    }
}

/// A block in one pass.
struct Run<const N: usize, B> {
    number: usize,
    layout: Layout,
    around: Option<Arc<dyn Around>>,
    block: B,
}

impl<const N: usize, B> Part for Run<N, B>
where
    B: Fn(&[Tensor; N], &mut Attention<'_>) -> Result<Tensor> + Send,
{
    fn run(&self, xs: &[Tensor]) -> TorchResult<Tensor> {
        if let Some(around) = &self.around {
            around.enter(self.number)?;
        }
        let xs = xs.try_into().expect("as many inputs come back as were given");
        (self.block)(xs, &mut self.layout.attention()).map_err(|error| match error {
            Error::Torch(error) => error,
            other => TorchError::Shim(other.to_string()),
        })
    }

    fn leave(&self) -> TorchResult<()> {
        self.around.as_ref().map_or(Ok(()), |around| around.leave(self.number))
    }
}
