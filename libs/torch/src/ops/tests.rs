//! Every operation against libtorch's own composition of it in float64, which takes the other path.

use tch::{Device, Kind, Tensor};

use super::*;

fn draw(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// Runs `body` on float32 and on float64 leaves and compares its result and all gradients.
fn agrees(name: &str, inputs: &[Tensor], tolerance: f64, body: impl Fn(&[Tensor]) -> Tensor) {
    let run = |kind: Kind| {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.to_kind(kind).copy().set_requires_grad(true)).collect();
        let out = body(&leaves);
        // Weights that differ by element, so that no part of the gradient cancels.
        let weights =
            (Tensor::arange(out.numel() as i64, (Kind::Double, Device::Cpu)) * 0.37).sin().to_kind(kind).view_as(&out);
        (&out * weights).sum(kind).backward();
        let mut all = vec![out.detach()];
        all.extend(leaves.iter().map(Tensor::grad));
        all
    };
    for (index, (fast, exact)) in run(Kind::Float).iter().zip(run(Kind::Double)).enumerate() {
        let difference = (fast.to_kind(Kind::Double) - &exact).abs().max().double_value(&[]);
        let scale = exact.abs().max().double_value(&[]).max(1.0);
        assert!(difference <= tolerance * scale, "{name}, tensor {index}: {difference} of {scale}");
    }
}

#[test]
fn linear_agrees_with_float64() {
    for rows in [1, 7, 64, 200] {
        let inputs = [draw(&[rows, 3, 40]), draw(&[24, 40]), draw(&[24])];
        agrees("linear", &inputs, 1e-5, |x| linear(&x[0], &x[1], Some(&x[2])).unwrap());
        agrees("linear without bias", &inputs[..2], 1e-5, |x| linear(&x[0], &x[1], None).unwrap());
    }
}

#[test]
fn norm_and_gate_agree_with_float64() {
    for shape in [[1, 1, 8], [3, 50, 96], [2, 65, 130]] {
        let inputs = [draw(&shape) * 3.0, draw(&shape[2..])];
        agrees("rms_norm", &inputs, 1e-5, |x| rms_norm(&x[0], &x[1], 1e-6).unwrap());
        agrees("swiglu", &[draw(&shape) * 8.0], 1e-5, |x| swiglu(&x[0]).unwrap());
    }
}

#[test]
fn split_heads_agree_with_float64() {
    let (b, t, h, k, d) = (2, 33, 6, 2, 10);
    let angles = Tensor::arange(t * d / 2, (Kind::Double, Device::Cpu)).view([t, d / 2]) * 0.1;
    for rotate in [true, false] {
        agrees("split_qkv", &[draw(&[b, t, (h + 2 * k) * d])], 1e-5, |x| {
            let (cosines, sines) = (angles.cos().to_kind(x[0].kind()), angles.sin().to_kind(x[0].kind()));
            let (q, k, v) = split_qkv(&x[0], rotate.then_some((&cosines, &sines)), h, k).unwrap();
            assert_eq!((q.size(), k.size(), v.size()), (vec![b, h, t, d], vec![b, 2, t, d], vec![b, 2, t, d]));
            Tensor::cat(&[q.flatten(0, -1), k.flatten(0, -1), v.flatten(0, -1)], 0)
        });
    }
}

#[test]
fn attention_agrees_with_float64() {
    for (b, h, k, t, d) in
        [(1, 1, 1, 16, 8), (2, 4, 4, 64, 32), (2, 4, 2, 80, 16), (1, 6, 2, 208, 20), (1, 2, 1, 19, 8)]
    {
        let inputs = [draw(&[b, h, t, d]) * 2.0, draw(&[b, k, t, d]), draw(&[b, k, t, d])];
        agrees("causal_attention", &inputs, 2e-5, |x| causal_attention(&x[0], &x[1], &x[2]).unwrap());
    }
}

#[test]
fn cross_entropy_agrees_with_float64_and_skips_ignored_targets() {
    for (n, v, c) in [(5, 7, 8), (700, 130, 24)] {
        let targets = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(v);
        let _ = targets.narrow(0, 1, n / 2).fill_(-100);
        let inputs = [draw(&[n, c]), draw(&[v, c]) * 2.0];
        for z in [0.0, 0.1] {
            let loss = |x: &[Tensor]| cross_entropy_sum(&x[0], &x[1], &targets, -100, z).unwrap();
            agrees("cross_entropy_sum", &inputs, 1e-5, loss);
            let without = tch::no_grad(|| loss(&inputs));
            let exact = loss(&inputs.each_ref().map(|x| x.to_kind(Kind::Double)));
            assert!((without.double_value(&[]) / exact.double_value(&[]) - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn losses_of_tokens_agree_with_float64_whatever_their_weights() {
    for (n, v, c) in [(5, 7, 8), (700, 130, 24)] {
        let targets = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(v);
        let _ = targets.narrow(0, 1, n / 2).fill_(-100);
        let inputs = [draw(&[n, c]), draw(&[v, c]) * 2.0];
        agrees("token_losses", &inputs, 1e-5, |x| token_losses(&x[0], &x[1], &targets, -100).unwrap());
        let losses = token_losses(&inputs[0], &inputs[1], &targets, -100).unwrap();
        let sum = cross_entropy_sum(&inputs[0], &inputs[1], &targets, -100, 0.0).unwrap();
        assert!((losses.sum(Kind::Double).double_value(&[]) / sum.double_value(&[]) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_changes_no_other() {
    let targets = Tensor::arange(64, (Kind::Int64, Device::Cpu)).remainder(9);
    let values = [draw(&[64, 16]), draw(&[16, 16]), draw(&[9, 16])];
    let run = |frozen: bool| {
        let [x, inner, head] = values.each_ref().map(Tensor::copy);
        let x = x.set_requires_grad(true);
        let (inner, head) = (inner.set_requires_grad(!frozen), head.set_requires_grad(!frozen));
        let hidden = linear(&x, &inner, None).unwrap();
        cross_entropy_sum(&hidden, &head, &targets, -100, 0.0).unwrap().backward();
        (x.grad(), inner.grad().defined() || head.grad().defined())
    };
    let ((free, has), (frozen, has_not)) = (run(false), run(true));
    assert!(has && !has_not && free.allclose(&frozen, 0.0, 0.0, false));
}

#[test]
fn values_that_are_not_numbers_stay_visible() {
    let bad = Tensor::from_slice(&[f32::NAN, 1.0, 2.0, 3.0]).view([1, 4]);
    let weight = Tensor::ones([4], (Kind::Float, Device::Cpu));
    for out in [rms_norm(&bad, &weight, 1e-6).unwrap(), swiglu(&bad).unwrap()] {
        assert!(out.sum(Kind::Float).double_value(&[]).is_nan());
    }
    let logits = Tensor::ones([9, 4], (Kind::Float, Device::Cpu));
    let targets = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
    assert!(cross_entropy_sum(&bad, &logits, &targets, -100, 0.0).unwrap().double_value(&[]).is_nan());
}

#[test]
fn bfloat16_products_are_close_and_end_with_their_scope() {
    let (x, weight) = (draw(&[64, 128]), draw(&[32, 128]));
    let exact = linear(&x, &weight, None).unwrap();
    let low = crate::autocast::bfloat16(Device::Cpu, || linear(&x, &weight, None).unwrap()).unwrap();
    let difference = (&low - &exact).abs().max().double_value(&[]);
    assert!(low.kind() == Kind::Float && difference > 0.0 && difference < 0.5, "{difference}");
    let after = linear(&x, &weight, None).unwrap();
    assert_eq!((after - exact).abs().max().double_value(&[]), 0.0);
}

#[test]
fn mistakes_in_shapes_are_errors() {
    let x = draw(&[2, 5]);
    assert!(linear(&x, &draw(&[3, 6]), None).is_err());
    assert!(rms_norm(&x, &draw(&[4]), 1e-6).is_err());
    assert!(swiglu(&x).is_err());
    assert!(split_qkv(&draw(&[1, 2, 7]), None, 2, 1).is_err());
    let outside = Tensor::from_slice(&[3i64, 9]);
    assert!(cross_entropy_sum(&x, &draw(&[4, 5]), &outside, -100, 0.0).is_err());
}
