//! Writes the matrices of a safetensors file as NF4 gives them back: what `make parity` compares with bitsandbytes.
//!
//!     nf4 IN.safetensors OUT.safetensors

use std::path::Path;

use tidemill_models::{Error, Result, read_tensors, write_tensors};
use tidemill_torch::nf4::{Nf4, dequantize};

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &paths[..] else {
        return Err(Error::Unsupported("usage: nf4 IN.safetensors OUT.safetensors".to_owned()));
    };
    tidemill_torch::process::set_threads(1);
    let mut tensors = Vec::new();
    for (name, matrix) in read_tensors(Path::new(from))? {
        tensors.push((name, dequantize(&[Nf4::quantize(&matrix)?])?));
    }
    write_tensors(Path::new(to), &tensors)
}
