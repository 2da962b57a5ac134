use serde_json::{Value, json};

use super::*;

fn read(row: Value) -> Result<Example, String> {
    let example = Example::from_json(&row)?;
    // Whatever it was written as, its canonical JSON is read as the same row.
    let canonical: Value = serde_json::from_str(&example.to_json()).unwrap();
    assert_eq!(Example::from_json(&canonical), Ok(example.clone()));
    assert_eq!(example.row_type().as_str().parse::<RowType>().unwrap(), example.row_type());
    Ok(example)
}

fn canonical(row: Value) -> String {
    read(row).unwrap().to_json()
}

fn refusal(row: Value) -> String {
    read(row).unwrap_err()
}

#[test]
fn trls_columns_are_read_and_written_in_one_order() {
    let user = json!({"role": "user", "content": "Hi"});
    let assistant = json!({"content": "Hello", "role": "assistant"});
    for (row, expected) in [
        (
            json!({"messages": [user, assistant]}),
            r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}"#,
        ),
        (json!({"completion": " blue.", "prompt": "The sky is"}), r#"{"prompt":"The sky is","completion":" blue."}"#),
        (
            json!({"rejected": [{"role": "assistant", "content": "Go"}], "chosen": [assistant], "prompt": [user]}),
            r#"{"prompt":[{"role":"user","content":"Hi"}],"chosen":[{"role":"assistant","content":"Hello"}],"rejected":[{"role":"assistant","content":"Go"}]}"#,
        ),
        (
            json!({"label": false, "completion": " green.", "prompt": "The sky is"}),
            r#"{"prompt":"The sky is","completion":" green.","label":false}"#,
        ),
        (json!({"answer": 42, "prompt": [user]}), r#"{"prompt":[{"role":"user","content":"Hi"}],"answer":"42"}"#),
        // Absent, and null as tables write it, are the same.
        (json!({"prompt": "The sky is", "answer": null, "label": null}), r#"{"prompt":"The sky is"}"#),
    ] {
        assert_eq!(canonical(row), expected);
    }
}

#[test]
fn alpacas_columns_become_turns() {
    let row =
        json!({"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be brief.", "history": [["a", "b"]]});
    let expected = r#"{"prompt":[{"role":"system","content":"Be brief."},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"Add.\n1 2"}],"completion":[{"role":"assistant","content":"3"}]}"#;
    assert_eq!(canonical(row), expected);
    let row = json!({"instruction": "Greet.", "input": "", "output": "Hello"});
    let expected =
        r#"{"prompt":[{"role":"user","content":"Greet."}],"completion":[{"role":"assistant","content":"Hello"}]}"#;
    assert_eq!(canonical(row), expected);
    let pair = canonical(json!({"instruction": "Greet.", "chosen": "Hello", "rejected": "Go"}));
    assert!(pair.ends_with(
        r#""chosen":[{"role":"assistant","content":"Hello"}],"rejected":[{"role":"assistant","content":"Go"}]}"#
    ));
    assert_eq!(read(json!({"instruction": "a", "output": "b", "label": true})).unwrap().row_type(), RowType::Judged);
}

#[test]
fn sharegpts_turns_are_read() {
    let turns =
        json!([{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]);
    let expected = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"h"},{"role":"assistant","content":"g"}]}"#;
    assert_eq!(canonical(json!({"conversations": turns})), expected);
    let row = json!({
        "conversations": [{"from": "human", "value": "h"}],
        "chosen": {"from": "gpt", "value": "better"},
        "rejected": {"from": "gpt", "value": "worse"},
    });
    let expected = r#"{"prompt":[{"role":"user","content":"h"}],"chosen":[{"role":"assistant","content":"better"}],"rejected":[{"role":"assistant","content":"worse"}]}"#;
    assert_eq!(canonical(row), expected);
    for call in ["function_call", "observation"] {
        let error = refusal(json!({"conversations": [{"from": "human", "value": "h"}, {"from": call, "value": "{}"}]}));
        assert!(error.contains("conversations[1].from") && error.contains("tool call"), "{error}");
    }
}

#[test]
fn llama_factorys_parts_and_judged_conversations_are_read() {
    let part = |role: &str, text: &str, weight: f64| json!({"role": role, "content": [{"type": "text", "value": text}], "loss_weight": weight});
    let row = json!({"messages": [part("user", "hi", 0.0), part("assistant", "Hello", 1.0)]});
    assert_eq!(
        canonical(row),
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Hello"}]}"#
    );
    let unlike = refusal(json!({"messages": [part("user", "hi", 0.0), part("assistant", "Hello", 0.5)]}));
    assert!(unlike.contains("messages[1].loss_weight"), "{unlike}");
    let row = json!({
        "chosen_messages": [part("user", "hi", 0.0), part("assistant", "Hello", 1.0)],
        "rejected_messages": [part("user", "hi", 0.0), part("assistant", "Go", 1.0)],
    });
    let expected = r#"{"prompt":[{"role":"user","content":"hi"}],"chosen":[{"role":"assistant","content":"Hello"}],"rejected":[{"role":"assistant","content":"Go"}]}"#;
    assert_eq!(canonical(row), expected);
    let row =
        json!({"messages": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}], "label": true});
    let expected =
        r#"{"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}],"label":true}"#;
    assert_eq!(canonical(row), expected);
}

#[test]
fn an_implicit_prompt_is_what_both_answers_begin_with() {
    let text = canonical(json!({"chosen": "The sky is blue.", "rejected": "The sky is green."}));
    assert_eq!(text, r#"{"prompt":"The sky is","chosen":" blue.","rejected":" green."}"#);
    let turns = |answer: &str| json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]);
    // A prompt of text that the turns repeat is the same prompt.
    for row in [
        json!({"chosen": turns("a"), "rejected": turns("b")}),
        json!({"chosen": turns("a"), "rejected": turns("b"), "prompt": "Hi"}),
    ] {
        assert!(
            canonical(row).starts_with(r#"{"prompt":[{"role":"user","content":"Hi"}],"chosen":[{"role":"assistant","#)
        );
    }
    let equal = refusal(json!({"chosen": turns("a"), "rejected": turns("a")}));
    assert!(equal.contains("are equal"), "{equal}");
}

#[test]
fn a_refusal_names_the_column_and_the_remedy() {
    let asked = json!([{"role": "user", "content": "Hi"}]);
    let said = |role: &str, content: Value| json!({"messages": [{"role": role, "content": content}]});
    for (row, parts) in [
        (json!([1]), vec!["not a JSON object"]),
        (json!({"text": "plain"}), vec!["column text", "RECORD_FORMAT_JSONL"]),
        (json!({"question": "?"}), vec!["none of the columns", "rename"]),
        (json!({"messages": asked}), vec!["column messages", "assistant"]),
        (json!({"messages": "Hi"}), vec!["column messages", "list of turns"]),
        (said("robot", json!("x")), vec!["messages[0].role", "\"robot\""]),
        (said("assistant", Value::Null), vec!["messages[0].content", "missing"]),
        (said("assistant", json!([{"type": "image"}])), vec!["messages[0].content[0]", "image is no text"]),
        (said("assistant", json!(" \n")), vec!["messages[0]", "says nothing"]),
        (json!({"messages": [{"content": "x"}]}), vec!["messages[0]", "role and content"]),
        (json!({"messages": asked, "tools": [{"name": "f"}]}), vec!["column tools"]),
        (
            json!({"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]}),
            vec!["messages[0].tool_calls"],
        ),
        (json!({"prompt": "x", "completion": " "}), vec!["column completion", "empty"]),
        (json!({"completion": "x"}), vec!["column prompt", "missing"]),
        (json!({"prompt": asked, "completion": asked}), vec!["completion[0]", "assistant only"]),
        (json!({"prompt": [], "completion": "x"}), vec!["column prompt", "no turns"]),
        (
            json!({"prompt": [{"role": "assistant", "content": "x"}], "completion": "y"}),
            vec!["column prompt", "last turn"],
        ),
        (json!({"prompt": "x", "completion": "y", "system": "z"}), vec!["column system", "as turns"]),
        (json!({"prompt": ""}), vec!["column prompt", "empty"]),
        (json!({"instruction": "x"}), vec!["column output", "missing"]),
        (json!({"instruction": "", "input": "", "output": "x"}), vec!["column instruction", "empty"]),
        (json!({"instruction": "x", "output": "y", "history": [["a"]]}), vec!["history[0]", "pair"]),
        (json!({"output": "x"}), vec!["column instruction", "missing"]),
        (json!({"prompt": "x", "completion": "y", "label": "good"}), vec!["column label", "true or false"]),
        (json!({"label": true}), vec!["column label", "beside it"]),
        (json!({"messages": asked, "label": true}), vec!["column messages", "assistant's"]),
        (json!({"prompt": "x", "chosen": "y"}), vec!["column rejected", "missing"]),
        (json!({"prompt": "x", "chosen": "y", "rejected": "y"}), vec!["chosen and rejected are equal"]),
        (
            json!({"prompt": "x", "chosen": "y", "rejected": [{"role": "assistant", "content": "z"}]}),
            vec!["both should be text"],
        ),
    ] {
        let text = row.to_string();
        let error = refusal(row);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

#[test]
fn every_text_can_be_cleaned_and_a_row_that_loses_its_answer_is_told() {
    let mut row = read(json!({
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "chosen": "c", "rejected": "r",
    }))
    .unwrap();
    assert_eq!(row.joined(), "s\nu\nc\nr");
    row.texts_mut().into_iter().for_each(|text| text.make_ascii_uppercase());
    assert_eq!(row.joined(), "S\nU\nC\nR");
    assert_eq!(row.check(), Ok(()));
    row.texts_mut().into_iter().for_each(String::clear);
    assert!(row.check().unwrap_err().contains("column chosen"));
}

#[test]
fn other_columns_are_metadata() {
    assert!(["messages", "label", "tools", "history"].into_iter().all(is_row_column));
    assert!(!is_row_column("source"));
}
