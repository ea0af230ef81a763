"""Each weakness of preference tuning stops the run by its name, and nothing else does."""

from __future__ import annotations

import pytest

from services.training.adapters.checkpoints import newest_sealed
from services.training.adapters.methods import method
from services.training.health import RunStopped
from services.training.preference_health import WINDOW, LikelihoodDisplacement, LogitSaturation
from shared.testing.tiny_model import build_tiny_llama
from tests.training.judged import pair, plan


@pytest.mark.req("T3")
def test_chosen_answers_that_win_and_vanish_are_displacement():
    monitor = LikelihoodDisplacement()
    for step in range(1, WINDOW):
        monitor.check(step, log_prob=-50.0, base_log_prob=-20.0, margin=3.0)
    with pytest.raises(RunStopped) as stop:
        monitor.check(WINDOW, log_prob=-50.0, base_log_prob=-20.0, margin=3.0)
    assert stop.value.reason == "likelihood_displacement"
    assert stop.value.mend


@pytest.mark.req("T3")
@pytest.mark.parametrize(
    ("log_prob", "margin"),
    [
        pytest.param(-29.0, 3.0, id="a loss below ten nats"),
        pytest.param(-39.0, 3.0, id="still likelier than the square"),
        pytest.param(-50.0, -1.0, id="the pairs are not even won"),
        pytest.param(-5.0, 9.0, id="likelier than before"),
    ],
)
def test_the_usual_moves_of_chosen_answers_stop_nothing(log_prob, margin):
    monitor = LikelihoodDisplacement()
    for step in range(3 * WINDOW):
        monitor.check(step, log_prob=log_prob, base_log_prob=-20.0, margin=margin)


@pytest.mark.req("T3")
def test_margins_beyond_the_sigmoid_are_saturation_and_one_odd_batch_is_not():
    monitor = LogitSaturation()
    for step in range(1, WINDOW + 1):
        monitor.check(step, 90.0 if step == 5 else 2.0)
    for step in range(WINDOW - 1):
        monitor.check(step, 16.0)
    with pytest.raises(RunStopped) as stop:
        monitor.check(WINDOW, 40.0)
    assert stop.value.reason == "logit_saturation"


@pytest.fixture
def dpo_plan(tmp_path):
    def make(**more):
        return plan(
            build_tiny_llama(tmp_path / "tiny-llama"),
            tmp_path,
            method="dpo",
            train=[pair(i) for i in range(64)],
            validation=[pair(i) for i in range(200, 204)],
            **more,
        )

    return make


@pytest.mark.slow
@pytest.mark.req("T3")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(300)
def test_a_real_run_whose_margins_saturate_stops_and_keeps_its_checkpoint(session, dpo_plan):
    lost = session(dpo_plan(steps=120, checkpoint_every=5, preference={"beta": 8.0}))
    with pytest.raises(RunStopped) as stop:
        method("dpo")(lost)
    assert stop.value.reason == "logit_saturation"
    assert newest_sealed(lost.checkpoints) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(300)
def test_a_real_run_shows_displacement_its_own_and_the_bases_log_probability(
    session, dpo_plan, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        LikelihoodDisplacement, "check", lambda self, step, **numbers: seen.append(numbers)
    )
    method("dpo")(session(dpo_plan(steps=8)))
    first, last = seen[0], seen[-1]
    assert first["log_prob"] == pytest.approx(first["base_log_prob"], rel=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert abs(last["log_prob"] - last["base_log_prob"]) > 0.1


@pytest.fixture
def tilted(tmp_path):
    """A tiny Llama over whose answers `a` and `b` a third, `c`, lies in the direction of `a - b`.

    With h the last hidden state, what raises `a` over `b` raises `c` over both: the displacement of
    Razin et al. (theorem 1), by hand.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_tiny_llama(tmp_path / "tilted")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    a, b, c = (tokenizer(letter)["input_ids"][0] for letter in "abc")
    rows = model.get_output_embeddings().weight.data
    direction = torch.nn.functional.normalize(rows[a] - rows[b], dim=0)
    rows[a], rows[c] = rows[b] + direction, rows[b] + 6 * direction
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.req("T3")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(300)
def test_a_real_run_that_wins_its_pairs_by_a_third_answer_stops_as_displacement(
    session, tilted, tmp_path
):
    rows = [pair(i).model_copy(update={"target": "a", "rejected": "b"}) for i in range(64)]
    lost = session(
        plan(
            tilted,
            tmp_path,
            method="dpo",
            train=rows,
            validation=rows[:4],
            steps=120,
            checkpoint_every=5,
            learning_rate=3e-3,
        )
    )
    with pytest.raises(RunStopped) as stop:
        method("dpo")(lost)
    assert stop.value.reason == "likelihood_displacement"
    last = lost.channel.steps[-1].metrics
    assert last["reward_margin"] > 0
    assert last["chosen_log_prob"] < lost.channel.steps[0].metrics["chosen_log_prob"] - 10
    assert newest_sealed(lost.checkpoints) is not None
