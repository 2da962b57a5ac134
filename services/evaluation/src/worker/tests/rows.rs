//! Rows as a worker measures them.

use serde_json::json;
use tidemill_dataset::{Example, RowType, RowsAnnotations};
use tidemill_proto::r#type::v1::suite_spec::Baseline;

use super::*;

const TEMPLATE: &str = "{% for m in messages %}{{ m.content + '<|endoftext|>' }}{% endfor %}";

async fn world() -> World {
    let mut world = World::new().await;
    let model = world.folder.path().join("model");
    std::fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
    world.model = world.artifacts.put_directory(&model, "model", Vec::new(), BTreeMap::new()).await.unwrap();
    let folder = world.folder.path().join("rows");
    for split in Split::ALL {
        let mut shard = ShardWriter::<Document>::named(folder.join(split.as_str()), "text").unwrap();
        for index in 0..8 {
            let row =
                json!({"instruction": text(index, 4), "chosen": text(index + 20, 6), "rejected": text(index + 40, 3)});
            let text = Example::from_json(&row).unwrap().to_json();
            shard.push(Document { id: RecordId::of(text.as_bytes()), text }).unwrap();
        }
        shard.finish().unwrap();
    }
    let annotations = RowsAnnotations {
        row_type: RowType::Preference,
        recipe: "{}".to_owned(),
        splits: BTreeMap::new(),
        dropped_counts: BTreeMap::new(),
        redacted_count: 0,
    };
    let stored = world.artifacts.put_directory(&folder, "prepared-dataset", Vec::new(), annotations.to_map()).await;
    world.dataset = stored.unwrap();
    world
}

#[tokio::test]
async fn rows_have_figures_of_their_own_and_prompts_are_what_a_user_says() {
    let world = world().await;
    let suite = SuiteSpec { baselines: Vec::new(), prompts: vec!["we the people".to_owned()], ..suite() };
    assert_eq!(world.run("one", suite.clone()).await.unwrap(), Ended::Done);
    let (digest, outcome) = world.outcome("one").await.unwrap();
    let names: Vec<&str> = outcome.metrics.keys().map(String::as_str).collect();
    assert_eq!(names, ["assistant_loss", "preference_accuracy", "preference_margin"]);
    assert!(outcome.metrics["assistant_loss"] > 3.0 && outcome.measured_bytes > 500, "{outcome:?}");
    assert_eq!(world.run("two", suite.clone()).await.unwrap(), Ended::Done);
    assert_eq!(world.outcome("two").await.unwrap().0, digest);
    // Written by the template, the prompt is another one.
    let plain = World { model: put_model(&world.artifacts, &world.folder.path().join("plain")).await, ..world };
    assert!(plain.run("three", suite).await.unwrap_err().message.contains("chat_template.jinja"));
}

#[tokio::test]
async fn the_base_model_is_measured_on_the_same_rows() {
    let world = world().await;
    let suite = SuiteSpec { baselines: vec![Baseline::BaseModel.into()], ..SuiteSpec::default() };
    let fault = world.run("none", suite.clone()).await.unwrap_err();
    assert!(fault.message.contains("was not trained from another model"), "{fault}");

    // A model whose manifest names the first one as a parent, with weights of its own.
    let (base, folder) = (world.model, world.folder.path().join("tuned"));
    put_model_of(&world.artifacts, &folder, 2).await;
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE).unwrap();
    let tuned =
        world.artifacts.put_directory(&folder, "model", vec![world.dataset, base], BTreeMap::new()).await.unwrap();
    world.run("base", SuiteSpec::default()).await.unwrap();
    let of_base = world.outcome("base").await.unwrap().1.metrics;
    let world = World { model: tuned, ..world };
    world.run("tuned", suite).await.unwrap();
    let both = world.outcome("tuned").await.unwrap().1.metrics;
    assert_eq!(both.len(), 8);
    assert!((0.0..=1.0).contains(&both["rewards_accuracy"]) && both["log_ratio_margin"] != 0.0, "{both:?}");
    for (name, figure) in of_base {
        assert_eq!(both[&format!("base_{name}")], figure, "{name}");
    }
    assert_ne!(both["assistant_loss"], both["base_assistant_loss"]);
}

#[tokio::test]
async fn compressors_are_not_for_rows() {
    let fault =
        world().await.run("one", SuiteSpec { baselines: vec![Baseline::Unigram.into()], ..suite() }).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    assert!(fault.message.contains("holds rows, which BASELINE_UNIGRAM is not for"), "{fault}");
}

#[tokio::test]
async fn a_tokenizer_that_knows_more_than_the_model_is_refused() {
    let world = World::new().await;
    let model = world.folder.path().join("model");
    let texts: Vec<String> = (0..20).map(|seed| text(seed, 60)).collect();
    let larger = Tokenizer::train_bpe(texts.iter().map(String::as_str), 400, &SPECIAL_TOKENS).unwrap();
    std::fs::write(model.join("tokenizer.json"), larger.json()).unwrap();
    let changed = world.artifacts.put_directory(&model, "model", Vec::new(), BTreeMap::new()).await.unwrap();
    let fault = World { model: changed, ..world }.run("one", SuiteSpec::default()).await.unwrap_err();
    assert!(fault.message.contains("ids, and its embedding only"), "{fault}");
}
