import json

import lm_eval
import pytest
import torch
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: answer
metric_list:
  - metric: acc
"""


@pytest.mark.req("V1")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tokenized", [True, False], ids=["token ids", "text"])
def test_lm_evaluation_harness_scores_choices_as_the_model_does(
    server,
    base,
    reference,
    tokenized,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-acme")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    questions = ["Is the fox quick?", "Is it true?", "The weather in Paris:"]
    data = tmp_path / "items.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": 0}) + "\n" for q in questions))
    (tmp_path / "tiny_choice.yaml").write_text(TASK.format(data=data))
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": "base",
            "base_url": f"{server.url}/v1/completions",
            "tokenizer": str(base),
            "tokenizer_backend": "huggingface",
            "tokenized_requests": tokenized,
            "num_concurrent": 1,
        },
        tasks=["tiny_choice"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = results["samples"]["tiny_choice"]
    assert len(samples) == 3
    tokenizer = AutoTokenizer.from_pretrained(base)
    for sample in samples:
        question = sample["doc"]["question"]
        for choice, response in zip((" yes", " no"), sample["filtered_resps"], strict=True):
            expected, greedy = continuation(reference, tokenizer, question, choice)
            assert float(response[0]) == pytest.approx(expected, abs=1e-2)
            assert str(response[1]) == str(greedy)


def continuation(model, tokenizer, context, text):
    """Log-probability of `text` after `context` by the reference, and whether it is greedy."""
    start = len(tokenizer(context)["input_ids"])
    ids = tokenizer(context + text)["input_ids"]
    with torch.inference_mode(), model.disable_adapter():
        logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    rows = logprobs[start - 1 : -1]
    chosen = torch.tensor(ids[start:])
    total = float(rows.gather(1, chosen[:, None]).sum())
    return total, bool((rows.argmax(-1) == chosen).all())


WRITING = """
task: tiny_writing
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["Q:"]
  max_gen_toks: 6
metric_list:
  - metric: exact_match
"""


@pytest.mark.req("V1")
@pytest.mark.filterwarnings("ignore")
def test_lm_evaluation_harness_has_its_chats_answered_as_any_client_has(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-acme")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    turns = {
        question: [{"role": "user", "content": question}]
        for question in ("Is the fox quick?", "What is the weather in Paris?")
    }
    expected = {
        question: server.client()
        .chat.completions.create(
            model="base", messages=messages, max_tokens=6, temperature=0, stop=["Q:"]
        )
        .choices[0]
        .message.content
        for question, messages in turns.items()
    }
    right, wrong = turns
    rows = [
        {"question": right, "answer": expected[right]},
        {"question": wrong, "answer": "what no tiny model says"},
    ]
    data = tmp_path / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny_writing.yaml").write_text(WRITING.format(data=data))
    results = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": "base", "base_url": f"{server.url}/v1/chat/completions"},
        tasks=["tiny_writing"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = results["samples"]["tiny_writing"]
    assert {s["doc"]["question"]: s["resps"][0][0] for s in samples} == expected
    assert results["results"]["tiny_writing"]["exact_match,none"] == 0.5
