//! Blocks of which only the input is kept while training, and which run again for their gradients.

use tch::Tensor;
use tidemill_torch::{Error as TorchError, recompute::recompute};

use crate::{Attention, Documents, Error, Result};

/// How the sequences of a whole pass are laid, kept until its gradients are made.
pub(crate) enum Laid {
    Full,
    Documents(Documents),
}

impl Laid {
    /// Nothing where a cache is read: that is never learned from.
    pub(crate) fn of(attention: &Attention<'_>) -> Option<Self> {
        match attention {
            Attention::Full => Some(Self::Full),
            Attention::Documents(documents) => Some(Self::Documents(documents.share())),
            Attention::Cached(_) => None,
        }
    }

    /// What `block` makes of `x`; it holds all that it computes with, and runs again for gradients.
    pub(crate) fn through(
        &self,
        x: &Tensor,
        block: impl Fn(&Tensor, &mut Attention<'_>) -> Result<Tensor> + Send + 'static,
    ) -> Result<Tensor> {
        let laid = match self {
            Self::Full => Self::Full,
            Self::Documents(documents) => Self::Documents(documents.share()),
        };
        let run = move |x: &Tensor| {
            let mut attention = match &laid {
                Self::Full => Attention::Full,
                Self::Documents(documents) => Attention::Documents(documents),
            };
            block(x, &mut attention).map_err(|error| match error {
                Error::Torch(error) => error,
                other => TorchError::Shim(other.to_string()),
            })
        };
        Ok(recompute(x, run)?)
    }
}
