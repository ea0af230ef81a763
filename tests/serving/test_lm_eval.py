import json

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from tests.serving.test_http import server, shared_server  # noqa: F401 - fixtures

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" yes", " no"]
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
    monkeypatch,  # noqa: F811
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
    for sample in samples:
        for response in sample["filtered_resps"]:
            assert response[0] < 0
    assert results["results"]["tiny_choice"]["acc,none"] in (0, 1 / 3, 2 / 3, 1)
