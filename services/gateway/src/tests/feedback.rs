use serde_json::{Value, json};
use tidemill_proto::ingestion::v1::feedback::Rating;
use uuid::Uuid;

use super::world::{DIGEST, World, answered};

async fn answer(world: &World, store: bool) -> String {
    let body = json!({"model": "tiny", "prompt": "one two", "store": store});
    world.post("/v1/completions", &body).await.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_filled_in_from_the_receipt() {
    let world = World::new().await;
    let id = answer(&world, true).await;
    assert_eq!(id, "cmpl-a1");
    let body = json!({"answer": id, "rating": "up", "consent": true});
    let sent = answered(world.request("/v1/feedback", &body).header("Idempotency-Key", "my key")).await.json();
    assert_eq!((&sent["id"], &sent["object"], &sent["answer"]), (&json!("f1"), &json!("feedback"), &json!("a1")));

    for form in ["a1", "answers/a1", "chatcmpl-a1"] {
        let body = json!({"answer": form, "rating": "down", "correction": "three", "consent": false});
        let key = "5b5c3a1e-8a62-4f0f-9b5c-0d4a7c4e8d11";
        assert_eq!(answered(world.request("/v1/feedback", &body).header("Idempotency-Key", key)).await.status, 200);
    }
    let taken = world.ingestion.feedback.lock().unwrap();
    let first = taken[0].feedback.clone().unwrap();
    assert_eq!((first.prompt.as_str(), first.completion.as_str()), ("one two", "one two"));
    assert_eq!((first.model.as_str(), first.model_digest.as_str()), ("models/tiny", DIGEST));
    assert_eq!((first.rating(), first.consent), (Rating::Up, true));
    assert!(Uuid::try_parse(&taken[0].request_id).is_ok(), "{}", taken[0].request_id);
    assert_eq!(taken[1].request_id, "5b5c3a1e-8a62-4f0f-9b5c-0d4a7c4e8d11");
    let second = taken[1].feedback.clone().unwrap();
    assert_eq!((second.rating(), second.consent, second.correction.as_str()), (Rating::Down, false, "three"));
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_on_a_text_that_was_not_kept_must_bring_it() {
    let world = World::new().await;
    let id = answer(&world, false).await;
    let mut body = json!({"answer": id, "rating": "up", "consent": true});
    let refused = world.post("/v1/feedback", &body).await;
    assert_eq!(refused.error().0, 400);
    assert_eq!(refused.error().3, "text_not_stored");
    assert!(refused.text.contains("\\\"store\\\": true"), "the remedy is missing: {}", refused.text);
    (body["prompt"], body["completion"]) = (json!("sent"), json!("too"));
    assert_eq!(world.post("/v1/feedback", &body).await.status, 200);
    let taken = world.ingestion.feedback.lock().unwrap()[0].feedback.clone().unwrap();
    assert_eq!((taken.prompt.as_str(), taken.completion.as_str()), ("sent", "too"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_feedback_has_its_error() {
    let world = World::new().await;
    let id = answer(&world, true).await;
    let good = json!({"answer": id, "rating": "up", "consent": true});
    for (field, value, status) in [
        ("answer", json!(null), 400),
        ("answer", json!("cmpl-unknown"), 404),
        ("rating", json!("great"), 400),
        ("rating", json!(null), 400),
        ("consent", json!(null), 400),
        ("consent", json!("yes"), 400),
        ("correction", json!(1), 400),
        ("ratings", json!("up"), 400),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let (found, _, param, _) = world.post("/v1/feedback", &body).await.error();
        assert_eq!((found, param), (status, json!(field)), "{field} = {value}");
    }
    assert!(world.ingestion.feedback.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_can_be_read_by_the_id_of_its_answer() {
    let world = World::new().await;
    let (kept, bare) = (answer(&world, true).await, answer(&world, false).await);
    let kept = world.get(&format!("/v1/answers/{kept}")).await.json();
    assert_eq!(
        (&kept["id"], &kept["model_digest"], &kept["completion"]),
        (&json!("a1"), &json!(DIGEST), &json!("one two"))
    );
    let bare = world.get(&format!("/v1/answers/{bare}")).await.json();
    assert_eq!((&bare["stored"], &bare["prompt"], &bare["completion"]), (&json!(false), &Value::Null, &Value::Null));
    assert_eq!(world.get("/v1/answers/nothing").await.error().0, 404);
}
