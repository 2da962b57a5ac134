//! Writes outputs and gradients of single layers in float8: what `make parity` compares with torchao.
//!
//!     fp8 IN.safetensors OUT.safetensors
//!
//! IN holds layers by number: `0.x` [n, i], `0.weight` [o, i], perhaps `0.bias` [o], and the gradient of the output, `0.gradient` [n, o].
//! OUT holds the output, `0.y`, and the gradients of the others by their names.

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tidemill_models::{Error, Result, read_tensors, write_tensors};
use tidemill_torch::{autocast, fp8};

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &paths[..] else {
        return Err(Error::Unsupported("usage: fp8 IN.safetensors OUT.safetensors".to_owned()));
    };
    tidemill_torch::process::set_threads(1);
    let given = read_tensors(Path::new(from))?;
    let mut made = Vec::new();
    for layer in 0.. {
        let leaf = |part: &str| given.get(&format!("{layer}.{part}")).map(|tensor| tensor.set_requires_grad(true));
        let (Some(x), Some(weight), bias) = (leaf("x"), leaf("weight"), leaf("bias")) else { break };
        let y = autocast::fp8(Device::Cpu, || fp8::linear(&x, &weight, bias.as_ref()))??;
        (&y * &given[&format!("{layer}.gradient")]).sum(Kind::Float).backward();
        made.push((format!("{layer}.y"), y.detach()));
        let mut gradient = |part: &str, leaf: &Tensor| made.push((format!("{layer}.{part}"), leaf.grad()));
        gradient("x", &x);
        gradient("weight", &weight);
        if let Some(bias) = &bias {
            gradient("bias", bias);
        }
    }
    write_tensors(Path::new(to), &made)
}
