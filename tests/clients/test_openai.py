"""The `openai` package, as any program uses it."""

import asyncio

import openai
import pytest

PROMPT = "The state of our Union is"
CHAT = [{"role": "user", "content": PROMPT}]


def test_models_are_listed_and_read(client, model):
    assert model in [listed.id for listed in client.models.list()]
    read = client.models.retrieve(model)
    assert (read.id, read.object) == (model, "model")


def test_a_completion_has_text_usage_and_a_reason(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, seed=1)
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_same_seed_writes_the_same_text(client, model):
    def write(seed):
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=16, temperature=1, seed=seed).choices[0].text

    assert write(7) == write(7)
    assert len({write(seed) for seed in range(5)}) > 1


def test_temperature_zero_takes_the_likeliest_tokens(client, model):
    def write(seed):
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0, seed=seed).choices[0].text

    assert write(1) == write(2)


def test_a_streamed_completion_is_the_same_text_in_pieces(client, model):
    wanted = dict(model=model, prompt=PROMPT, max_tokens=16, seed=3)
    whole = client.completions.create(**wanted).choices[0]
    pieces, reason = [], None
    for chunk in client.completions.create(stream=True, **wanted):
        for choice in chunk.choices:
            pieces.append(choice.text)
            reason = choice.finish_reason or reason
    assert "".join(pieces) == whole.text
    assert reason == whole.finish_reason
    assert len(pieces) > 1


def test_a_conversation_is_answered(client, model):
    answer = client.chat.completions.create(model=model, messages=CHAT, max_tokens=12, seed=1)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 12


def test_a_streamed_conversation_is_the_same_text_in_pieces(client, model):
    wanted = dict(model=model, messages=CHAT, max_tokens=16, seed=3)
    whole = client.chat.completions.create(**wanted).choices[0]
    pieces, reason, role = [], None, None
    for chunk in client.chat.completions.create(stream=True, **wanted):
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            role = choice.delta.role or role
            reason = choice.finish_reason or reason
    assert "".join(pieces) == whole.message.content
    assert (role, reason) == ("assistant", whole.finish_reason)


def test_a_stream_ends_with_its_usage_where_asked(client, model):
    stream = client.chat.completions.create(
        model=model, messages=CHAT, max_tokens=8, seed=3, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage.completion_tokens <= 8
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_a_stop_string_ends_the_text_before_itself(client, model):
    free = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, seed=5).choices[0].text
    stop = next(word for word in free.split() if word)
    bound = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, seed=5, stop=[stop]).choices[0]
    assert stop not in bound.text
    assert bound.finish_reason == "stop"
    assert free.startswith(bound.text)


def test_eight_at_once_are_all_answered(base_url, client, model):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=base_url, api_key=client.api_key, max_retries=0, timeout=120) as many:
            calls = [many.completions.create(model=model, prompt=PROMPT, max_tokens=8, seed=seed) for seed in range(8)]
            return await asyncio.gather(*calls)

    together = [answer.choices[0].text for answer in asyncio.run(all_of_them())]
    alone = [client.completions.create(model=model, prompt=PROMPT, max_tokens=8, seed=seed).choices[0].text for seed in range(8)]
    assert together == alone


def test_a_stream_that_is_left_does_not_disturb_the_next(client, model):
    for _ in range(3):
        stream = client.completions.create(model=model, prompt=PROMPT, max_tokens=64, stream=True)
        next(iter(stream))
        stream.close()
    assert client.completions.create(model=model, prompt=PROMPT, max_tokens=4).choices


@pytest.mark.parametrize(
    "field, value",
    [("temperature", 9), ("temperature", -1), ("top_p", 0), ("top_p", 1.5), ("max_tokens", 0), ("max_tokens", -5), ("stop", [""])],
)
def test_a_wrong_parameter_is_named(client, model, field, value):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt=PROMPT, **{field: value})
    assert error.value.type == "invalid_request_error"
    assert error.value.param is not None and field in error.value.param
    assert field in error.value.message


def test_an_unknown_model_is_not_found(client):
    for call in (
        lambda: client.completions.create(model="no-such-model", prompt=PROMPT),
        lambda: client.chat.completions.create(model="no-such-model", messages=CHAT),
        lambda: client.completions.create(model="no-such-model", prompt=PROMPT, stream=True),
        lambda: client.models.retrieve("no-such-model"),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            call()
        assert "no-such-model" in error.value.message
        assert error.value.code == "model_not_found"


def test_a_prompt_longer_than_the_context_is_refused(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt="fellow citizens " * 5000)
    assert error.value.param == "prompt"
    assert "context" in error.value.message


def test_an_unknown_role_is_refused(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=[{"role": "wizard", "content": "hello"}])
    assert "role" in error.value.message


def test_feedback_is_accepted_for_an_answer(client, model):
    answer = client.chat.completions.create(model=model, messages=CHAT, max_tokens=8, seed=2, store=True)
    body = {"answer": answer.id, "rating": "up", "correction": "It is strong.", "consent": True}
    stored = client.post("/feedback", cast_to=object, body=body)
    assert stored["object"] == "feedback" and stored["id"]
    assert answer.id.endswith(stored["answer"])
    with pytest.raises(openai.NotFoundError):
        client.post("/feedback", cast_to=object, body={"answer": "no-such-answer", "rating": "up", "consent": True})
