use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};
use tidemill_proto::inference::v1::generate_request::Input;

use super::world::World;

const KIND: &str = "invalid_request_error";

fn with(base: &Value, field: &str, value: Value) -> Value {
    let mut body = base.clone();
    body[field] = value;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_has_openais_shape() {
    let world = World::new().await;
    let answered = world.post("/v1/completions", &json!({"model": "tiny", "prompt": "one two three"})).await;
    assert_eq!(answered.status, 200);
    let body = answered.json();
    assert_eq!(body["object"], "text_completion");
    assert_eq!((&body["id"], &body["model"]), (&json!("cmpl-a1"), &json!("tiny")));
    let choice = json!({"index": 0, "text": "one two three", "logprobs": null, "finish_reason": "stop"});
    assert_eq!(body["choices"], json!([choice]));
    assert_eq!(body["usage"], json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}));
    assert_eq!(body["system_fingerprint"], "fp_0123456789ab");
    assert!(body["created"].as_i64().unwrap() > 1_700_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_completion_joins_to_the_whole_one() {
    let world = World::new().await;
    let body = json!({"model": "tiny", "prompt": ["one two three"], "stream": true, "stream_options": {"include_usage": true}});
    let answered = world.post("/v1/completions", &body).await;
    assert_eq!(answered.headers["content-type"], "text/event-stream");
    let chunks = answered.chunks();
    let texts: Vec<&str> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(texts, ["one ", "two ", "three", ""]);
    assert!(chunks.iter().all(|chunk| chunk["id"] == "cmpl-a1" && chunk["object"] == "text_completion"));
    let (usage, before) = chunks.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(5)));
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let without =
        world.post("/v1/completions", &with(&json!({"model": "tiny", "prompt": "x"}), "stream", json!(true))).await;
    assert!(without.chunks().iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_completion_has_openais_shape_whole_and_streamed() {
    let world = World::new().await;
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
    ]);
    let body = json!({"model": "tiny", "messages": messages});
    let text = "system: Be brief. user: Hello there ";
    let whole = world.post("/v1/chat/completions", &body).await.json();
    assert_eq!((&whole["object"], &whole["id"]), (&json!("chat.completion"), &json!("chatcmpl-a1")));
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    assert_eq!(whole["choices"][0]["message"]["content"], text);

    let chunks = world.post("/v1/chat/completions", &with(&body, "stream", json!(true))).await.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let streamed: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["object"], &last["choices"][0]["finish_reason"]),
        (&json!("chat.completion.chunk"), &json!("stop"))
    );
    assert_eq!(last["choices"][0]["delta"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_reach_the_model() {
    let world = World::new().await;
    let body = json!({
        "model": "tiny", "prompt": "x", "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": -1, "stop": "END", "max_tokens": 5,
        "store": false, "n": 1, "user": "somebody", "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "echo": false,
        "best_of": 1, "suffix": null, "logprobs": null,
    });
    assert_eq!(world.post("/v1/completions", &body).await.status, 200);
    let chat = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "x"}], "stop": ["A", "B"], "max_completion_tokens": 9, "max_tokens": 4,
        "metadata": {}, "tools": [], "response_format": {"type": "text"}, "service_tier": "auto",
    });
    assert_eq!(world.post("/v1/chat/completions", &chat).await.status, 200);
    let requests = world.inference.requests.lock().unwrap();
    let first = requests[0].sampling.clone().unwrap();
    assert_eq!((first.temperature, first.top_p, first.top_k), (Some(0.5), Some(0.9), Some(7)));
    assert_eq!((first.seed, first.stop, first.max_tokens), (Some(u64::MAX), vec!["END".to_owned()], Some(5)));
    assert!(!requests[0].store && requests[1].store, "store is the request's, else the setting's");
    let second = requests[1].sampling.clone().unwrap();
    assert_eq!((second.stop, second.max_tokens), (vec!["A".to_owned(), "B".to_owned()], Some(9)));
    assert!(matches!(&requests[1].input, Some(Input::Chat(chat)) if chat.messages.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_decides_where_the_request_does_not_about_storing() {
    let world = World::with("store_answers = false\n").await;
    world.post("/v1/completions", &json!({"model": "tiny", "prompt": "x"})).await;
    world.post("/v1/completions", &json!({"model": "tiny", "prompt": "x", "store": true})).await;
    let stored: Vec<bool> = world.inference.requests.lock().unwrap().iter().map(|request| request.store).collect();
    assert_eq!(stored, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_has_its_error() {
    let world = World::new().await;
    let completion = json!({"model": "tiny", "prompt": "x"});
    for (field, value) in [
        ("prompt", json!(null)),
        ("prompt", json!(5)),
        ("prompt", json!([1, 2])),
        ("prompt", json!(["a", "b"])),
        ("model", json!(null)),
        ("model", json!(1)),
        ("temperature", json!("hot")),
        ("temperature", json!(3)),
        ("top_k", json!(1.5)),
        ("seed", json!(0.5)),
        ("stop", json!([1])),
        ("stop", json!(1)),
        ("max_tokens", json!("many")),
        ("n", json!(2)),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("echo", json!(true)),
        ("suffix", json!("end")),
        ("best_of", json!(3)),
        ("logprobs", json!(5)),
        ("presence_penalty", json!(1)),
        ("logit_bias", json!({"5": 1})),
        ("store", json!("no")),
        ("max_token", json!(5)),
    ] {
        let answered = world.post("/v1/completions", &with(&completion, field, value.clone())).await;
        let (status, kind, param, _) = answered.error();
        assert_eq!((status, kind, param), (400, json!(KIND), json!(field)), "{field} = {value}");
    }
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}]});
    for (field, value, param) in [
        ("messages", json!(null), "messages"),
        ("messages", json!("x"), "messages"),
        ("messages", json!([{"content": "x"}]), "messages[0].role"),
        ("messages", json!([{"role": "user", "content": "x"}, {"role": "user"}]), "messages[1].content"),
        ("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content"),
        ("tools", json!([{"type": "function"}]), "tools"),
        ("response_format", json!({"type": "json_object"}), "response_format"),
    ] {
        let answered = world.post("/v1/chat/completions", &with(&chat, field, value.clone())).await;
        assert_eq!((answered.status, answered.error().2), (400, json!(param)), "{field} = {value}");
    }
    let both = world.post("/v1/completions", &json!({"prompt": 1, "n": 3, "top_p": "x"})).await;
    let message = both.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(["model", "prompt", "n: 3", "top_p"].iter().all(|part| message.contains(part)), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_service_have_openais_shape() {
    let world = World::new().await;
    let unknown = world.post("/v1/completions", &json!({"model": "gpt-9", "prompt": "x"})).await;
    assert_eq!(unknown.error(), (404, json!(KIND), json!("model"), json!("model_not_found")));
    let busy = world.post("/v1/completions", &json!({"model": "tiny", "prompt": "busy"})).await;
    assert_eq!(busy.error(), (429, json!("rate_limit_error"), Value::Null, json!("queue_full")));
    assert_eq!(busy.headers["retry-after"], "1");
    // Before the first event a stream answers with a status of its own, as a whole answer does.
    let stream = world.post("/v1/completions", &json!({"model": "gpt-9", "prompt": "x", "stream": true})).await;
    assert_eq!(stream.error().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_mid_stream_is_the_last_event() {
    let world = World::new().await;
    let answered = world.post("/v1/completions", &json!({"model": "tiny", "prompt": "break", "stream": true})).await;
    assert_eq!(answered.status, 200);
    let events: Vec<&str> = answered.text.split_terminator("\n\n").collect();
    let last: Value = serde_json::from_str(events.last().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "server_error");
    assert_eq!(events.len(), 2, "{events:?}");
    let whole = world.post("/v1/completions", &json!({"model": "tiny", "prompt": "break"})).await;
    assert_eq!(whole.error().0, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_work() {
    let world = World::new().await;
    for stream in [true, false] {
        let body = json!({"model": "tiny", "prompt": "forever", "stream": stream});
        let request = tokio::spawn(world.request("/v1/completions", &body).send());
        while world.inference.running.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        if stream {
            let mut response = request.await.unwrap().unwrap();
            assert!(response.chunk().await.unwrap().unwrap().starts_with(b"data: "));
            drop(response);
        } else {
            request.abort();
        }
        world.wait_idle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_is_ended() {
    let world = World::with("request_timeout_seconds = 1\n").await;
    let answered = world.post("/v1/completions", &json!({"model": "tiny", "prompt": "forever"})).await;
    assert_eq!(answered.error(), (504, json!("server_error"), Value::Null, json!("timeout")));
    world.wait_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_the_deployments_that_answer() {
    let world = World::new().await;
    let list = world.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["object"]), (&json!("tiny"), &json!("model")));
    assert_eq!(world.get("/v1/models/tiny").await.json(), list["data"][0]);
    assert_eq!(world.get("/v1/models/deployments/tiny").await.json(), list["data"][0]);
    for absent in ["/v1/models/waiting", "/v1/models/a/b"] {
        assert_eq!(world.get(absent).await.error(), (404, json!(KIND), json!("model"), json!("model_not_found")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_in_the_same_shape() {
    let world = World::new().await;
    for body in ["", "{", "[1]", "{\"model\": }", "\u{feff}{}"] {
        let (status, kind, _, code) = world.post_raw("/v1/completions", body).await.error();
        assert_eq!((status, kind, code), (400, json!(KIND), json!("invalid_json")), "{body:?}");
    }
    let large = world.post_raw("/v1/completions", vec![b' '; 70 << 10]).await;
    assert_eq!(large.error().0, 413);
    assert_eq!(world.get("/v1/nothing").await.error().0, 404);
    assert_eq!(world.get("/v1/completions").await.error().0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_the_service_behind_answers() {
    let world = World::new().await;
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(world.get("/readyz").await.json()["status"], "ready");
}
