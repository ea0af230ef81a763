"""The laws of a stage's window."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollout.stage import Window, percentile, upper_p95, window_of
from tests.rollout.traffic import ADAPTER, HEALTHY, canary_traffic, outcome, shadow_traffic

ARMS = st.sampled_from(["stable", "canary", "shadow"])
SOME = st.lists(
    st.tuples(st.integers(0, 15), ARMS, st.sampled_from([ADAPTER, "Base-other-v2", "base"])),
    max_size=60,
)


def built(drawn):
    import random

    return [
        outcome(f"r{number}", arm, HEALTHY, random.Random(number)).model_copy(
            update={"model": model}
        )
        for number, arm, model in drawn
    ]


@pytest.mark.req("G9")
@given(SOME)
def test_an_outcome_counts_once_however_often_it_is_delivered(drawn) -> None:
    outcomes = built(drawn)
    once = window_of(outcomes, stage="canary", adapter_id=ADAPTER)
    again = window_of(outcomes + outcomes, stage="canary", adapter_id=ADAPTER)
    assert once == again


@pytest.mark.req("G9")
@given(SOME)
def test_only_this_adapter_and_the_stable_arm_count(drawn) -> None:
    outcomes = built(drawn)
    window = window_of(outcomes, stage="canary", adapter_id=ADAPTER)
    seen = {o.request_id for o in outcomes if o.arm == "canary" and o.model == ADAPTER}
    stable = {o.request_id for o in outcomes if o.arm == "stable"}
    assert (window.candidate.n, window.stable.n) == (len(seen), len(stable))


@given(SOME)
def test_folding_in_two_parts_equals_folding_at_once(drawn) -> None:
    outcomes = built(drawn)
    whole = window_of(outcomes, stage="shadow", adapter_id=ADAPTER)
    parts = window_of(outcomes[: len(outcomes) // 2], stage="shadow", adapter_id=ADAPTER)
    for item in outcomes[len(outcomes) // 2 :]:
        parts.add(item)
    assert whole == parts


@given(SOME, st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_the_order_of_arrival(drawn, rng) -> None:
    outcomes = {(o.request_id, o.arm): o for o in built(drawn)}
    shuffled = list(outcomes.values())
    rng.shuffle(shuffled)
    a = window_of(outcomes.values(), stage="shadow", adapter_id=ADAPTER)
    b = window_of(shuffled, stage="shadow", adapter_id=ADAPTER)
    assert (a.candidate, a.stable, a.pairs, a.mirrored) == (
        b.candidate,
        b.stable,
        b.pairs,
        b.mirrored,
    )


@pytest.mark.req("G8")
def test_shadow_collects_pairs_and_a_canary_collects_candidates() -> None:
    shadow = window_of(islice(shadow_traffic(HEALTHY), 40), stage="shadow", adapter_id=ADAPTER)
    assert (shadow.outcomes, shadow.pairs.n) == (20, 20)
    canary = window_of(islice(canary_traffic(HEALTHY), 40), stage="canary", adapter_id=ADAPTER)
    assert canary.outcomes == canary.candidate.n
    assert canary.candidate.n + canary.stable.n == 40


def test_a_reference_holds_stable_outcomes_only() -> None:
    window = Window(stage="canary", adapter_id=ADAPTER)
    for item in islice(canary_traffic(HEALTHY), 40):
        window.add_reference(item)
    assert window.candidate.n == 0
    assert window.stable.n > 0


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=80), st.floats(0, 100))
def test_percentiles_agree_with_numpy(values, q) -> None:
    assert percentile(sorted(values), q) == pytest.approx(float(np.percentile(values, q)))


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=400))
def test_the_upper_bound_is_an_observed_value_at_or_above_the_p95(values) -> None:
    ascending = sorted(values)
    assert upper_p95(ascending) in ascending
    assert upper_p95(ascending) >= percentile(ascending, 95)
