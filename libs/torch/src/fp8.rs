//! Linear layers inside a network, whose products may run in float8 (arXiv 2209.05433): e4m3 for activations and weights, e5m2 for
//! gradients, one scale a tensor, found anew at each use. Equal to torchao's recipe "tensorwise".

use std::ptr;

use tch::{Device, Kind, Tensor};

use crate::{Result, autocast, ffi, ops};

/// Sizes that products in float8 have are multiples of it: a GPU's tensor cores take no others.
const TILE: i64 = 16;

/// Whether a weight of that many rows and columns can be multiplied in float8.
pub fn fits(rows: i64, columns: i64) -> bool {
    rows % TILE == 0 && columns % TILE == 0
}

/// As [`ops::linear`], `x [.., in] * weight [out, in]^T + bias`; inside [`autocast::fp8`] in float8 where the weight [`fits`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (rows, columns) = weight.size2()?;
    if !fits(rows, columns) {
        return ops::linear(x, weight, bias);
    }
    let (bias, mut out) = (bias.map_or(ptr::null_mut(), ffi::raw), ptr::null_mut());
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    ffi::check(unsafe { ffi::tm_fp8_linear(ffi::raw(x), ffi::raw(weight), bias, &raw mut out) })?;
    Ok(ffi::adopt(out))
}

/// Tries a product in float8 on a device.
///
/// # Errors
/// It has none, in libtorch's words: a GPU needs compute capability 8.9.
pub fn check(device: Device) -> Result<()> {
    let ones = Tensor::f_ones([TILE, TILE], (Kind::Float, device))?;
    autocast::fp8(device, || linear(&ones, &ones, None))?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// What float8 makes of a tensor: the number nearest to each, when the largest is the largest of the format.
    fn near(x: &Tensor, format: Kind, most: f64) -> Tensor {
        let scale = most / x.abs().max().double_value(&[]);
        (x.to_kind(Kind::Double) * scale).to_kind(Kind::Float).to_kind(format).to_kind(Kind::Double) / scale
    }

    /// The largest difference, as a share of the largest number.
    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a.to_kind(Kind::Double) - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
    }

    #[test]
    fn a_product_and_its_gradients_are_those_of_the_nearest_numbers_in_float8() {
        tch::manual_seed(4);
        // Rows are tokens: any number of them. Sizes of numbers are far from those of the formats.
        for (rows, inputs, outputs, size) in [(32, 48, 96, 1.0), (7, 64, 16, 1e-6), (33, 16, 32, 3e4)] {
            let x = (Tensor::randn([rows, inputs], CPU) * size).to_kind(Kind::BFloat16).to_kind(Kind::Float);
            let weight = Tensor::randn([outputs, inputs], CPU) * 0.05;
            let gradient = (Tensor::randn([rows, outputs], CPU) / size).to_kind(Kind::BFloat16).to_kind(Kind::Float);
            let bias = Tensor::randn([outputs], CPU) * size;
            let leaves = [&x, &weight, &bias].map(|leaf| leaf.copy().set_requires_grad(true));
            let y = autocast::fp8(Device::Cpu, || linear(&leaves[0], &leaves[1], Some(&leaves[2])).unwrap()).unwrap();
            (&y * &gradient).sum(Kind::Float).backward();
            let (x, weight) = (near(&x, Kind::Float8e4m3fn, 448.0), near(&weight, Kind::Float8e4m3fn, 448.0));
            let near_gradient = near(&gradient, Kind::Float8e5m2, 57344.0);
            let exact = x.matmul(&weight.tr()) + &bias;
            // Outputs are bfloat16, which has 8 bits: half of the last of them for a product, and as much for the bias and its sum.
            let half = 2f64.powi(-8);
            assert!(y.kind() == Kind::Float && apart(&y, &exact) < 3.1 * half, "{}", apart(&y, &exact));
            let found = leaves.each_ref().map(Tensor::grad);
            let exact = [near_gradient.matmul(&weight), near_gradient.tr().matmul(&x)];
            for (found, exact) in found.iter().zip(exact) {
                assert!(apart(found, &exact) < 1.1 * half, "{rows} rows: {}", apart(found, &exact));
            }
            assert!(
                apart(&found[2], &gradient.to_kind(Kind::Double).sum_dim_intlist([0i64].as_slice(), false, None))
                    < 1.1 * half
            );
        }
    }

    #[test]
    fn what_is_not_a_number_stays_visible() {
        for bad in [f64::NAN, f64::INFINITY] {
            let x = Tensor::ones([16, 16], CPU);
            let _ = x.get(3).fill_(bad);
            let y = autocast::fp8(Device::Cpu, || linear(&x, &Tensor::ones([16, 16], CPU), None).unwrap()).unwrap();
            assert!(!y.sum(Kind::Float).double_value(&[]).is_finite(), "{bad}");
        }
    }

    #[test]
    fn weights_of_other_sizes_and_layers_outside_stay_as_they_were() {
        let draw = |shape: &[i64]| Tensor::randn(shape, CPU);
        for (inputs, outputs) in [(24, 32), (32, 24)] {
            let (x, weight) = (draw(&[5, inputs]), draw(&[outputs, inputs]));
            let low = autocast::bfloat16(Device::Cpu, || ops::linear(&x, &weight, None).unwrap()).unwrap();
            let also = autocast::fp8(Device::Cpu, || linear(&x, &weight, None).unwrap()).unwrap();
            assert!(also.equal(&low), "{inputs} to {outputs}");
        }
        let (x, weight) = (draw(&[5, 32]), draw(&[32, 32]));
        let within = autocast::fp8(Device::Cpu, || linear(&x, &weight, None).unwrap()).unwrap();
        let plain = ops::linear(&x, &weight, None).unwrap();
        assert!(!within.equal(&plain) && linear(&x, &weight, None).unwrap().equal(&plain));
        let bfloat16 = autocast::bfloat16(Device::Cpu, || linear(&x, &weight, None).unwrap()).unwrap();
        assert!(!bfloat16.equal(&within) && !bfloat16.equal(&plain));
    }

    #[test]
    fn a_device_without_float8_is_told() {
        check(Device::Cpu).unwrap();
        assert!(check(Device::Vulkan).is_err());
    }
}
