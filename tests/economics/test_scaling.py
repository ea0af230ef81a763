"""The scaling law against laws that are known, the U where there is one, and honest distance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from contracts.economics import Pilot
from services.cli.main import app
from shared.economics.scaling import FARTHEST, capacity_gaps, fit, predict
from shared.errors import InvalidInput

EXAMPLE = Path(__file__).parents[2] / "examples" / "economics" / "pilots.yaml"
TRUTH = {"irreducible": 1.7, "a": 400.0, "alpha": 0.34, "b": 410.0, "beta": 0.28}


def law(n: float, d: float) -> float:
    return 1.7 + 400 * n**-0.34 + 410 * d**-0.28


def grid(noise: tuple[float, ...] = (0.0,)) -> list[Pilot]:
    sizes, tokens = (2e7, 5e7, 1.4e8, 4e8), (1e8, 4e8, 1.6e9, 6e9)
    cells = [(n, d) for n in sizes for d in tokens]
    return [
        Pilot(parameters=n, tokens=d, loss=law(n, d) + noise[i % len(noise)])
        for i, (n, d) in enumerate(cells)
    ]


@pytest.mark.req("E3")
def test_a_known_law_is_recovered_from_its_pilots():
    found = fit(grid())
    for name, value in TRUTH.items():
        assert getattr(found, name).value == pytest.approx(value, rel=0.02), name
    assert max(map(abs, found.residuals)) < 1e-4
    assert found.explained > 0.9999


@pytest.mark.req("E3")
def test_noise_is_shown_as_residuals_and_wider_intervals():
    sure, noisy = fit(grid()), fit(grid((0.02, -0.03, 0.01, -0.02, 0.025)))
    assert noisy.rmse > 0.01
    for name, value in TRUTH.items():
        quiet, wide = getattr(sure, name), getattr(noisy, name)
        assert wide.high - wide.low > quiet.high - quiet.low, name
        assert wide.low <= value <= wide.high, name


@pytest.mark.req("E3")
def test_a_prediction_beyond_twice_the_largest_pilot_says_so():
    near = predict(grid(), parameters=4e8 * FARTHEST, tokens=6e9)
    assert near.notice is None
    assert near.loss.value == pytest.approx(law(8e8, 6e9), rel=1e-3)
    far = predict(grid(), parameters=4e9, tokens=6e9)
    assert far.notice is not None
    assert "10.0 times the largest pilot's" in far.notice


@pytest.mark.req("E3")
def test_too_few_pilots_are_refused_by_what_they_lack():
    few = [p for p in grid() if p.parameters < 1e8]
    with pytest.raises(InvalidInput, match="2 different") as refused:
        fit(few)
    assert [p.where for p in refused.value.problems] == ["pilots.parameters"]


def teachers(*losses: tuple[float, float]) -> list[Pilot]:
    return [Pilot(parameters=6e7, tokens=1e9, teacher_loss=t, loss=loss) for t, loss in losses]


@pytest.mark.req("E3")
@pytest.mark.parametrize(
    ("runs", "shape", "best"),
    [
        pytest.param(((2.9, 3.3), (2.4, 3.1), (1.9, 3.4)), "u_shaped", 2.4, id="a U"),
        pytest.param(
            ((2.9, 3.3), (2.4, 3.1), (1.9, 3.0)), "stronger_is_better", 1.9, id="no U yet"
        ),
        pytest.param(
            ((2.9, 3.11), (2.9, 3.05), (2.4, 3.07), (2.4, 3.12), (1.9, 3.1), (1.9, 3.06)),
            "no_effect",
            None,
            id="noise alone",
        ),
        pytest.param(((2.9, 3.3), (1.9, 3.4)), "unknown", 2.9, id="two teachers"),
    ],
)
def test_the_capacity_gap_is_seen_where_it_is(runs, shape, best):
    (gap,) = capacity_gaps(teachers(*runs))
    assert gap.shape == shape
    assert best is None or gap.best_teacher_loss == best


@pytest.mark.req("E3")
def test_the_command_fits_predicts_and_advises():
    done = CliRunner().invoke(app, ["scaling", str(EXAMPLE), "--json"], env=dict(os.environ))
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert len(said["fit"]["residuals"]) == len(yaml.safe_load(EXAMPLE.read_text())["runs"])
    shapes = {gap["parameters"]: gap["shape"] for gap in said["capacity_gap"]}
    assert shapes[6e7] == "u_shaped"
    assert said["fit"]["rmse"] < 0.02
    assert max(said["fit"]["residuals"]) > 0.1
    assert "extrapolation" in said["prediction"]["notice"]
    text = CliRunner().invoke(app, ["scaling", str(EXAMPLE)], env=dict(os.environ)).stdout
    assert "u shaped" in text
