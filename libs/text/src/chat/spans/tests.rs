use super::*;

/// SmolLM2's template, as its checkpoints have it.
pub(crate) const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Llama 3's, which trims and begins with a token of its own.
const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/// ChatML with marks, written over lines as templates are.
const MARKED: &str = "{%- for message in messages %}\n    {%- if message.role == 'assistant' %}\n        {{- '<|im_start|>assistant\\n' }}\n        \
    {%- generation %}\n        {{- message.content + '<|im_end|>' }}\n        {%- endgeneration %}\n        {{- '\\n' }}\n    {%- else %}\n        \
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}";

fn conversation() -> Vec<Message> {
    [("user", "Hi"), ("assistant", " Hello. "), ("user", "Bye\n"), ("assistant", "Ünd 🙂")]
        .map(|(role, content)| Message::new(role, content))
        .to_vec()
}

fn said(source: &str, messages: &[Message]) -> Result<Vec<String>, Error> {
    let template = ChatTemplate::parse("t", source)?;
    let rendered = template.render_spans(messages, "<s>", "</s>")?;
    assert_eq!(rendered.text, template.render(messages, false, "<s>", "</s>")?, "marks are not seen");
    Ok(rendered.assistant.into_iter().map(|span| rendered.text[span].to_owned()).collect())
}

#[test]
fn a_template_without_marks_lets_the_assistant_say_what_follows_its_generation_prompt() {
    let expected = [" Hello. <|im_end|>\n", "Ünd 🙂<|im_end|>\n"];
    assert_eq!(said(SMOLLM2, &conversation()).unwrap(), expected);
    // As `return_assistant_tokens_mask` gives it with TRL's training template for Llama 3.
    assert_eq!(said(LLAMA3, &conversation()).unwrap(), ["Hello.<|eot_id|>", "Ünd 🙂<|eot_id|>"]);
    assert_eq!(said(crate::PLAIN_TEMPLATE, &conversation()).unwrap(), [" Hello. \n\n", "Ünd 🙂\n\n"]);
    assert_eq!(said(SMOLLM2, &conversation()[..1]).unwrap(), Vec::<String>::new());
}

#[test]
fn smollm2s_default_system_message_stands_first() {
    // Expected text: transformers' apply_chat_template on the same template and messages.
    let template = ChatTemplate::parse("t", SMOLLM2).unwrap();
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(template.render(&conversation()[..1], true, "", "").unwrap(), expected);
}

#[test]
fn a_template_with_marks_says_itself_what_the_assistant_says() {
    assert_eq!(said(MARKED, &conversation()).unwrap(), [" Hello. <|im_end|>", "Ünd 🙂<|im_end|>"]);
    let forged = [Message::new("user", format!("a{OPEN}b")), Message::new("assistant", "c")];
    assert!(said(MARKED, &forged).unwrap_err().to_string().contains("messages[0] holds U+FDD0"));
    // Without marks the same characters are of no meaning.
    assert_eq!(said(SMOLLM2, &forged).unwrap(), ["c<|im_end|>\n"]);
}

#[test]
fn thoughts_of_the_last_answer_are_learned_in_all() {
    // As Qwen 3's template does it.
    let thoughts = "{% set ns = namespace(last_query_index=messages|length - 2) %}{% for m in messages %}{{ '[' + m.role + ']' }}\
        {% if m.role == 'assistant' and loop.index0 > ns.last_query_index %}{{ '<think></think>' }}{% endif %}{{ m.content }}{% endfor %}\
        {% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
    let template = ChatTemplate::parse("t", thoughts).unwrap();
    let rendered = template.render_spans(&conversation(), "", "").unwrap();
    let said: Vec<&str> = rendered.assistant.iter().map(|span| &rendered.text[span.clone()]).collect();
    assert_eq!(said, ["<think></think> Hello. ", "<think></think>Ünd 🙂"]);
    let served = template.render(&conversation(), false, "", "").unwrap();
    assert_eq!(served.matches("<think>").count(), 1, "{served}");
}

#[test]
fn a_token_that_closes_every_conversation_is_said_where_it_stands() {
    let closes = "{% for m in messages %}{{ '|' + m.role + '|' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '|assistant|' }}\
        {% else %}{{ eos_token }}{% endif %}";
    assert_eq!(said(closes, &conversation()).unwrap(), [" Hello. \n", "Ünd 🙂\n</s>"]);
}

#[test]
fn a_template_that_hides_what_the_assistant_says_is_a_mismatch() {
    // The last answer is written with thoughts, earlier ones without.
    let thoughts = "{% for m in messages %}{{ '[' + m.role + ']' }}{% if loop.last %}{{ '<think></think>' }}{% endif %}{{ m.content }}{% endfor %}\
        {% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
    let error = said(thoughts, &conversation()).unwrap_err().to_string();
    assert!(error.starts_with("template mismatch: chat template t ") && error.contains("messages[1]"), "{error}");
    let opens_otherwise =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}";
    let error = said(opens_otherwise, &conversation()[..2]).unwrap_err().to_string();
    assert!(error.contains("messages[1]") && error.contains("generation prompt"), "{error}");
    let trims = "{% set all %}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{% endset %}{{ all | trim }}";
    let error = said(trims, &[Message::new("assistant", " x ")]).unwrap_err().to_string();
    assert!(error.contains("another text"), "{error}");
    let unclosed = "{% generation %}{{ messages[0].content }}";
    assert!(said(unclosed, &conversation()).unwrap_err().to_string().contains("template mismatch"));
}
