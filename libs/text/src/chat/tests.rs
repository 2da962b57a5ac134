use super::*;

fn conversation() -> Vec<Message> {
    vec![Message::new("system", "Be brief."), Message::new("user", "Hi <b>&\"there\"</b>")]
}

fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::parse("chat_template.jinja", source)?.render(&conversation(), true, "<s>", "</s>")
}

#[test]
fn the_plain_template_gives_contents_and_blank_lines() {
    let text = ChatTemplate::plain().render(&conversation(), true, "", "<|endoftext|>").unwrap();
    assert_eq!(text, "Be brief.\n\nHi <b>&\"there\"</b>\n\n");
}

#[test]
fn a_chatml_template_opens_and_closes_every_turn() {
    // Expected text: transformers' apply_chat_template on the same template and messages.
    let source = "{{ bos_token }}{% for message in messages %}\n{{'<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n'}}\n\
        {% endfor %}\n{% if add_generation_prompt %}\n{{ '<|im_start|>assistant\n' }}{% endif %}{{ eos_token }}";
    let expected = "<s><|im_start|>system\nBe brief.<|im_end|>\n\n<|im_start|>user\nHi <b>&\"there\"</b><|im_end|>\n\n<|im_start|>assistant\n</s>";
    assert_eq!(render(source).unwrap(), expected);
}

#[test]
fn pythons_methods_and_json_work() {
    let source = "{{ ' x '.strip() }}|{{ 'a,b'.split(',')[1] }}|{{ 'Abc'.startswith('A') }}|{{ messages[0].get('none', 'd') }}|\
        {% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}|{{ messages[0] | tojson }}|{{ 'a b'.title() }}|{{ 'xax'.strip('x') }}|{{ 'é<' | tojson }}";
    let expected =
        "x|b|True|d|role=system;content=Be brief.;|{\"role\": \"system\", \"content\": \"Be brief.\"}|A B|a|\"é<\"";
    assert_eq!(render(source).unwrap(), expected);
}

#[test]
fn what_python_says_of_nothing_is_said() {
    let source =
        "{{ messages[0].get('none') is none }}|{{ tools is iterable }}|{{ tools is none }}|{{ messages is iterable }}";
    assert_eq!(render(source).unwrap(), "True|False|True|True");
}

#[test]
fn generation_marks_change_nothing() {
    let source = "{% for m in messages %}{% generation %}{{ m.content }}{%- endgeneration -%} {% endfor %}";
    assert_eq!(render(source).unwrap(), "Be brief.Hi <b>&\"there\"</b>");
}

#[test]
fn a_templates_refusal_is_told_as_it_said() {
    let error = render("{{ raise_exception('Only one turn is allowed') }}").unwrap_err();
    assert_eq!(error.to_string(), "chat template chat_template.jinja refuses the messages: Only one turn is allowed");
}

#[test]
fn a_broken_template_is_named_with_its_line() {
    let error = render("line\n{% if %}").unwrap_err().to_string();
    assert!(error.starts_with("chat template chat_template.jinja: ") && error.contains("line 2"), "{error}");
    let error = render("{{ messages.nope() }}").unwrap_err().to_string();
    assert!(error.starts_with("chat template chat_template.jinja: "), "{error}");
    assert!(render(&" ".repeat(MAX_TEMPLATE_BYTES + 1)).unwrap_err().to_string().contains("allowed"));
}

#[test]
fn a_template_that_would_run_for_ever_is_stopped() {
    let source = "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}";
    assert!(render(source).unwrap_err().to_string().contains("fuel"));
}
