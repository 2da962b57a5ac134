//! Activations of MLPs, by transformers' names.

use tch::Tensor;

use super::Fields;
use crate::Result;

/// What an MLP does between its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu`: by the error function (nanoGPT, BERT).
    Gelu,
    /// `gelu_new`: by the hyperbolic tangent (GPT-2, T5 1.1).
    GeluNew,
    /// `relu` (T5).
    Relu,
    /// `silu`.
    Silu,
}

impl Activation {
    const ALL: [Self; 4] = [Self::Gelu, Self::GeluNew, Self::Relu, Self::Silu];

    /// The name that is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }

    /// The activation of a name, also of an older one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "gelu_pytorch_tanh" => Some(Self::GeluNew),
            "swish" => Some(Self::Silu),
            _ => Self::ALL.into_iter().find(|activation| activation.name() == name),
        }
    }

    pub(crate) fn read(fields: &mut Fields, field: &str, usual: Self) -> Self {
        let Some(name) = fields.text(field) else { return usual };
        Self::named(&name).unwrap_or_else(|| {
            fields.problem(field, &format!("{name:?} is not supported, only gelu, gelu_new, relu and silu"));
            usual
        })
    }

    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluNew => x.f_gelu("tanh")?,
            Self::Relu => x.f_relu()?,
            Self::Silu => x.f_silu()?,
        })
    }
}
