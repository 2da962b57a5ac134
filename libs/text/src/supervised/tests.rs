use serde_json::json;

use super::*;
use crate::ChatTemplate;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const TEXT: &str = "user assistant system Hello there, how are you? The sky is blue and green.\n";

struct Model {
    tokenizer: Tokenizer,
    chat: ChatFormat,
}

impl Model {
    fn new() -> Self {
        let tokenizer =
            Tokenizer::train_bpe([TEXT, TEXT], 330, &["<|endoftext|>", "<|im_start|>", "<|im_end|>"]).unwrap();
        let template = Some(ChatTemplate::parse("t", CHATML).unwrap());
        Self { tokenizer, chat: ChatFormat { template, eos_token: "<|im_end|>".to_owned(), ..ChatFormat::default() } }
    }

    fn supervisor(&self, max_length: usize) -> Supervisor<'_> {
        Supervisor { tokenizer: &self.tokenizer, chat: &self.chat, max_length, learn_prompts: false }
    }

    /// What of a sequence is learned; places side by side are joined.
    fn learned(&self, sequence: &Supervised) -> Vec<String> {
        assert_eq!(sequence.inputs.len(), sequence.targets.len());
        for (place, target) in sequence.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
            assert!(sequence.inputs.get(place + 1).is_none_or(|next| next == target), "a target is the next input");
        }
        let texts = sequence.targets.split(|target| *target == IGNORED).filter(|ids| !ids.is_empty());
        let name = |id: &i64| {
            let id = u32::try_from(*id).unwrap();
            if self.tokenizer.is_special(id) {
                self.tokenizer.token(id).unwrap()
            } else {
                self.tokenizer.decode(&[id]).unwrap()
            }
        };
        texts.map(|ids| ids.iter().map(name).collect()).collect()
    }
}

fn lesson(row: serde_json::Value) -> Lesson {
    serde_json::from_value(row).unwrap()
}

fn turn(role: &str, content: &str) -> serde_json::Value {
    json!({"role": role, "content": content})
}

#[test]
fn of_a_conversation_the_assistants_turns_are_learned_with_their_ends() {
    let model = Model::new();
    let row = json!({"messages": [turn("system", "s"), turn("user", "Hello"), turn("assistant", "The sky"), turn("user", "?"), turn("assistant", " is blue")]});
    let sequence = model.supervisor(1000).sequence(&lesson(row.clone())).unwrap();
    assert_eq!(model.learned(&sequence), ["The sky<|im_end|>\n", " is blue<|im_end|>\n"]);
    assert_eq!(sequence.learned(), sequence.targets.iter().filter(|target| **target >= 0).count());
    let all = Supervisor { learn_prompts: true, ..model.supervisor(1000) };
    let all = all.sequence(&lesson(row)).unwrap();
    assert_eq!(all.inputs, sequence.inputs);
    assert_eq!(all.learned(), all.inputs.len());
}

#[test]
fn of_a_prompt_and_its_completion_the_completion_is_learned() {
    let model = Model::new();
    let turns = json!({"prompt": [turn("user", "Hello")], "completion": [turn("assistant", "The sky")]});
    let conversation = json!({"messages": [turn("user", "Hello"), turn("assistant", "The sky")]});
    let turns = model.supervisor(1000).sequence(&lesson(turns)).unwrap();
    assert_eq!(turns, model.supervisor(1000).sequence(&lesson(conversation)).unwrap());
    let text = lesson(json!({"prompt": "The sky is", "completion": " blue"}));
    let sequence = model.supervisor(1000).sequence(&text).unwrap();
    assert_eq!(model.learned(&sequence), [" blue<|im_end|>"]);
    // What looks like a token in plain text is plain text.
    let forged = lesson(json!({"prompt": "The sky is", "completion": "<|im_end|>"}));
    assert!(model.supervisor(1000).sequence(&forged).unwrap().learned() > 2);
}

#[test]
fn a_preference_gives_two_sequences_and_a_judged_answer_one() {
    let model = Model::new();
    let row = json!({"prompt": [turn("user", "Hello")], "chosen": [turn("assistant", "blue")], "rejected": [turn("assistant", "green")]});
    let [chosen, rejected] = model.supervisor(1000).pair(&lesson(row)).unwrap();
    assert_eq!(model.learned(&chosen), ["blue<|im_end|>\n"]);
    assert_eq!(model.learned(&rejected), ["green<|im_end|>\n"]);
    let row = lesson(json!({"prompt": "The sky is", "completion": " green", "label": false}));
    let (sequence, good) = model.supervisor(1000).judged(&row).unwrap();
    assert_eq!((model.learned(&sequence), good), (vec![" green<|im_end|>".to_owned()], false));
    let prompt = lesson(json!({"prompt": [turn("user", "Hello")], "answer": "4"}));
    let Lesson::Prompt { prompt, answer } = &prompt else { panic!("{prompt:?}") };
    assert_eq!(answer.as_deref(), Some("4"));
    let ids = model.supervisor(1000).prompt(prompt).unwrap();
    assert_eq!(model.tokenizer.token(ids[0]).as_deref(), Some("<|im_start|>"));
}

#[test]
fn a_row_that_is_too_long_loses_its_end_but_never_its_whole_answer() {
    let model = Model::new();
    let row = lesson(json!({"prompt": [turn("user", "Hello")], "completion": [turn("assistant", "The sky is blue")]}));
    let whole = model.supervisor(1000).sequence(&row).unwrap();
    let first = whole.targets.iter().position(|target| *target != IGNORED).unwrap();
    // The last target counts as a token too.
    let cut = model.supervisor(first + 2).sequence(&row).unwrap();
    assert_eq!((cut.inputs.as_slice(), cut.learned()), (&whole.inputs[..=first], 1));
    for length in [0, 1, first + 1] {
        let error = model.supervisor(length).sequence(&row).unwrap_err().to_string();
        assert!(error.contains("nothing would be learned") && error.contains("raise the length"), "{error}");
    }
}

#[test]
fn an_answer_can_lose_its_end_and_keep_its_prompt() {
    let model = Model::new();
    let row = lesson(json!({"prompt": [turn("user", "Hello")], "completion": [turn("assistant", "The sky is blue")]}));
    let whole = model.supervisor(1000).sequence(&row).unwrap();
    let prompt = whole.targets.iter().take_while(|target| **target == IGNORED).count();
    for (most, learned) in [(0, 1), (1, 1), (2, 2), (usize::MAX, whole.learned())] {
        let cut = whole.clone().first(most);
        assert_eq!((cut.learned(), cut.inputs.len()), (learned, prompt + learned));
        assert!(whole.inputs.starts_with(&cut.inputs) && whole.targets.starts_with(&cut.targets));
    }
}

#[test]
fn what_cannot_be_learned_is_said() {
    let model = Model::new();
    let supervisor = model.supervisor(1000);
    let silent = lesson(json!({"messages": [turn("user", "Hello")]}));
    assert!(matches!(supervisor.sequence(&silent), Err(Error::NothingLearned(_))));
    let text = lesson(json!({"prompt": "a", "completion": "b"}));
    let error = supervisor.pair(&text).unwrap_err().to_string();
    assert!(error.contains("a prompt with its completion") && error.contains("preference is wanted"), "{error}");
    assert!(serde_json::from_value::<Lesson>(json!({"messages": [], "extra": 1})).is_err());
    let base = ChatFormat::default();
    let without = Supervisor { chat: &base, ..supervisor };
    assert!(matches!(without.sequence(&silent), Err(Error::NoTemplate)));
    assert!(without.sequence(&text).unwrap().learned() > 0);
    let opens = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}";
    let chat = ChatFormat { template: Some(ChatTemplate::parse("odd", opens).unwrap()), ..ChatFormat::default() };
    let row = lesson(json!({"prompt": [turn("user", "x")], "completion": [turn("assistant", "y")]}));
    let error = Supervisor { chat: &chat, ..supervisor }.sequence(&row).unwrap_err().to_string();
    assert!(error.starts_with("template mismatch: chat template odd"), "{error}");
}

#[test]
fn every_row_that_a_dataset_holds_is_a_lesson() {
    let turns = json!([turn("system", "s"), turn("user", "u")]);
    for row in [
        json!({"messages": [turn("user", "u"), turn("assistant", "a")]}),
        json!({"prompt": turns, "completion": "c"}),
        json!({"prompt": "p", "completion": "c"}),
        json!({"prompt": turns, "chosen": "c", "rejected": "r"}),
        json!({"prompt": "p", "completion": "c", "label": true}),
        json!({"prompt": "p", "answer": 4}),
        json!({"prompt": "p"}),
        json!({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}),
    ] {
        let example = tidemill_dataset::Example::from_json(&row).unwrap();
        let lesson: Lesson = serde_json::from_str(&example.to_json()).unwrap();
        let same = match lesson {
            Lesson::Conversation { .. } => "conversation",
            Lesson::PromptCompletion { .. } => "prompt-completion",
            Lesson::Preference { .. } => "preference",
            Lesson::Judged { .. } => "judged",
            Lesson::Prompt { .. } => "prompt",
        };
        assert_eq!(same, example.row_type().as_str());
    }
}

#[test]
fn a_question_is_what_comes_before_the_answer_whatever_the_type_of_row() {
    let model = Model::new();
    let (supervisor, answer) = (model.supervisor(1000), Some("The sky".to_owned()));
    let asked = |row| supervisor.question(&lesson(row)).unwrap();
    let text = |question: &Question| {
        let names = question.ids.iter().map(|id| match model.tokenizer.is_special(*id) {
            true => model.tokenizer.token(*id).unwrap(),
            false => model.tokenizer.decode(&[*id]).unwrap(),
        });
        names.collect::<String>()
    };
    let plain = asked(json!({"prompt": "Hello ", "answer": "The sky"}));
    assert_eq!((text(&plain).as_str(), &plain.answer), ("Hello ", &answer));
    assert_eq!(plain, asked(json!({"prompt": "Hello ", "completion": "The sky"})));
    assert_eq!(asked(json!({"prompt": "Hello "})).answer, None);

    let turns = asked(json!({"prompt": [turn("user", "Hello")], "completion": [turn("assistant", "The sky")]}));
    let expected = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!((text(&turns).as_str(), &turns.answer), (expected, &answer));
    let messages = json!([turn("user", "Hello"), turn("assistant", "The sky"), turn("user", "?")]);
    assert_eq!(turns, asked(json!({"messages": messages})));

    let refused = |row| supervisor.question(&lesson(row)).unwrap_err().to_string();
    assert!(refused(json!({"messages": [turn("user", "Hello")]})).contains("no turn of the assistant"));
    assert!(refused(json!({"prompt": "", "completion": "x"})).contains("prompt is empty"));
    let preference = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
    assert!(refused(preference).starts_with("the row is a preference"));
}
