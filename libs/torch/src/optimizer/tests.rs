use super::*;
use tch::{Device, Kind};

#[test]
fn two_updates_follow_the_formula_of_the_paper() {
    let constants = AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.2, epsilon: 1e-8 };
    let zeros = || [Tensor::zeros([1], (Kind::Float, Device::Cpu))];
    let (weight, first, second) = ([Tensor::from_slice(&[2f32])], zeros(), zeros());
    let (mut w, mut m, mut v) = (2.0f64, 0.0f64, 0.0f64);
    for (step, gradient) in [(1i32, 4.0f64), (2, -1.0)] {
        // The gradient reaches the update divided by 2.
        let group = Group {
            parameters: &weight,
            gradients: &[Tensor::from_slice(&[gradient as f32])],
            first_moments: &first,
            second_moments: &second,
            steps: &[Tensor::from(step as f32)],
        };
        constants.update(&group, Some(&Tensor::from(2f32))).unwrap();
        let g = gradient / 2.0;
        w -= 0.1 * 0.2 * w;
        m = 0.9 * m + 0.1 * g;
        v = 0.95 * v + 0.05 * g * g;
        w -= 0.1 * (m / (1.0 - 0.9f64.powi(step))) / ((v / (1.0 - 0.95f64.powi(step))).sqrt() + 1e-8);
    }
    assert!((weight[0].double_value(&[0]) - w).abs() < 1e-5, "{} against {w}", weight[0].double_value(&[0]));
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let constants = AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.2, epsilon: 1e-8 };
    let one = [Tensor::from(1f32)];
    let group = Group { parameters: &one, gradients: &[], first_moments: &one, second_moments: &one, steps: &one };
    assert!(constants.update(&group, None).unwrap_err().to_string().contains("gradients"));
}

const CONSTANTS: AdamW = AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, weight_decay: 0.1, epsilon: 1e-8 };

/// A weight with moments of 8 bits.
struct Small {
    weight: [Tensor; 1],
    codes: [[Tensor; 1]; 2],
    sizes: [[Tensor; 1]; 2],
    step: i64,
}

impl Small {
    fn new(weight: &Tensor) -> Self {
        let blocks = (weight.numel() as i64 + BLOCK - 1) / BLOCK;
        let codes = || [Tensor::zeros(weight.size(), (Kind::Uint8, Device::Cpu))];
        let sizes = || [Tensor::zeros([blocks], (Kind::Float, Device::Cpu))];
        Self { weight: [weight.copy()], codes: [codes(), codes()], sizes: [sizes(), sizes()], step: 0 }
    }

    fn update(&mut self, gradient: &Tensor, divisor: Option<&Tensor>) {
        self.step += 1;
        let group = Group8 {
            parameters: &self.weight,
            gradients: &[gradient.shallow_clone()],
            first_codes: &self.codes[0],
            first_sizes: &self.sizes[0],
            second_codes: &self.codes[1],
            second_sizes: &self.sizes[1],
            step: self.step,
        };
        CONSTANTS.update_8bit(&group, divisor).unwrap();
    }

    fn parts(&self) -> [&Tensor; 5] {
        [&self.weight[0], &self.codes[0][0], &self.sizes[0][0], &self.codes[1][0], &self.sizes[1][0]]
    }
}

/// The weight after updates with moments in float32.
fn whole(weight: &Tensor, gradients: &[Tensor], divisor: Option<&Tensor>) -> Tensor {
    let zeros = || [weight.zeros_like()];
    let (weight, first, second) = ([weight.copy()], zeros(), zeros());
    for (index, gradient) in gradients.iter().enumerate() {
        let group = Group {
            parameters: &weight,
            gradients: &[gradient.copy()],
            first_moments: &first,
            second_moments: &second,
            steps: &[Tensor::from((index + 1) as f32)],
        };
        CONSTANTS.update(&group, divisor).unwrap();
    }
    let [weight] = weight;
    weight
}

/// Gradients that have a direction, with noise. Torch's generator is shared with other tests.
fn gradients(shape: &[i64], count: usize) -> Vec<Tensor> {
    let noise = |nth: i64| {
        let places = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + 1e4 * nth as f64;
        (((places * 12.9898).sin() * 43758.5453).frac() - 0.1).view(shape).to_kind(Kind::Float)
    };
    let direction = noise(0);
    (1..=count as i64).map(|nth| (noise(nth) * 0.5 + &direction) * 0.01).collect()
}

#[test]
fn moments_in_8_bits_begin_as_those_in_float32_and_stay_near_them() {
    for shape in [vec![64, 96], vec![1000], vec![3]] {
        let (weight, gradients) = (Tensor::ones(&shape, (Kind::Float, Device::Cpu)), gradients(&shape, 50));
        let divisor = Tensor::from(2f32);
        let mut small = Small::new(&weight);
        for (index, gradient) in gradients.iter().enumerate() {
            small.update(gradient, Some(&divisor));
            let exact = whole(&weight, &gradients[..=index], Some(&divisor));
            let size = |x: &Tensor| x.norm().double_value(&[]);
            let (apart, way) = (size(&(&small.weight[0] - &exact)), size(&(&exact - &weight)));
            // The first update comes before anything was rounded. Afterwards bitsandbytes' own differ from float32 by up to 0.024.
            let bound = if index == 0 { 1e-6 * size(&weight) } else { 0.03 * way };
            assert!(apart <= bound, "{shape:?}, step {}: {apart} of {way}", index + 1);
        }
    }
}

#[test]
fn moments_in_8_bits_are_the_same_by_libtorchs_own_operations() {
    let shape = [70, 90];
    let (weight, gradients) = (Tensor::ones(shape, (Kind::Float, Device::Cpu)), gradients(&shape, 20));
    let (mut fast, mut plain) = (Small::new(&weight), Small::new(&weight));
    for gradient in &gradients {
        fast.update(gradient, None);
        // What is not float32 goes through libtorch's own operations, as on a GPU.
        plain.update(&gradient.to_kind(Kind::Double), None);
    }
    let [weights, first, first_sizes, second, second_sizes] = [0, 1, 2, 3, 4].map(|part| {
        let (a, b) = (fast.parts()[part].to_kind(Kind::Double), plain.parts()[part].to_kind(Kind::Double));
        (a - b).abs()
    });
    let weights = weights.mean(Kind::Double).double_value(&[]);
    assert!(weights < 1e-5, "{weights}");
    assert!(first_sizes.max().double_value(&[]) < 1e-5 && second_sizes.max().double_value(&[]) < 1e-6);
    // A number at the edge between two codes may fall to either side; where it does, they are neighbours.
    for codes in [first, second] {
        let (most, share) = (codes.max().double_value(&[]), codes.mean(Kind::Double).double_value(&[]));
        assert!(most <= 1.0 && share < 1e-2, "{most}, {share}");
    }
}

#[test]
fn moments_of_another_shape_are_refused() {
    let weight = Tensor::ones([300], (Kind::Float, Device::Cpu));
    let mut small = Small::new(&weight);
    small.sizes[1] = [Tensor::zeros([1], (Kind::Float, Device::Cpu))];
    let group = Group8 {
        parameters: &small.weight,
        gradients: &[weight.copy()],
        first_codes: &small.codes[0],
        first_sizes: &small.sizes[0],
        second_codes: &small.codes[1],
        second_sizes: &small.sizes[1],
        step: 1,
    };
    assert!(CONSTANTS.update_8bit(&group, None).unwrap_err().to_string().contains("another shape"));
    let none = Group8 { second_sizes: &[], ..group };
    assert!(CONSTANTS.update_8bit(&none, None).unwrap_err().to_string().contains("sizes of second moments"));
}
