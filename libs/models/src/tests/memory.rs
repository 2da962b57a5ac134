//! What saves memory changes no number that it should not.

use std::sync::{Mutex, PoisonError};

use tidemill_torch::nf4::{self, Nf4};

use super::*;

/// Held while numbers are drawn from torch's generator, which belongs to the process.
static DRAWING: Mutex<()> = Mutex::new(());

/// A model in a folder, and another one whose matrices inside layers are what four bits hold of them.
fn two_folders(config: &Config) -> [tempfile::TempDir; 2] {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let model = Model::new(config.clone(), 3, Device::Cpu).unwrap();
    save(&model, folders[0].path()).unwrap();
    let inner: Vec<String> = model
        .parameters()
        .iter()
        .filter(|parameter| parameter.is_inner_matrix())
        .flat_map(|parameter| parameter.pieces.iter().map(|piece| piece.name.clone()))
        .collect();
    let transposed = matches!(config, Config::Gpt2(_));
    let mut tensors = model.base_tensors().unwrap();
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| inner.contains(name)) {
        let turned = |x: &Tensor| if transposed { x.transpose(0, 1).contiguous() } else { x.shallow_clone() };
        *tensor = turned(&nf4::dequantize(&[Nf4::quantize(&turned(tensor)).unwrap()]).unwrap());
    }
    save_config(&model, folders[1].path()).unwrap();
    write_tensors(&folders[1].path().join(WEIGHTS_FILE), &tensors).unwrap();
    folders
}

fn outputs(model: &Model) -> Tensor {
    match model.config() {
        Config::T5(_) => model.forward_pair(&tokens(32), &tokens(32)).unwrap(),
        _ => model.states(&tokens(32), Attention::Full).unwrap(),
    }
}

/// Output, and gradients of an adapter whose B is no longer zero.
fn learned(model: &mut Model, lora: &LoraConfig) -> Vec<Tensor> {
    model.attach_adapter(lora, 5).unwrap();
    for parameter in model.parameters() {
        let _ = parameter.tensor.shallow_clone().f_add_scalar_(0.01).unwrap();
    }
    model.set_trainable(true).unwrap();
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(7);
    let out = outputs(model);
    out.square().sum(Kind::Float).backward();
    let mut all = vec![out.detach()];
    all.extend(model.disk_gradients().unwrap().into_iter().map(|(_, gradient)| gradient));
    all
}

fn lora(use_dora: bool, dropout: f64) -> LoraConfig {
    LoraConfig { r: 3, alpha: 6.0, dropout, target_modules: Vec::new(), use_rslora: use_dora, use_dora }
}

#[test]
fn an_adapter_learns_beside_four_bits_as_beside_the_weights_that_they_stand_for() {
    for config in all_families() {
        let [folder, rounded] = two_folders(&config);
        for lora in [lora(false, 0.0), lora(true, 0.3)] {
            let mut quantized = load_quantized(folder.path(), Device::Cpu).unwrap();
            let mut whole = load(rounded.path(), Device::Cpu).unwrap();
            assert_eq!(quantized.parameter_count(), whole.parameter_count());
            assert!(quantized.quantized_count() > quantized.parameter_count() / 2);
            assert_eq!(quantized.flops_per_token(8), whole.flops_per_token(8));
            for (a, b) in learned(&mut quantized, &lora).iter().zip(&learned(&mut whole, &lora)) {
                assert!(a.equal(b), "{}, {lora:?}", config.model_type());
            }
            let _guard = tch::no_grad_guard();
            assert!(
                quantized.without_adapter(|| outputs(&quantized)).equal(&whole.without_adapter(|| outputs(&whole)))
            );
        }
    }
}

#[test]
fn what_was_learned_beside_four_bits_is_merged_into_whole_weights_only() {
    let [folder, _] = two_folders(&llama(true));
    let mut quantized = load_quantized(folder.path(), Device::Cpu).unwrap();
    learned(&mut quantized, &lora(false, 0.0));
    assert!(quantized.merge_adapter().unwrap_err().to_string().contains("whole weights"));
    assert!(quantized.base_tensors().unwrap_err().to_string().contains("quantised"));
    let mut whole = load(folder.path(), Device::Cpu).unwrap();
    assert!(whole.adopt_adapter(&load(folder.path(), Device::Cpu).unwrap()).is_err());
    whole.adopt_adapter(&quantized).unwrap();
    let adapter = tempfile::tempdir().unwrap();
    save_adapter(&mut quantized, adapter.path(), "base").unwrap();
    let read = load_adapted(folder.path(), adapter.path(), Device::Cpu).unwrap();
    let _guard = tch::no_grad_guard();
    let adapted = outputs(&whole);
    assert!(adapted.equal(&outputs(&read)));
    whole.merge_adapter().unwrap();
    assert!(largest_difference(&adapted, &outputs(&whole)) < 1e-4);
}

#[test]
fn an_adapter_below_is_merged_before_four_bits_are_made() {
    let [folder, _] = two_folders(&llama(true));
    let adapted = tempfile::tempdir().unwrap();
    let mut model = load(folder.path(), Device::Cpu).unwrap();
    learned(&mut model, &lora(false, 0.0));
    save_adapter(&mut model, adapted.path(), "base").unwrap();
    fs::rename(folder.path(), adapted.path().join(BASE_FOLDER)).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let mut merged = load(adapted.path(), Device::Cpu).unwrap();
    merged.merge_adapter().unwrap();
    save(&merged, whole.path()).unwrap();
    let _guard = tch::no_grad_guard();
    let [a, b] = [adapted.path(), whole.path()].map(|path| load_quantized(path, Device::Cpu).unwrap());
    assert!(a.quantized_count() > 0 && outputs(&a).equal(&outputs(&b)));
}

/// Loss of documents or of whole sequences, and gradients of all that is trained.
fn pass(config: &Config, adapted: bool, again: bool, documents: bool) -> Vec<Tensor> {
    let mut model = Model::new(config.clone(), 3, Device::Cpu).unwrap();
    if adapted {
        model.attach_adapter(&lora(true, 0.3), 5).unwrap();
    }
    model.set_recomputing(again);
    model.set_trainable(true).unwrap();
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(7);
    let (ids, targets) = (tokens(49).narrow(1, 0, 48), tokens(49).narrow(1, 1, 48));
    let laid = Documents::new(vec![20, 5, 23], Device::Cpu).unwrap();
    let attention = if documents { Attention::Documents(&laid) } else { Attention::Full };
    let loss = match config {
        // Of whole sequences there is one.
        Config::T5(_) => {
            let whole = Documents::new(vec![48], Device::Cpu).unwrap();
            let text_documents = if documents { &laid } else { &whole };
            let lengths = text_documents.lengths().iter().rev().copied().collect();
            let source_documents = &Documents::new(lengths, Device::Cpu).unwrap();
            let sources = &(&ids * 3 + 1).remainder(61);
            let pairs = Pairs { sources, source_documents, texts: &ids, text_documents };
            model.pairs_loss_sum(pairs, &targets, 0.0).unwrap()
        }
        _ => model.loss_sum(&ids, &targets, attention, 0.0).unwrap(),
    };
    loss.backward();
    let mut all = vec![loss.detach()];
    all.extend(model.disk_gradients().unwrap().into_iter().map(|(_, gradient)| gradient));
    assert!(all.len() > model.parameters().len());
    all
}

#[test]
fn blocks_that_run_again_give_the_same_loss_and_gradients_bit_by_bit() {
    for config in [families(), vec![bert(true), t5(true), t5(false)]].concat() {
        for (adapted, documents) in [(false, false), (false, true), (true, false), (true, true)] {
            let (plain, again) = (pass(&config, adapted, false, documents), pass(&config, adapted, true, documents));
            for (index, (a, b)) in plain.iter().zip(&again).enumerate() {
                let kind = config.model_type();
                assert!(a.equal(b), "{kind}, tensor {index}, adapted {adapted}, documents {documents}");
            }
        }
    }
}
