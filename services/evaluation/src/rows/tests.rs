use serde_json::json;
use tch::{Device, Kind, Tensor};
use tidemill_models::{Attention, Config, IGNORED, LlamaConfig, LlamaMember, Rope};
use tidemill_text::{ChatFormat, ChatTemplate, Tokenizer};

use super::*;

const CONTEXT: i64 = 64;
const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

struct World {
    model: Model,
    tokenizer: Tokenizer,
    chat: ChatFormat,
}

impl World {
    fn new() -> Self {
        let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        let text = "user assistant What is the sky? It is blue and grey. ";
        let tokenizer = Tokenizer::train_bpe([text, text], 300, &special).unwrap();
        let config = LlamaConfig {
            member: LlamaMember::Llama,
            vocab_size: tokenizer.vocabulary_size() as i64,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: CONTEXT,
            rope: Rope::default(),
            rms_norm_eps: 1e-5,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            windows: Vec::new(),
            tie_word_embeddings: true,
            // Large, so that predictions differ much from one another.
            initializer_range: 0.5,
            bos_token_id: None,
            eos_token_id: Some(0),
        };
        let model = Model::new(Config::Llama(config), 3, Device::Cpu).unwrap();
        let template = Some(ChatTemplate::parse("t", TEMPLATE).unwrap());
        Self { model, tokenizer, chat: ChatFormat { template, ..ChatFormat::default() } }
    }

    fn supervisor(&self) -> Supervisor<'_> {
        let max_length = CONTEXT as usize + 1;
        Supervisor { tokenizer: &self.tokenizer, chat: &self.chat, max_length, learn_prompts: false }
    }

    fn read(&self, rows: &[serde_json::Value]) -> Result<Rows> {
        self.read_first(0, rows)
    }

    fn read_first(&self, longest: usize, rows: &[serde_json::Value]) -> Result<Rows> {
        let document = |row: &serde_json::Value| {
            let text = row.to_string();
            Document { id: RecordId::of(text.as_bytes()), text }
        };
        Rows::read(&rows.iter().map(document).collect::<Vec<_>>(), &self.supervisor(), longest)
    }

    async fn metrics(&self, rows: &[serde_json::Value]) -> BTreeMap<String, f64> {
        let rows = self.read(rows).unwrap();
        rows.metrics(&rows.score(&self.model, "m", |_| true).await.unwrap().unwrap())
    }

    /// The losses of an answer's tokens by the shortest way: all logits of the sequence alone.
    fn naive(&self, sequence: &Supervised) -> Vec<f64> {
        let logits = self.model.forward(&Tensor::from_slice(&sequence.inputs).unsqueeze(0), Attention::Full).unwrap();
        let logs = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
        let places = sequence.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED);
        places.map(|(at, target)| -logs.double_value(&[0, at as i64, *target])).collect()
    }
}

fn pair(asked: &str, chosen: &str, rejected: &str) -> serde_json::Value {
    let said = |content: &str| json!([{"role": "assistant", "content": content}]);
    json!({"prompt": [{"role": "user", "content": asked}], "chosen": said(chosen), "rejected": said(rejected)})
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[tokio::test]
async fn figures_of_pairs_are_those_of_each_answer_alone() {
    let world = World::new();
    let rows: Vec<_> = (0..40)
        .map(|i| pair(&format!("What is {i}?"), &"It is blue. ".repeat(1 + i % 3), &format!("grey {}", i * i)))
        .collect();
    let (mut answers, mut margins) = (Vec::new(), Vec::new());
    for row in &rows {
        let [chosen, rejected] = world.supervisor().pair(&serde_json::from_value(row.clone()).unwrap()).unwrap();
        let (chosen, rejected) = (world.naive(&chosen), world.naive(&rejected));
        margins.push(mean(&rejected) - mean(&chosen));
        answers.extend(chosen);
    }
    let right = margins.iter().filter(|margin| **margin > 0.0).count();
    assert!(right > 0 && right < rows.len(), "{right} of {} show nothing", rows.len());
    let found = world.metrics(&rows).await;
    let expected = [
        ("assistant_loss", mean(&answers)),
        ("preference_accuracy", right as f64 / rows.len() as f64),
        ("preference_margin", mean(&margins)),
    ];
    assert_eq!(found.len(), expected.len());
    for (name, expected) in expected {
        assert!((found[name] - expected).abs() < 1e-5, "{name}: {} {expected}", found[name]);
    }
}

#[tokio::test]
async fn of_the_answers_of_pairs_only_the_first_tokens_are_measured() {
    let world = World::new();
    let rows: Vec<_> = (0..12).map(|i| pair("What is?", &"It is blue. ".repeat(1 + i % 3), "grey and grey")).collect();
    let mut answers = Vec::new();
    for row in &rows {
        let [chosen, _] = world.supervisor().pair(&serde_json::from_value(row.clone()).unwrap()).unwrap();
        let nats = world.naive(&chosen);
        assert!(nats.len() > 3);
        answers.extend_from_slice(&nats[..3]);
    }
    let read = world.read_first(3, &rows).unwrap();
    let losses = read.score(&world.model, "m", |_| true).await.unwrap().unwrap();
    assert!(losses.len() == 24 && losses.iter().all(|loss| loss.tokens == 3));
    let found = read.metrics(&losses)["assistant_loss"];
    assert!((found - mean(&answers)).abs() < 1e-5, "{found} {}", mean(&answers));

    // Other answers are not cut.
    let judged = json!({"prompt": "What is", "completion": " the sky? It is blue.", "label": true});
    let [all, cut] = [0, 3].map(|longest| world.read_first(longest, std::slice::from_ref(&judged)).unwrap().tokens());
    assert_eq!(all, cut);
}

#[test]
fn rewards_compare_what_both_models_make_of_whole_answers() {
    let world = World::new();
    let judged = json!({"prompt": "What is", "completion": " the sky", "label": true});
    let rows = [pair("What is it?", "blue", "grey"), judged, pair("And?", "It is blue.", "grey")];
    let rows = world.read(&rows).unwrap();
    let losses = |nats: [f64; 5]| nats.map(|nats| Loss { nats, tokens: 2 });
    // The first pair's chosen answer gained 3 nats and its rejected one 1; of the second pair the rejected one gained more.
    let found = rows.rewards(&losses([4.0, 2.0, 9.0, 5.0, 1.0]), &losses([7.0, 3.0, 1.0, 6.0, 6.0]));
    assert_eq!(found, BTreeMap::from([("rewards_accuracy".to_owned(), 0.5), ("log_ratio_margin".to_owned(), -1.0)]));
    let same = rows.rewards(&losses([1.0; 5]), &losses([1.0; 5]));
    assert_eq!(same["rewards_accuracy"], 0.0, "a model is no better than itself");
}

#[tokio::test]
async fn the_loss_is_that_of_answers_that_are_good() {
    let world = World::new();
    let conversation = json!({"messages": [
        {"role": "user", "content": "What is the sky?"}, {"role": "assistant", "content": "It is blue."},
        {"role": "user", "content": "And?"}, {"role": "assistant", "content": "grey"}]});
    let judged = |label: bool| json!({"prompt": "What is", "completion": " the sky", "label": label});
    let mut expected =
        world.naive(&world.supervisor().sequence(&serde_json::from_value(conversation.clone()).unwrap()).unwrap());
    let alone = world.metrics(std::slice::from_ref(&conversation)).await;
    assert_eq!(alone.keys().collect::<Vec<_>>(), ["assistant_loss"]);
    assert!((alone["assistant_loss"] - mean(&expected)).abs() < 1e-5);
    expected.extend(world.naive(&world.supervisor().judged(&serde_json::from_value(judged(true)).unwrap()).unwrap().0));
    let all = world.metrics(&[conversation, judged(false), judged(true)]).await;
    assert!((all["assistant_loss"] - mean(&expected)).abs() < 1e-5);
    assert_eq!(world.read(&[judged(false)]).unwrap().tokens(), 0);
}

#[test]
fn a_row_that_cannot_be_measured_is_named() {
    let world = World::new();
    let long = pair(&"What is the sky? ".repeat(40), "blue", "grey");
    let other = ChatFormat::default();
    for (row, part) in [
        (long, "its answer begins after"),
        (json!({"prompt": "What?"}), "prompt alone"),
        (json!({"text": ""}), "did not match"),
    ] {
        let id = RecordId::of(row.to_string().as_bytes()).to_string();
        let error = world.read(&[row]).unwrap_err().to_string();
        assert!(error.contains(&id) && error.contains(part), "{error}");
    }
    let without = World { chat: other, ..world };
    let error = without.read(&[pair("What?", "a", "b")]).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}
