//! Muon (Keller Jordan, 2024): momentum of a matrix, made orthogonal. Equal to `torch.optim.Muon` with `match_rms_adamw`.

use tch::{Kind, Tensor, no_grad};

use super::Result;

/// Coefficients of the quintic Newton-Schulz iteration, and how often it is done.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.775, 2.0315);
const ITERATIONS: usize = 5;

/// One update of a matrix, whose runs of `rows` are matrices of their own.
///
/// The update has the size of AdamW's: 0.2 sqrt(max(rows, columns)) times an orthogonal matrix (arXiv 2502.16982).
pub(super) fn update(
    parameter: &Tensor,
    gradient: &Tensor,
    momentum_buffer: &Tensor,
    rows: &[i64],
    (learning_rate, momentum, weight_decay): (f64, f64, f64),
) -> Result<()> {
    no_grad(|| {
        let mut buffer = momentum_buffer.shallow_clone();
        let _ = buffer.f_lerp_(gradient, 1.0 - momentum)?;
        let nesterov = gradient.f_lerp(&buffer, momentum)?;
        let mut weights = parameter.f_detach()?;
        let _ = weights.f_mul_scalar_(1.0 - learning_rate * weight_decay)?;
        let mut start = 0;
        for rows in rows {
            let part = orthogonal(&nesterov.f_narrow(0, start, *rows)?)?;
            let size = 0.2 * (*rows.max(&parameter.size()[1]) as f64).sqrt();
            let mut target = weights.f_narrow(0, start, *rows)?;
            let _ = target.f_add_(&part.f_mul_scalar(-learning_rate * size)?.f_to_kind(Kind::Float)?)?;
            start += rows;
        }
        Ok(())
    })
}

/// The nearest orthogonal matrix, roughly: singular values come near 1. In bfloat16, as the method was made for.
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let (a, b, c) = COEFFICIENTS;
    let tall = matrix.size()[0] > matrix.size()[1];
    let x = matrix.f_to_kind(Kind::BFloat16)?;
    let x = if tall { x.f_transpose(0, 1)? } else { x };
    let norm = x.f_norm()?.f_clamp_min(1e-7)?;
    let mut x = x.f_div(&norm)?;
    for _ in 0..ITERATIONS {
        let gram = x.f_matmul(&x.f_transpose(0, 1)?)?;
        let polynomial = gram.f_mul_scalar(b)?.f_add(&gram.f_matmul(&gram)?.f_mul_scalar(c)?)?;
        x = x.f_mul_scalar(a)?.f_add(&polynomial.f_matmul(&x)?)?;
    }
    Ok(if tall { x.f_transpose(0, 1)? } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_update_has_singular_values_near_one_and_stacked_matrices_stand_alone() {
        for shape in [[12, 30], [30, 12]] {
            let matrix = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let (_, values, _) = orthogonal(&matrix).unwrap().to_kind(Kind::Float).svd(true, true);
            let (least, most) = (values.min().double_value(&[]), values.max().double_value(&[]));
            assert!(least > 0.5 && most < 1.5, "{least} to {most}");
        }
        let options = (Kind::Float, Device::Cpu);
        let gradient = Tensor::randn([20, 8], options);
        let run = |parts: &[(i64, &[i64])]| {
            let weights = Tensor::zeros([20, 8], options);
            let mut start = 0;
            for (count, rows) in parts {
                let buffer = Tensor::zeros([*count, 8], options);
                let (weights, gradient) = (weights.narrow(0, start, *count), gradient.narrow(0, start, *count));
                update(&weights, &gradient, &buffer, rows, (0.1, 0.95, 0.1)).unwrap();
                start += count;
            }
            weights
        };
        assert!(run(&[(20, &[8, 12])]).equal(&run(&[(8, &[8]), (12, &[12])])));
    }
}
