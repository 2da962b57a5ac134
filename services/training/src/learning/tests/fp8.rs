//! Layers in float8: they learn, resume, run again, and share their steps as others do.

use super::{
    memory::{base, from, lora, resumed, steps},
    ranks::{among, cut},
    *,
};

#[test]
fn layers_in_float8_learn_as_those_in_bfloat16_and_are_resumed_byte_by_byte() {
    tidemill_torch::process::set_threads(1);
    for (config, fields) in [(llama(), None), (gpt2(), None), (llama(), Some(lora(0.0)))] {
        let folder = base(&config);
        let run = |precision| {
            // An odd number of tokens, which is no multiple of 16.
            let spec = Spec {
                sequence_length: 29,
                batch_size: 3,
                ema_decay: 0.9,
                lora: fields.clone(),
                ..spec(config.clone(), 2, precision)
            };
            resumed(&|| from(&spec, folder.path()))
        };
        let ((low, low_files), (losses, files)) = (run(Precision::Bfloat16), run(Precision::Fp8));
        assert!(low_files != files, "float8 changes nothing");
        // What is learned in twelve steps is far more than what is lost by rounding.
        let (learned, apart) = (low[0] - low[11], (low[11] - losses[11]).abs());
        assert!(learned > 0.02 && apart < learned / 4.0, "{low:?} and {losses:?}");
    }
}

#[test]
fn two_ranks_learn_in_float8_what_one_learns_from_the_same_micro_batches() {
    tidemill_torch::process::set_threads(1);
    let base = spec(llama(), 1, Precision::Fp8);
    let losses = |shape: (usize, usize, usize)| {
        among(shape.2, |world| {
            let spec = cut(&base, shape);
            let data = Data::packed(tokens(4_000, 1), None, &spec).unwrap();
            let mut trainer = Trainer::new(spec, String::new(), data, Start::Random, Device::Cpu, world).unwrap();
            steps(&mut trainer, 8)
        })
    };
    let (one, two) = (losses((4, 2, 1)).remove(0), losses((4, 1, 2)));
    assert_eq!(two[0], two[1]);
    assert!(one.iter().zip(&two[0]).all(|(one, two)| (one - two).abs() < 1e-6), "{one:?} and {two:?}");
}

#[test]
fn what_cannot_be_multiplied_in_float8_is_told() {
    let whole = spec(llama(), 1, Precision::Fp8);
    let made = |spec: &Spec, device| {
        let data = Data::packed(tokens(4_000, 1), None, spec).unwrap();
        Trainer::new(spec.clone(), String::new(), data, Start::Random, device, World::alone())
    };
    let error = made(&whole, Device::Vulkan).err().unwrap().to_string();
    assert!(error.starts_with("precision: ") && error.contains("use BFLOAT16"), "{error}");
    let quantized = Spec { lora: Some(lora(0.0)), quantized_base: true, ..whole.clone() };
    let error = made(&quantized, Device::Cpu).err().unwrap().to_string();
    assert!(error.starts_with("precision: ") && error.contains("NF4"), "{error}");

    assert!(made(&whole, Device::Cpu).unwrap().left_out_of_precision().is_empty());
    let Config::Llama(shape) = llama() else { return };
    let odd = Config::Llama(LlamaConfig { intermediate_size: 60, ..shape });
    let trainer = made(&Spec { config: odd.clone(), ..whole.clone() }, Device::Cpu).unwrap();
    // Width 32 times 60 or 120: neither fits.
    let named = |part: &str| (0..2).map(|layer| format!("model.layers.{layer}.mlp.{part}.weight")).collect::<Vec<_>>();
    let mut expected = [named("gate_up_proj"), named("down_proj")].concat();
    expected.sort();
    let mut found = trainer.left_out_of_precision();
    found.sort_unstable();
    assert_eq!(found, expected);
    let trainer = made(&Spec { config: odd, precision: Precision::Bfloat16, ..whole }, Device::Cpu).unwrap();
    assert!(trainer.left_out_of_precision().is_empty());
}
