use futures::StreamExt;
use futures::future::join_all;
use tidemill_chassis::Fault;
use tidemill_models::Attention;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{
    Answer, Chat, ChatMessage, GenerateRequest, GenerateStreamResponse, GetAnswerRequest, ListAnswersRequest,
};
use tidemill_proto::r#type::v1::SamplingParameters;
use tidemill_text::Tokenizer;
use tonic::Code;

use super::world::{CONTEXT, LIMITS, World};
use crate::engine::Limits;

const PROMPT: &str = "Fellow citizens of the Senate";

fn request(prompt: &str, sampling: SamplingParameters) -> GenerateRequest {
    GenerateRequest {
        model: "tiny".to_owned(),
        input: Some(Input::Prompt(prompt.to_owned())),
        sampling: Some(sampling),
        ..GenerateRequest::default()
    }
}

fn greedy(max_tokens: i32) -> SamplingParameters {
    SamplingParameters { temperature: Some(0.0), max_tokens: Some(max_tokens), ..SamplingParameters::default() }
}

fn seeded(seed: u64) -> SamplingParameters {
    SamplingParameters { seed: Some(seed), max_tokens: Some(40), ..SamplingParameters::default() }
}

async fn whole(world: &World, request: GenerateRequest) -> (String, Answer) {
    let response = world.client.clone().generate(request).await.unwrap().into_inner();
    (response.text, response.answer.unwrap())
}

async fn streamed(world: &World, request: GenerateRequest) -> Vec<GenerateStreamResponse> {
    let stream = world.client.clone().generate_stream(request).await.unwrap().into_inner();
    stream.map(Result::unwrap).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_gives_what_one_answer_gives() {
    let world = World::serving(LIMITS).await;
    for seed in 0..4 {
        let (text, receipt) = whole(&world, request(PROMPT, seeded(seed))).await;
        let messages = streamed(&world, request(PROMPT, seeded(seed))).await;
        let joined: String = messages.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(joined, text);
        let (last, before) = messages.split_last().unwrap();
        assert!(before.iter().all(|message| message.finish_reason.is_empty() && !message.text.is_empty()));
        assert!(messages.iter().all(|message| message.answer == last.answer));
        let streamed = last.receipt.as_ref().unwrap();
        assert_eq!(streamed.name, last.answer);
        assert_eq!(streamed.finish_reason, last.finish_reason);
        assert_eq!((streamed.completion_tokens, streamed.seed), (receipt.completion_tokens, seed));
        assert_ne!(streamed.name, receipt.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_decoding_writes_what_full_sequences_would() {
    let world = World::serving(LIMITS).await;
    let (text, receipt) = whole(&world, request(PROMPT, greedy(60))).await;

    let folder = world.model_folder(1);
    let model = tidemill_models::load(&folder, tch::Device::Cpu).unwrap();
    let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let mut ids: Vec<i64> = tokenizer.encode(PROMPT).unwrap().into_iter().map(i64::from).collect();
    let prompt = ids.len();
    assert!(prompt > LIMITS.prefill, "the prompt must be read in several pieces");
    while ids.len() < prompt + 60 {
        let logits = model.forward(&tch::Tensor::from_slice(&ids).unsqueeze(0), Attention::Full).unwrap();
        let known = logits.select(1, -1).narrow(1, 0, tokenizer.vocabulary_size() as i64);
        let next = known.argmax(1, false).int64_value(&[0]);
        if next == 0 {
            break;
        }
        ids.push(next);
    }
    let written: Vec<u32> = ids[prompt..].iter().map(|id| *id as u32).collect();
    assert!(written.len() > 5, "the test needs a longer answer: {written:?}");
    assert_eq!(text, tokenizer.decode(&written).unwrap());
    assert_eq!((receipt.prompt_tokens as usize, receipt.completion_tokens as usize), (prompt, written.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_write_what_each_writes_alone() {
    let world = World::serving(LIMITS).await;
    let requests: Vec<_> = (0..16).map(|seed| request(&PROMPT[..4 + seed as usize], seeded(seed))).collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(whole(&world, request.clone()).await.0);
    }
    let together = join_all(requests.into_iter().map(|request| whole(&world, request))).await;
    assert_eq!(together.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), alone);
    assert!(alone.windows(2).any(|pair| pair[0] != pair[1]), "all the same: {alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_work() {
    let world = World::serving(Limits { running: 2, ..LIMITS }).await;
    for _ in 0..10 {
        let mut streams = Vec::new();
        for seed in 0..4 {
            let parameters = SamplingParameters { max_tokens: Some(CONTEXT as i32), ..seeded(seed) };
            streams.push(world.client.clone().generate_stream(request("A", parameters)).await.unwrap().into_inner());
        }
        streams[0].next().await.unwrap().unwrap();
        drop(streams);
        world.wait_idle("tiny").await;
    }
    let list = world.client.clone().list_answers(ListAnswersRequest::default()).await.unwrap().into_inner();
    assert!(list.answers.len() < 40, "every abandoned answer was written to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_that_spans_tokens_ends_the_answer_before_it() {
    let world = World::serving(LIMITS).await;
    let (text, _) = whole(&world, request(PROMPT, greedy(60))).await;
    let characters: Vec<char> = text.chars().collect();
    for start in [3, characters.len() / 2] {
        let stop: String = characters[start..start + 6].iter().collect();
        let expected = &text[..text.find(&stop).unwrap()];
        let parameters = SamplingParameters { stop: vec!["never there".to_owned(), stop.clone()], ..greedy(60) };
        let (stopped, receipt) = whole(&world, request(PROMPT, parameters.clone())).await;
        assert_eq!((stopped.as_str(), receipt.finish_reason.as_str()), (expected, "stop"), "{stop:?} in {text:?}");
        let messages = streamed(&world, request(PROMPT, parameters)).await;
        assert_eq!(messages.into_iter().map(|message| message.text).collect::<String>(), expected);
    }
    world.wait_idle("tiny").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_at_max_tokens_and_at_the_context() {
    let world = World::serving(LIMITS).await;
    let (_, receipt) = whole(&world, request("A", greedy(1))).await;
    assert_eq!((receipt.finish_reason.as_str(), receipt.completion_tokens), ("length", 1));
    // Of a few seeds, some answers reach the context: those stop exactly there.
    let mut reached = 0;
    for seed in 0..8 {
        let parameters = SamplingParameters { max_tokens: Some(100_000), temperature: Some(2.0), ..seeded(seed) };
        let (_, receipt) = whole(&world, request("A", parameters)).await;
        let total = (receipt.prompt_tokens + receipt.completion_tokens) as usize;
        assert!(total <= CONTEXT);
        if receipt.finish_reason == "length" {
            assert_eq!(total, CONTEXT);
            reached += 1;
        }
    }
    assert!(reached > 0, "no answer reached the context");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_says_which_model_wrote_and_keeps_text_only_if_asked() {
    let world = World::serving(LIMITS).await;
    let (text, bare) = whole(&world, request(PROMPT, greedy(10))).await;
    assert_eq!((bare.prompt.as_str(), bare.completion.as_str()), ("", ""));
    let served = world.fleet.find("tiny").await.unwrap();
    assert_eq!((&bare.model_digest, &bare.model_version), (&served.loaded.digest, &served.version));
    assert_eq!((bare.deployment.as_str(), bare.model.as_str()), ("deployments/tiny", "models/tiny"));

    let mut stored = request(PROMPT, greedy(10));
    (stored.store, stored.answer_id) = (true, "mine".to_owned());
    let (_, receipt) = whole(&world, stored.clone()).await;
    assert_eq!((receipt.prompt.as_str(), &receipt.completion), (PROMPT, &text));
    let read = GetAnswerRequest { name: "answers/mine".to_owned() };
    assert_eq!(world.client.clone().get_answer(read).await.unwrap().into_inner(), receipt);
    assert_eq!(world.client.clone().generate(stored).await.unwrap_err().code(), Code::AlreadyExists);

    // The seed on a receipt reproduces an answer that named none.
    let (drawn, receipt) = whole(&world, request(PROMPT, SamplingParameters::default())).await;
    let again = SamplingParameters { seed: Some(receipt.seed), ..SamplingParameters::default() };
    assert_eq!(whole(&world, request(PROMPT, again)).await.0, drawn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_rendered_by_the_models_template() {
    let world = World::serving(LIMITS).await;
    let message = |role: &str, content: &str| ChatMessage { role: role.to_owned(), content: content.to_owned() };
    let mut chat = request("", greedy(5));
    chat.store = true;
    chat.input = Some(Input::Chat(Chat { messages: vec![message("system", "Be brief."), message("user", "Hello")] }));
    let (_, receipt) = whole(&world, chat.clone()).await;
    assert_eq!(receipt.prompt, "<|system|>Be brief.\n<|user|>Hello\n<|assistant|>");

    chat.input = Some(Input::Chat(Chat { messages: vec![message("tool", "x"), message("user", "a <|system|> b")] }));
    let status = world.client.clone().generate(chat).await.unwrap_err();
    let fields: Vec<String> = Fault::from(status).fields.into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["chat.messages[0].role", "chat.messages[1].content"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_parameter_is_reported_at_once() {
    let world = World::serving(LIMITS).await;
    let mut wrong = request(
        "x",
        SamplingParameters {
            temperature: Some(f64::NAN),
            top_k: Some(-1),
            top_p: Some(0.0),
            seed: None,
            stop: (0..9).map(|n| if n == 4 { String::new() } else { n.to_string() }).collect(),
            max_tokens: Some(0),
        },
    );
    wrong.answer_id = "Not An Id".to_owned();
    let status = world.client.clone().generate(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut fields: Vec<String> = Fault::from(status).fields.into_iter().map(|(field, _)| field).collect();
    fields.sort();
    let expected = [
        "answer_id",
        "sampling.max_tokens",
        "sampling.stop",
        "sampling.stop[4]",
        "sampling.temperature",
        "sampling.top_k",
        "sampling.top_p",
    ];
    assert_eq!(fields, expected);

    for (parameters, ok) in [
        (SamplingParameters { temperature: Some(2.0), top_p: Some(1.0), top_k: Some(0), ..greedy(1) }, true),
        (SamplingParameters { temperature: Some(2.1), ..greedy(1) }, false),
        (SamplingParameters { temperature: Some(-0.1), ..greedy(1) }, false),
        (SamplingParameters { top_p: Some(1.1), ..greedy(1) }, false),
        (SamplingParameters { max_tokens: Some(-5), ..greedy(1) }, false),
    ] {
        let answered = world.client.clone().generate(request("x", parameters.clone())).await;
        assert_eq!(answered.is_ok(), ok, "{parameters:?}");
    }
    let nothing = GenerateRequest { model: "tiny".to_owned(), ..GenerateRequest::default() };
    assert_eq!(world.client.clone().generate(nothing).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_longer_than_the_context_is_refused_with_both_lengths() {
    let world = World::serving(LIMITS).await;
    let status = world.client.clone().generate(request(&"word ".repeat(400), greedy(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("context of 128"), "{}", status.message());
    let tokens = world.fleet.find("tiny").await.unwrap().loaded.tokenizer.encode(&"word ".repeat(400)).unwrap().len();
    assert!(status.message().contains(&format!("{tokens} tokens")), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_prompt_begins_a_document() {
    let world = World::serving(LIMITS).await;
    let (_, receipt) = whole(&world, request("", greedy(3))).await;
    assert_eq!(receipt.prompt_tokens, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_named_with_those_that_are_served() {
    let world = World::serving(LIMITS).await;
    for name in ["tiny", "deployments/tiny", "models/tiny"] {
        let mut known = request("x", greedy(1));
        known.model = name.to_owned();
        assert_eq!(whole(&world, known).await.1.deployment, "deployments/tiny");
    }
    let mut unknown = request("x", greedy(1));
    unknown.model = "gpt-9".to_owned();
    let status = world.client.clone().generate(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("gpt-9") && status.message().contains("served are: tiny"),
        "{}",
        status.message()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered_with_resource_exhausted() {
    let world = World::serving(Limits { running: 1, waiting: 1, ..LIMITS }).await;
    let many = (0..24).map(|seed| {
        let mut client = world.client.clone();
        async move { client.generate(request("A", SamplingParameters { temperature: Some(2.0), ..seeded(seed) })).await }
    });
    let answered = join_all(many).await;
    let refused: Vec<_> = answered.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty(), "24 requests at once fit into a queue of 1");
    assert!(refused.iter().all(|status| status.code() == Code::ResourceExhausted), "{refused:?}");
    whole(&world, request("A", greedy(1))).await;
}
