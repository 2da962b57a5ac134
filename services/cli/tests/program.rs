//! The program as people and scripts meet it: exit codes, streams, messages.

use std::process::{Command, Output};

/// Runs `tidemill` against an address where nothing listens.
fn tidemill(arguments: &[&str]) -> Output {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dead = format!("http://{}", listener.local_addr().expect("it listens"));
    drop(listener);
    Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(arguments)
        .env("TIDEMILL_SERVER", dead)
        .output()
        .expect("the program was built")
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are text")
}

fn pipeline(name: &str) -> String {
    format!("{}/../../pipelines/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_dead_server_is_exit_code_5_with_the_command_that_starts_one() {
    let demo = pipeline("demo.yaml");
    let commands: &[&[&str]] = &[
        &["status"],
        &["run", &demo],
        &["logs", "trainingJobs/a"],
        &["watch", "a"],
        &["chat", "sotu"],
        &["complete", "sotu", "My fellow"],
        &["datasets", "list"],
        &["models", "get", "sotu"],
        &["jobs", "list"],
        &["study", "list"],
        &["study", "show", "rate", "--plot", "/nowhere/rate.svg"],
        &["study", "cancel", "rate"],
        &["evaluations", "list", "--output", "json"],
        &["feedback", "answers/a", "--up"],
        &["lineage", "answers/a"],
        &["promote", "models/a/versions/1", "--objective", "a"],
        &["cancel", "trainingJobs/a"],
    ];
    for command in commands {
        let output = tidemill(command);
        assert_eq!(output.status.code(), Some(5), "{command:?}: {}", errors(&output));
        assert!(errors(&output).contains("`tidemill up`"), "{command:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn a_wrong_command_is_exit_code_2() {
    for command in [
        &["frobnicate"] as &[&str],
        &["run"],
        &["study"],
        &["study", "run"],
        &["feedback", "answers/a"],
        &["feedback", "answers/a", "--up", "--down"],
        &["complete", "sotu", "a", "--temperature", "warm"],
        &["status", "--server", "not a url"],
    ] {
        assert_eq!(tidemill(command).status.code(), Some(2), "{command:?}");
    }
}

#[test]
fn a_file_is_checked_without_a_server() {
    for example in ["demo.yaml", "demo-undertrained.yaml"] {
        let output = tidemill(&["run", "--check", &pipeline(example)]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
    assert_eq!(tidemill(&["run", "/nowhere.yaml"]).status.code(), Some(4));
}

#[test]
fn mistakes_in_a_file_are_all_printed_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    let good = std::fs::read_to_string(pipeline("demo.yaml")).unwrap();
    std::fs::write(&file, good.replace("format: TEXT", "format: WORD").replace("  model: sotu", "  modl: sotu"))
        .unwrap();
    let output = tidemill(&["run", file.to_str().unwrap()]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("wrong.yaml:") && text.contains("source.format") && text.contains("did you mean `model`?"),
        "{text}"
    );
    assert!(text.contains("2 mistake(s)"), "{text}");
}

#[test]
fn what_check_prints_as_json_is_the_api_s_form() {
    let output = tidemill(&["run", "--check", "--output", "json", &pipeline("demo.yaml")]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["training"]["optimizer"]["learningRate"], 0.003);
    assert_eq!(value["source"]["format"], "RECORD_FORMAT_TEXT");
}

/// A study's file.
const STUDY: &str = "\
training_job:
  model: models/sotu
  dataset_digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
  spec:
    architecture:
      gpt2: {n_embd: 64, n_layer: 2, n_head: 2, n_positions: 64}
    steps: 400
    batch_size: 16
    sequence_length: 64
    optimizer: {learning_rate: 1e-3}
    schedule: {}
parameters:
  - field: spec.optimizer.learning_rate
    range: {low: 1e-4, high: 1e-1, log: true}
  - field: spec.batch_size
    choices: {values: [8, 16]}
  - field: spec.schedule.decay
    choices: {values: [linear, \"cosine\"]}
max_trials: 20
tree_parzen_estimator: {}
successive_halving: {min_steps: 40}
";

#[test]
fn a_study_s_file_is_checked_without_a_server_and_its_mistakes_are_all_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rate.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, STUDY).unwrap();
    let output = tidemill(&["study", "run", "--check", "--output", "json", path]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["parameters"][0]["range"]["high"], 0.1);
    assert_eq!(value["parameters"][1]["choices"]["values"], serde_json::json!([8.0, 16.0]));
    assert_eq!(value["parameters"][2]["choices"]["values"], serde_json::json!(["linear", "cosine"]));
    assert_eq!(value["successiveHalving"]["minSteps"], "40");
    assert_eq!(tidemill(&["study", "run", path]).status.code(), Some(5));
    assert_eq!(tidemill(&["study", "run", "/nowhere.yaml"]).status.code(), Some(4));

    let wrong = STUDY.replace("max_trials: 20", "max_trials: many").replace("low: 1e-4, ", "");
    let wrong = wrong.replace("tree_parzen_estimator: {}", "state: RUNNING").replace("[8, 16]", "[8, [16]]");
    std::fs::write(&file, wrong).unwrap();
    let output = tidemill(&["study", "run", path]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for mistake in [
        "rate.yaml:1: one of random_search, tree_parzen_estimator must be given",
        "parameters[0].range.low: missing; it is required: The least",
        "parameters[1].choices.values[1]: a list stands where one value should",
        "max_trials: \"many\" is not a whole number",
        "state: set by the server; remove the line",
        "5 mistake(s)",
    ] {
        assert!(text.contains(mistake), "{mistake:?} is not in\n{text}");
    }
}

#[test]
fn up_without_a_program_and_down_without_a_server_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let output = tidemill(&["up", "--data-dir", data, "--program", "/bin/false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("ended before it served"), "{}", errors(&output));
    let output = tidemill(&["down", "--data-dir", data]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = tidemill(&["completions", shell]);
        assert!(String::from_utf8(output.stdout).unwrap().contains("lineage"), "{shell}");
    }
}

#[test]
fn model_hands_everything_to_the_daemon_s_program_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (own, daemon) = (folder.path().join("tidemill"), folder.path().join("tidemilld"));
    std::fs::copy(env!("CARGO_BIN_EXE_tidemill"), &own).unwrap();
    let run = |arguments: &[&str]| Command::new(&own).args(arguments).env("PATH", "/usr/bin:/bin").output().unwrap();
    let command = ["model", "logits", "./a model", "--ids", "i.json", "--output", "o.safetensors", "--help"];
    let output = run(&command);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("tidemilld is neither beside this program nor on PATH"), "{}", errors(&output));

    std::fs::write(&daemon, "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&daemon, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&command);
    assert_eq!(output.status.code(), Some(3));
    let given = String::from_utf8(output.stdout).unwrap();
    assert_eq!(given, "<model><logits><./a model><--ids><i.json><--output><o.safetensors><--help>");

    let help = run(&["model", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("tidemill model <VERB> <MODEL>") && help.contains("gpt2, bert, t5"), "{help}");
}
