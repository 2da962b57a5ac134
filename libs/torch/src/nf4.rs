//! Matrices in 4-bit NormalFloat with doubly quantised sizes of blocks (QLoRA, arXiv 2305.14314): an eighth of float32.

use std::ptr;

use tch::{Device, Tensor};

use crate::{
    Result,
    ffi::{self, RawTensor},
};

/// A matrix that is read and not trained. Equal to bitsandbytes' `nf4` with `compress_statistics`.
#[derive(Debug)]
pub struct Nf4 {
    /// Packed numbers, sizes of blocks of 64, sizes of 256 of those, and what was subtracted from them.
    tensors: [Tensor; 4],
    rows: i64,
    columns: i64,
}

impl Nf4 {
    /// The nearest that four bits come to a matrix [rows, columns], on its device.
    pub fn quantize(matrix: &Tensor) -> Result<Self> {
        let (rows, columns) = matrix.size2()?;
        let mut out = [ptr::null_mut(); 4];
        // SAFETY: the tensor outlives the call; `out` has the four places that are written, on success only.
        ffi::check(unsafe { ffi::tm_nf4_quantize(ffi::raw(matrix), out.as_mut_ptr()) })?;
        Ok(Self { tensors: out.map(ffi::adopt), rows, columns })
    }

    /// Rows and columns.
    pub fn size(&self) -> (i64, i64) {
        (self.rows, self.columns)
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.tensors[0].device()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum()
    }

    /// The same matrix, by another handle.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self { tensors: self.tensors.each_ref().map(Tensor::shallow_clone), rows: self.rows, columns: self.columns }
    }
}

/// Matrices below each other in float32, [all rows, columns].
pub fn dequantize(parts: &[Nf4]) -> Result<Tensor> {
    let (tensors, shapes) = pointers(parts);
    let mut out = ptr::null_mut();
    // SAFETY: four tensors and two sizes a part, which outlive the call; `out` has one place, written on success only.
    ffi::check(unsafe { ffi::tm_nf4_dequantize(tensors.as_ptr(), shapes.as_ptr(), parts.len() as i64, &raw mut out) })?;
    Ok(ffi::adopt(out))
}

/// `x [.., columns] * (matrices below each other)^T + bias`. The matrices as they are in float32 are kept by nothing: a backward pass makes
/// them anew, for the gradient of `x`; neither they nor `bias` get one.
pub fn linear(x: &Tensor, parts: &[Nf4], bias: Option<&Tensor>) -> Result<Tensor> {
    let (tensors, shapes) = pointers(parts);
    let (bias, mut out) = (bias.map_or(ptr::null_mut(), ffi::raw), ptr::null_mut());
    // SAFETY: four tensors and two sizes a part, which outlive the call as x and bias do; `out` has one place, written on success only.
    ffi::check(unsafe {
        let count = parts.len() as i64;
        ffi::tm_nf4_linear(ffi::raw(x), tensors.as_ptr(), shapes.as_ptr(), count, bias, &raw mut out)
    })?;
    Ok(ffi::adopt(out))
}

fn pointers(parts: &[Nf4]) -> (Vec<RawTensor>, Vec<i64>) {
    let tensors = parts.iter().flat_map(|part| part.tensors.each_ref().map(ffi::raw)).collect();
    (tensors, parts.iter().flat_map(|part| [part.rows, part.columns]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn draw(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_matrix_takes_little_more_than_four_bits_a_number_and_stays_near_what_it_was() {
        for (rows, columns) in [(256, 192), (7, 11), (1, 1), (64, 65)] {
            let matrix = draw(&[rows, columns]) * 0.1;
            let quantized = Nf4::quantize(&matrix).unwrap();
            assert_eq!(quantized.size(), (rows, columns));
            let near = dequantize(&[quantized.shallow_clone()]).unwrap();
            // Half the widest gap of the levels is 0.152 of the largest number of a block; sizes of blocks are off by little.
            let most = matrix.abs().max().double_value(&[]);
            let apart = (&near - &matrix).abs().max().double_value(&[]);
            assert!(near.size() == [rows, columns] && apart < 0.17 * most, "{apart} of {most}");
            // What four bits hold, four bits hold again.
            let again = dequantize(&[Nf4::quantize(&near).unwrap()]).unwrap();
            assert!((again - &near).abs().max().double_value(&[]) < 0.02 * most);
            if rows == 256 {
                assert!(quantized.bytes() as f64 * 8.0 < 4.2 * (rows * columns) as f64, "{}", quantized.bytes());
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let zeros = Tensor::zeros([10, 20], (Kind::Float, Device::Cpu));
        let near = dequantize(&[Nf4::quantize(&zeros).unwrap()]).unwrap();
        assert_eq!(near.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_product_and_its_gradient_are_those_of_the_dequantised_matrices() {
        let parts = [(24, 40), (7, 40)].map(|(rows, columns)| Nf4::quantize(&draw(&[rows, columns])).unwrap());
        let (whole, bias) = (dequantize(&parts).unwrap(), draw(&[31]));
        for kind in [Kind::Float, Kind::Double] {
            let run = |quantized: bool| {
                let x = (Tensor::arange(5 * 3 * 40, (kind, Device::Cpu)) * 0.37).sin().view([5, 3, 40]);
                let x = x.set_requires_grad(true);
                let y = match quantized {
                    true => linear(&x, &parts, Some(&bias.to_kind(kind))).unwrap(),
                    false => crate::ops::linear(&x, &whole.to_kind(kind), Some(&bias.to_kind(kind))).unwrap(),
                };
                (y.square() * 0.5).sum(kind).backward();
                (y.detach(), x.grad())
            };
            let ((y, dx), (exact, exact_dx)) = (run(true), run(false));
            assert!(y.equal(&exact) && dx.equal(&exact_dx), "{kind:?}");
        }
    }

    #[test]
    fn products_in_bfloat16_are_those_of_the_dequantised_matrix_in_bfloat16() {
        let parts = [Nf4::quantize(&draw(&[32, 64])).unwrap()];
        let whole = dequantize(&parts).unwrap();
        let x = draw(&[64, 64]).set_requires_grad(true);
        let low = |body: &dyn Fn() -> Tensor| crate::autocast::bfloat16(Device::Cpu, body).unwrap();
        let run = |body: &dyn Fn() -> Tensor| {
            let y = low(body);
            y.square().sum(Kind::Float).backward();
            let gradient = x.grad().copy();
            let _ = x.grad().zero_();
            (y.detach(), gradient)
        };
        let (y, dx) = run(&|| linear(&x, &parts, None).unwrap());
        let (exact, exact_dx) = run(&|| crate::ops::linear(&x, &whole, None).unwrap());
        assert!(y.equal(&exact) && dx.equal(&exact_dx));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(Nf4::quantize(&draw(&[4])).is_err());
        let parts = [Nf4::quantize(&draw(&[4, 8])).unwrap()];
        assert!(linear(&draw(&[2, 9]), &parts, None).unwrap_err().to_string().contains("width"));
        assert!(dequantize(&[]).is_err());
    }
}
