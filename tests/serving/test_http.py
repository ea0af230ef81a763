import json

import openai
import pytest

from services.serving.directory import Directory
from services.serving.http.app import create_app
from shared.errors import TransientError
from tests.serving.live_server import KEYS, Outcomes

ADAPTER = "tiny-weather-v1"
TOOL = {
    "type": "function",
    "function": {
        "name": "switch",
        "description": "turn it",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}


HELLO = [{"role": "user", "content": "What is the weather?"}]


@pytest.mark.req("V1")
def test_chat_answers_the_openai_client_with_usage_and_logprobs(server):
    answer = server.client().chat.completions.create(
        model="base", messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=2
    )
    assert answer.usage.completion_tokens <= 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    content = answer.choices[0].logprobs.content
    assert all(item.top_logprobs[0].logprob == item.logprob for item in content)
    assert len(content[0].top_logprobs) == 2


@pytest.mark.req("V1")
def test_a_stream_says_what_the_whole_answer_says(server):
    ask = {"model": "base", "messages": HELLO, "max_tokens": 20, "temperature": 0}
    whole = server.client().chat.completions.create(**ask)
    chunks = list(
        server.client().chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == (
        whole.choices[0].finish_reason
    )


@pytest.mark.req("V7")
def test_a_required_tool_call_is_a_tool_call_and_keeps_its_text(server):
    answer = server.client().chat.completions.create(
        model="base", messages=HELLO, tools=[TOOL], tool_choice="required", max_tokens=100, seed=1
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "switch"
    assert isinstance(json.loads(call.function.arguments)["on"], bool)
    assert json.loads(answer.choices[0].message.content)["name"] == "switch"
    assert answer.choices[0].finish_reason == "tool_calls"
    (outcome,) = server.wait_outcomes(1)
    assert outcome.schema_valid is True
    assert outcome.task_success is True


@pytest.mark.req("V7")
def test_a_response_format_constrains_the_answer(server):
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = server.client().chat.completions.create(
        model="base",
        messages=HELLO,
        max_tokens=50,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content)["n"] in (1, 2)


@pytest.mark.req("V7")
@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({"regex": "[ab]{3}"}, lambda text: len(text) == 3 and set(text) <= {"a", "b"}),
        ({"choice": ["yes.", "no"]}, lambda text: text in ("yes.", "no")),
        ({"grammar": 'start: "<" ("x" | "y") ">"'}, lambda text: text in ("<x>", "<y>")),
        ({"json": {"enum": [1, 2]}}, lambda text: text in ("1", "2")),
    ],
    ids=["regex", "choice", "grammar", "json"],
)
def test_structured_outputs_hold_the_answer_to_what_was_asked(server, wanted, holds):
    chat = server.client().chat.completions.create(
        model="base", messages=HELLO, max_tokens=30, extra_body={"structured_outputs": wanted}
    )
    assert holds(chat.choices[0].message.content)
    text = server.client().completions.create(
        model="base", prompt="yes", max_tokens=30, extra_body={"structured_outputs": wanted}
    )
    assert holds(text.choices[0].text)


@pytest.mark.parametrize(
    "wanted",
    [{"regex": "("}, {"grammar": "nonsense"}, {}, {"regex": "a", "choice": ["b"]}],
    ids=str,
)
def test_structured_outputs_that_make_no_sense_are_refused(server, wanted):
    with pytest.raises(openai.BadRequestError):
        server.client().chat.completions.create(
            model="base", messages=HELLO, extra_body={"structured_outputs": wanted}
        )


@pytest.mark.req("V1")
def test_an_answer_goes_on_from_the_beginning_it_was_given(server):
    def answer(messages, **more):
        return server.client().chat.completions.create(
            model="base", messages=messages, max_tokens=6, temperature=0, extra_body=more
        )

    begun = [*HELLO, {"role": "assistant", "content": "It is"}]
    continued = answer(begun, continue_final_message=True)
    assert continued.choices[0].message.content != answer(HELLO).choices[0].message.content
    assert continued.usage.prompt_tokens > answer(HELLO).usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="assistant"):
        answer(HELLO, continue_final_message=True)


@pytest.mark.req("V1")
def test_n_answers_have_seeds_of_their_own_and_repeat(server):
    ask = {"model": "base", "messages": HELLO, "max_tokens": 8, "n": 4, "seed": 5}
    first = server.client().chat.completions.create(**ask)
    again = server.client().chat.completions.create(**ask)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2, 3]
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in again.choices]
    prompts = server.client().completions.create(
        model="base", prompt=["yes", "no"], n=2, max_tokens=1
    )
    assert len(prompts.choices) == 4
    with pytest.raises(openai.BadRequestError, match="stream"):
        server.client().chat.completions.create(**ask, stream=True)


@pytest.mark.req("V1")
def test_biases_and_penalties_change_what_is_drawn(server):
    def tokens(**options):
        answer = server.client().completions.create(
            model="base", prompt=[5, 6, 7], max_tokens=6, temperature=0, logprobs=0, **options
        )
        return answer.choices[0].logprobs.tokens

    (favoured,) = set(tokens(logit_bias={"9": 100}, extra_body={"ignore_eos": True}))
    assert favoured not in tokens(logit_bias={"9": -100})
    penalized = tokens(logit_bias={"9": 50}, frequency_penalty=2, extra_body={"ignore_eos": True})
    assert penalized[0] == favoured
    with pytest.raises(openai.BadRequestError, match="token ids"):
        tokens(logit_bias={"123456789": 1})


def test_free_text_with_tools_is_a_schema_failure(server):
    server.client().chat.completions.create(
        model="base", messages=HELLO, tools=[TOOL], max_tokens=4, temperature=0
    )
    (outcome,) = server.wait_outcomes(1)
    assert outcome.schema_valid is False
    assert outcome.task_success is False


@pytest.mark.req("V1")
@pytest.mark.parametrize("prompt", ["yes no", ["yes", "no true"], [5, 6, 7], [[5, 6], [7, 8, 9]]])
def test_completions_take_every_kind_of_prompt_and_echo_its_logprobs(server, prompt):
    answer = server.client().completions.create(
        model="base", prompt=prompt, max_tokens=0, echo=True, logprobs=1
    )
    many = isinstance(prompt, list) and not isinstance(prompt[0], int)
    assert len(answer.choices) == (len(prompt) if many else 1)
    for choice in answer.choices:
        assert choice.logprobs.token_logprobs[0] is None
        assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
        assert "".join(choice.logprobs.tokens) == choice.text


@pytest.mark.req("G2")
def test_a_fingerprint_is_the_log_probability_of_the_next_token(server):
    ask = {"model": "base", "messages": HELLO, "token_ids": [5, 9]}
    assert server.post("/v1/internal/fingerprint", **ask).status_code == 403
    print_ = server.post("/v1/internal/fingerprint", key="sk-service.acme", **ask).json()
    answer = server.client().completions.create(
        model="base",
        prompt=[*print_["prompt_token_ids"], 9],
        max_tokens=0,
        echo=True,
        logprobs=0,
    )
    assert print_["logprobs"][1] == pytest.approx(
        answer.choices[0].logprobs.token_logprobs[-1], abs=1e-4
    )


def test_errors_are_openais_and_say_what_mends_them(server):
    too_long = server.post("/v1/completions", model="base", prompt=[5] * 600, max_tokens=1)
    assert too_long.status_code == 400
    assert too_long.json()["error"]["code"] == "context_length_exceeded"
    assert too_long.json()["error"]["mend"]
    assert server.post("/v1/completions", model="base").status_code == 400
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        server.client().chat.completions.create(model="nowhere", messages=HELLO)


def test_an_unknown_model_is_looked_up_once_more_at_the_end_of_the_log(engine):
    from starlette.testclient import TestClient

    directory, looked = Directory(), []

    async def catch_up():
        looked.append(True)
        if len(looked) == 2:
            raise TransientError("the broker is away")
        directory.base_label = "late"

    app = create_app(
        engine=lambda: engine,
        directory=directory,
        keys=KEYS,
        sink=Outcomes(),
        folders=lambda _: None,
        catch_up=catch_up,
    )
    with TestClient(app, headers={"Authorization": "Bearer sk-acme"}) as client:

        def status(model):
            body = {"model": model, "prompt": "hi", "max_tokens": 1}
            return client.post("/v1/completions", json=body).status_code

        assert [status("late"), status("late"), len(looked)] == [200, 200, 1]
        assert [status("nowhere"), status("nowhere")] == [503, 404]


def test_it_is_healthy_only_once_the_model_is_there(engine):
    from starlette.testclient import TestClient

    loaded = []
    app = create_app(
        engine=lambda: loaded[0] if loaded else None,
        directory=Directory(),
        keys=KEYS,
        sink=Outcomes(),
        folders=lambda _: None,
    )
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 503
        loaded.append(engine)
        assert client.get("/healthz").status_code == 200
