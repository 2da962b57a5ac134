use super::*;

const GOOD: &str = include_str!("../../../../pipelines/demo.yaml");

fn mistakes(text: &str) -> Vec<String> {
    pipeline(text).expect_err("it has mistakes").iter().map(|mistake| mistake.in_file("p.yaml")).collect()
}

/// The demo's document with one line replaced.
fn with(line: &str, by: &str) -> String {
    assert!(GOOD.contains(line), "the demo has no line {line:?}");
    GOOD.replacen(line, by, 1)
}

#[test]
fn every_example_is_a_pipeline() {
    for text in [GOOD, include_str!("../../../../pipelines/demo-undertrained.yaml")] {
        let (spec, places) = pipeline(text).unwrap_or_else(|found| panic!("{found:?}"));
        assert_eq!(spec.serving.unwrap().model, "sotu");
        let line = text.lines().nth(places.line("pipeline.spec.training.optimizer.learning_rate") - 1).unwrap();
        assert!(line.contains("learning_rate"), "{line}");
    }
}

#[test]
fn five_mistakes_are_five_lines_with_file_line_and_field() {
    let text = "\
id: five
source:
  uri: file:///data
  format: parquet
  license: CC0-1.0
  consent_basis: PUBLIC_DOMAIN
recipe:
  split: {validation_ratio: 0.1, test_ratio: 0.1}
  tokenizer:
    byte_level_bpe: {vocabulary_size: 1024}
training:
  architecture:
    gpt2: {n_embd: 64, n_layer: 2, n_head: 2, n_positions: 64}
  stepss: 100
  batch_size: eight
  sequence_length: 64
  optimizer: {learning_rate: 0.001}
  schedule: {}
evaluation: {}
objective:
  task: text-generation
  thresholds:
    - metric: bits_per_byte
      max: 3
      min: 1
serving:
  alias: champion
";
    let found = mistakes(text);
    let expected = [
        "p.yaml:4: source.format: \"parquet\" is none of text, jsonl, json, avro, protobuf, rows",
        "p.yaml:14: training.stepss: unknown field; did you mean `steps`?",
        "p.yaml:15: training.batch_size: \"eight\" is not a whole number from -2147483648 to 2147483647",
        "p.yaml:25: objective.thresholds[0].min: only one of max, min, below_metric, max_champion_ratio, above_metric can be given, and line 24 gives max; remove one",
        "p.yaml:26: serving.model: missing; it is required: Id of the model",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_mistake_of_each_kind_names_its_remedy() {
    let cases: &[(&str, &str, &str)] = &[
        ("  format: TEXT", "  format: TEXT\n  format: TEXT", "source.format: given twice, first in line"),
        ("  format: TEXT", "  formatt: TEXT", "did you mean `format`?"),
        ("  format: TEXT", "  frobnicate: 1\n  format: TEXT", "unknown field; known are uri, sha256"),
        ("  format: TEXT", "  format: [TEXT]", "source.format: a list stands where one value should"),
        ("  format: TEXT", "  format:", "source.format: empty; write a value"),
        ("id: sotu", "id: {a: b}", "id: indented fields stand where one value should"),
        ("id: sotu", "", "id: missing; it is required"),
        ("  seed: 1", "  seed: -1", "training.seed: \"-1\" is not a whole number of at least 0"),
        ("  batch_size: 16", "  batch_size: \"16\"", "remove the quotes"),
        ("  seed: 1", "  seed: 1.5", "training.seed: \"1.5\" is not a whole number"),
        ("  seed: 1", "  checkpoint_every_steps: []", "training.checkpoint_every_steps: a list stands"),
    ];
    for (line, by, expected) in cases {
        let found = mistakes(&with(line, by));
        assert!(found.iter().any(|text| text.contains(expected)), "{by:?} should give {expected:?}, gave {found:?}");
    }
}

#[test]
fn both_spellings_of_keys_and_of_enum_values_are_read() {
    let text = with("  format: TEXT", "  format: record_format_text").replace("consent_basis:", "consentBasis:");
    assert_eq!(pipeline(&text).unwrap().0, pipeline(GOOD).unwrap().0);
}

#[test]
fn what_is_not_yaml_or_not_one_document_is_said_with_its_line() {
    for (text, expected) in [
        ("", "p.yaml:1: the file is empty"),
        ("id: a\n  b: [", "p.yaml:2: this is not valid YAML"),
        ("- 1\n- 2\n", "p.yaml:1: fields should stand here; known are id, source"),
        ("just words", "p.yaml:1: fields should stand here"),
    ] {
        let found = mistakes(text);
        assert!(found[0].starts_with(expected), "{text:?} gave {found:?}");
    }
    assert!(mistakes(&format!("{GOOD}\n---\nid: b\n"))[0].contains("a second document begins here"));
    assert!(mistakes(&"[".repeat(60))[0].contains("nested deeper"));
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    assert!(mistakes(&text)[0].contains("larger than any file"));
}

#[test]
fn what_a_server_says_about_a_field_leads_to_its_line() {
    let (_, places) = pipeline(GOOD).unwrap();
    let line = |path| GOOD.lines().nth(places.line(path) - 1).unwrap().trim().to_owned();
    assert!(line("pipeline.spec.training.steps").starts_with("steps:"));
    assert!(line("spec.recipe.steps[1].quality.min_words").starts_with("- quality"));
    assert_eq!(line("spec.serving.unheard_of"), "serving:");
}
