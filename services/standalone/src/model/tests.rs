use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use serde_json::{Value, json};
use tch::{Device, Tensor};
use tempfile::TempDir;
use tidemill_models::{Attention, Config, Model, read_tensors, save};

use super::{Failure, cases::Case, run};

const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16, "eos_token_id": 2}"#;
const BERT: &str = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 11, "hidden_size": 8,
    "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16, "type_vocab_size": 2}"#;
const T5: &str = r#"{"model_type": "t5", "vocab_size": 11, "d_model": 8, "d_kv": 3, "d_ff": 12, "num_layers": 1, "num_heads": 2,
    "is_encoder_decoder": true, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}"#;

/// A folder with a model in `model`.
struct World {
    folder: TempDir,
    model: Model,
}

impl World {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::new(Config::from_json(config).unwrap(), 1, Device::Cpu).unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        save(&model, &folder.path().join("model")).unwrap();
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a verb; words that begin with @ are files of the folder.
    fn run(&self, line: &str) -> Result<(), Failure> {
        let place = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_owned(),
        };
        run(&Case::try_parse_from(line.split_whitespace().map(place)).unwrap().arguments.verb)
    }

    fn fails(&self, line: &str) -> String {
        let failure = self.run(line).unwrap_err();
        assert_eq!(failure.code(), 2, "{failure}");
        failure.to_string()
    }

    fn write(&self, name: &str, value: &Value) {
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    /// What `logits` gives for these ids.
    fn logits(&self, ids: &Value, more: &str) -> std::collections::BTreeMap<String, Tensor> {
        self.write("ids.json", ids);
        self.run(&format!("logits @model --ids @ids.json --output @out.safetensors {more}")).unwrap();
        read_tensors(&self.path("out.safetensors")).unwrap()
    }
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && (a - b).abs().max().double_value(&[]) < 1e-5
}

#[test]
fn logits_are_those_of_the_model_and_padding_changes_nothing() {
    let world = World::new(LLAMA);
    let whole = &world.logits(&json!([[3, 4, 5, 6], [7, 8, 9, 10]]), "")["logits"];
    let ids = Tensor::from_slice(&[3i64, 4, 5, 6, 7, 8, 9, 10]).view([2, 4]);
    assert!(close(whole, &world.model.forward(&ids, Attention::Full).unwrap()));
    let mask = json!([[1, 1, 1, 1], [1, 1, 0, 0]]);
    let padded =
        &world.logits(&json!({"input_ids": [[3, 4, 5, 6], [7, 8, 0, 0]], "attention_mask": mask}), "")["logits"];
    assert!(close(&padded.get(0), &whole.get(0)));
    assert!(close(&padded.get(1).narrow(0, 0, 2), &whole.get(1).narrow(0, 0, 2)));
    assert_eq!(padded.get(1).narrow(0, 2, 2).abs().max().double_value(&[]), 0.0);
}

#[test]
fn losses_are_means_over_what_counts_and_every_tensor_has_a_gradient() {
    let world = World::new(LLAMA);
    let out = world.logits(&json!({"input_ids": [[3, 4, 5]], "labels": [[9, 4, -100]]}), "--gradients");
    // A decoder's label is what the place before it should say.
    let expected = -out["logits"].get(0).get(0).log_softmax(-1, tch::Kind::Float).double_value(&[4]);
    assert!((out["loss"].double_value(&[]) - expected).abs() < 1e-5);
    for (name, tensor) in world.model.disk_tensors().unwrap() {
        assert_eq!(out[&format!("grad.{name}")].size(), tensor.size(), "{name}");
    }

    let world = World::new(BERT);
    let out = world.logits(&json!({"input_ids": [[3, 4, 5]], "labels": [[-100, 7, -100]]}), "");
    let expected = -out["logits"].get(0).get(1).log_softmax(-1, tch::Kind::Float).double_value(&[7]);
    assert!((out["loss"].double_value(&[]) - expected).abs() < 1e-5);
    assert_eq!(out["embedding"].size(), [1, 8]);
    assert!((out["embedding"].norm().double_value(&[]) - 1.0).abs() < 1e-5);
}

#[test]
fn an_encoder_decoder_writes_its_labels_moved_by_one() {
    let world = World::new(T5);
    let moved = world.logits(&json!({"input_ids": [[3, 4, 5]], "labels": [[6, -100]]}), "");
    let given = world.logits(&json!({"input_ids": [[3, 4, 5]], "decoder_input_ids": [[0, 6]]}), "");
    assert!(close(&moved["logits"], &given["logits"]));
    assert!(moved.contains_key("loss") && !given.contains_key("loss"));
}

#[test]
fn ids_that_do_not_fit_are_errors_that_name_file_and_field() {
    let world = World::new(LLAMA);
    for (ids, expected) in [
        (json!([[3, 4], [5]]), "input_ids: rows differ in length"),
        (json!([[11]]), "the id 11, and the vocabulary has 11"),
        (json!({"input_ids": [[3, 4]], "labels": [[3]]}), "labels: row 0 is not as long as input_ids"),
        (json!({"input_ids": [[3, 4]], "labels": [[3, -100]]}), "labels: none of them counts"),
        (
            json!({"input_ids": [[3, 0, 0]], "attention_mask": [[1, 0, 0]], "labels": [[3, 4, 5]]}),
            "labels: row 0 has labels in its padding",
        ),
        (
            json!({"input_ids": [[3]], "decoder_input_ids": [[3]]}),
            "decoder_input_ids: llama has no encoder and decoder",
        ),
        (json!([vec![3; 17]]), "17 tokens do not fit a context of 16"),
    ] {
        world.write("ids.json", &ids);
        let text = world.fails("logits @model --ids @ids.json --output @out.safetensors");
        assert!(text.contains("ids.json: ") && text.contains(expected), "{text}");
    }
    world.write("ids.json", &json!([[3]]));
    assert!(world.fails("logits @model --ids @ids.json --output @o --gradients").contains("--gradients needs labels"));
    assert!(world.fails("logits @nowhere --ids @ids.json --output @o").contains("nowhere: "));
    assert!(world.fails("logits @ --ids @ids.json --output @o").contains("no config.json in it"));
}

#[test]
fn generation_goes_on_from_each_row() {
    let world = World::new(LLAMA);
    world.write("ids.json", &json!([[3, 4, 5], [6]]));
    for beams in [1, 3] {
        world
            .run(&format!("generate @model --ids @ids.json --max-new-tokens 4 --beams {beams} --output @new.json"))
            .unwrap();
        let rows: Vec<Vec<i64>> = serde_json::from_slice(&fs::read(world.path("new.json")).unwrap()).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.len() == 4 || row.last() == Some(&2)), "{rows:?}");
    }
    assert!(world.fails("generate @model --prompt hello").contains("it has no tokenizer"));
    let encoder = World::new(BERT);
    encoder.write("ids.json", &json!([[3]]));
    assert!(encoder.fails("generate @model --ids @ids.json").contains("bert generates nothing"));
}

#[test]
fn the_tokens_that_end_a_text_are_those_of_generation_config() {
    let world = World::new(LLAMA);
    world.write("ids.json", &json!([[3, 4, 5]]));
    let all: Vec<i64> = (0..11).collect();
    world.write("model/generation_config.json", &json!({"eos_token_id": all}));
    world.run("generate @model --ids @ids.json --output @new.json").unwrap();
    let rows: Vec<Vec<i64>> = serde_json::from_slice(&fs::read(world.path("new.json")).unwrap()).unwrap();
    assert_eq!(rows[0].len(), 1);
    world.write("model/generation_config.json", &json!({"eos_token_id": "end"}));
    assert!(world.fails("generate @model --ids @ids.json").contains("generation_config.json: eos_token_id"));
}

#[test]
fn a_converted_directory_holds_the_same_model() {
    let world = World::new(LLAMA);
    world.write("model/tokenizer_config.json", &json!({"eos_token": "</s>", "chat_template": "{{ messages }}"}));
    world.run("convert @model @whole").unwrap();
    world.run("convert @whole @shards --shard-bytes 500").unwrap();
    world.run("convert @shards @again").unwrap();
    let weights = |name: &str| fs::read(world.path(name)).unwrap();
    assert_eq!(weights("model/model.safetensors"), weights("again/model.safetensors"));
    assert!(world.path("shards/model.safetensors.index.json").exists());
    assert_eq!(weights("again/chat_template.jinja"), b"{{ messages }}");
    assert_eq!(weights("again/tokenizer_config.json"), weights("model/tokenizer_config.json"));
    let generation: Value = serde_json::from_slice(&weights("again/generation_config.json")).unwrap();
    assert_eq!(generation["eos_token_id"], 2);
    let names = |name: &str| fs::read_dir(world.path(name)).unwrap().count();
    assert_eq!(names(""), 4, "nothing is left beside the four directories");
}

#[test]
fn nothing_is_overwritten_and_nothing_left_by_a_failure() {
    let world = World::new(LLAMA);
    assert!(world.fails("convert @model @model").contains("it exists already"));
    fs::create_dir(world.path("new.part")).unwrap();
    assert!(world.fails("convert @model @new").contains("new.part: another run writes it, or was interrupted"));
    fs::remove_dir(world.path("new.part")).unwrap();
    fs::write(world.path("model/model.safetensors"), b"broken").unwrap();
    assert!(world.fails("convert @model @new").contains("model.safetensors"));
    assert!(!world.path("new").exists() && !world.path("new.part").exists());
}

#[test]
fn all_cases_run_and_failures_are_counted() {
    let world = World::new(LLAMA);
    let place = |name: &str| world.path(name).display().to_string();
    let convert = |to: &str| vec!["convert".to_owned(), place("model"), place(to)];
    world.write("cases.json", &json!([convert("model"), convert("new")]));
    let failure = world.run("cases @cases.json").unwrap_err();
    assert_eq!((failure.code(), failure.to_string()), (1, "1 of 2 cases failed".to_owned()));
    assert!(Path::new(&place("new")).exists());
}
