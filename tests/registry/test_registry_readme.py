"""The README beside the weights is a Hugging Face model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from contracts.job import BaseModelRef
from contracts.measure import Comparison, Interval
from services.registry.adapters.tokenizers import TokenizerFolder
from services.registry.readme import delta
from tests.registry.registry_office import Office


def _comparison(baseline: float, candidate: float, low: float, high: float) -> Comparison:
    return Comparison(
        metric="MMLU",
        baseline=baseline,
        candidate=candidate,
        difference=candidate - baseline,
        interval=Interval(low=low, high=high),
        n=150,
    )


@pytest.mark.req("R3")
@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            _comparison(0.0, 0.613, 0.533, 0.693),
            "+61.3 points (0.0 → 61.3 %, 95 % CI +53.3 to +69.3, n = 150)",
        ),
        (
            _comparison(0.662, 0.658, -0.02, 0.012),
            "−0.4 points (66.2 → 65.8 %, 95 % CI −2.0 to +1.2, n = 150)",
        ),
        (
            _comparison(0.5, 0.49999, -0.01, 0.01),
            "+0.0 points (50.0 → 50.0 %, 95 % CI −1.0 to +1.0, n = 150)",
        ),
    ],
    ids=["gain", "loss", "no change"],
)
def test_a_delta_names_both_values_the_interval_and_the_sample(row: Comparison, text: str) -> None:
    assert delta(row) == text


@pytest.mark.req("R6")
def test_the_front_matter_is_what_hugging_face_reads(office: Office, tmp_path: Path) -> None:
    office.promoted(tmp_path / "bundle")
    text = (tmp_path / "bundle" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    read = yaml.safe_load(front)
    assert read["base_model"] == "SmolLM2-135M-Instruct"
    assert (read["library_name"], read["license"]) == ("peft", "apache-2.0")
    assert {"lora", "tool_calls"} <= set(read["tags"])
    result = read["model-index"][0]["results"][0]["metrics"][0]
    assert (result["type"], result["value"]) == ("task_success", 0.613)
    assert "task_success (G3): +61.3 points (0.0 → 61.3 %" in body
    assert "sluice_basics (G5): −0.4 points (66.2 → 65.8 %" in body
    assert body.count("| passed |") == 5


@pytest.mark.req("R6")
def test_the_hub_library_parses_the_card(office: Office, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the models extra is not installed")
    office.promoted(tmp_path / "bundle")
    card = hub.ModelCard.load(tmp_path / "bundle" / "README.md")
    assert card.data.base_model == "SmolLM2-135M-Instruct"
    assert card.data.eval_results[0].metric_value == 0.613


def test_special_tokens_are_read_in_order_of_their_ids(tmp_path: Path) -> None:
    added = [
        {"id": 2, "content": "<|im_end|>", "special": True},
        {"id": 1, "content": "<|im_start|>", "special": True},
        {"id": 3, "content": "word", "special": False},
    ]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    reader = TokenizerFolder(tmp_path)
    assert reader.special_tokens(BaseModelRef(model="tiny")) == ("<|im_start|>", "<|im_end|>")
    assert reader.special_tokens(BaseModelRef(model="absent")) == ()
