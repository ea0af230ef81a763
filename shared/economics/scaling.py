"""A scaling law over pilot runs, and the capacity gap (E3). Pure.

    L_S(N, D, L_T) = L_inf + A N^-alpha + B D^-beta + phi(L_T, N)

with N the student's parameters, D its distillation tokens and L_T the teacher's loss. Busbridge et
al. (2025, arXiv:2502.08606) fit a broken power law; this additive form is a simplification of it
(ERRATA 8), so residuals and intervals are part of the answer. phi is not fitted but
looked for: the law is that of each size and token count's best teacher, where phi is least, and a
loss with its minimum inside the range of teachers is the U of a capacity gap.

The exponents are searched, the three coefficients solved exactly by least squares without letting
one be negative. Intervals are percentiles of a bootstrap over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls

from contracts.base import Problem
from contracts.economics import Pilot, Pilots
from shared.errors import InvalidInput

FARTHEST = 2.0
"""Times the largest pilot: beyond that a prediction is an extrapolation, and says so."""
RESAMPLES = 200
LEAST_RUNS = 6
_STARTS = ((0.2, 0.2), (0.35, 0.35), (0.5, 0.25), (0.25, 0.5), (0.8, 0.8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its percentile interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The additive law of the pilots."""

    irreducible: Interval
    a: Interval
    alpha: Interval
    b: Interval
    beta: Interval
    residuals: tuple[float, ...]
    """Measured less fitted loss, in the order of the pilots; phi is in those of other teachers."""
    rmse: float
    """Over the runs that were fitted."""
    explained: float
    """R squared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityGap:
    """How the student's loss moves with its teacher's, at one student size."""

    parameters: float
    shape: str
    """`u_shaped`, `stronger_is_better`, `no_effect` or `unknown`."""
    best_teacher_loss: float | None
    """Of the teachers tried, that of the one with the best student."""
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The loss of a student that was not run."""

    loss: Interval
    notice: str | None
    """Set where the target lies beyond `FARTHEST` times the largest pilot."""


def fit(pilots: Sequence[Pilot], *, seed: int = 0) -> Fit:
    """The law of `pilots`. Raises InvalidInput where they cannot tell its parts apart."""
    problems = _identifiable(pilots)
    if problems:
        raise InvalidInput(problems)
    best = _of_best_teachers(pilots)
    n, d, loss = _columns([p for p, fitted in zip(pilots, best, strict=True) if fitted])
    found = _solve(n, d, loss)
    resampled = _bootstrap(n, d, loss, seed)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    e, a, alpha, b, beta = (
        Interval(value=float(v), low=float(lo), high=float(hi))
        for v, lo, hi in zip(found, low, high, strict=True)
    )
    sizes, tokens, losses = _columns(pilots)
    every = losses - _loss(found, sizes, tokens)
    residuals = every[np.array(best)]
    spread = float(((loss - loss.mean()) ** 2).sum())
    return Fit(
        irreducible=e,
        a=a,
        alpha=alpha,
        b=b,
        beta=beta,
        residuals=tuple(float(r) for r in every),
        rmse=float(np.sqrt((residuals**2).mean())),
        explained=1 - float((residuals**2).sum()) / spread if spread else 1.0,
    )


def predict(
    pilots: Sequence[Pilot], *, parameters: float, tokens: float, seed: int = 0
) -> Prediction:
    """The loss of a student of `parameters` on `tokens`, with a notice where it is far away."""
    best = _of_best_teachers(pilots)
    n, d, loss = _columns([p for p, fitted in zip(pilots, best, strict=True) if fitted])
    at = np.array([parameters]), np.array([tokens])
    several = [float(_loss(theta, *at)[0]) for theta in _bootstrap(n, d, loss, seed)]
    low, high = np.percentile(several, [2.5, 97.5])
    value = float(_loss(_solve(n, d, loss), *at)[0])
    beyond = [
        f"{name} {target:.3g} is {target / largest:.1f} times the largest pilot's {largest:.3g}"
        for name, target, largest in (
            ("parameters", parameters, float(n.max())),
            ("tokens", tokens, float(d.max())),
        )
        if target > FARTHEST * largest
    ]
    notice = None
    if beyond:
        notice = f"an extrapolation: {'; '.join(beyond)}. Run a larger pilot before relying on it"
    return Prediction(loss=Interval(value=value, low=float(low), high=float(high)), notice=notice)


def capacity_gaps(pilots: Sequence[Pilot]) -> tuple[CapacityGap, ...]:
    """Per student size, whether a stronger teacher still makes a better student.

    Runs are compared at equal size and tokens only, so that nothing needs a model. The difference
    has to exceed twice the run-to-run noise, taken from repeated runs where there are some.
    """
    noise = _noise(pilots)
    return tuple(
        _gap(size, [p for p in pilots if p.parameters == size], noise)
        for size in sorted({p.parameters for p in pilots})
    )


def _gap(size: float, runs: Sequence[Pilot], noise: float) -> CapacityGap:
    tokens = max(
        {p.tokens for p in runs},
        key=lambda t: (len({p.teacher_loss for p in runs if p.tokens == t}), t),
    )
    at_once = [p for p in runs if p.tokens == tokens and p.teacher_loss is not None]
    by_teacher: dict[float, list[float]] = {}
    for p in sorted(at_once, key=lambda p: -(p.teacher_loss or 0)):
        by_teacher.setdefault(p.teacher_loss or 0, []).append(p.loss)
    means = {teacher: float(np.mean(losses)) for teacher, losses in by_teacher.items()}
    if len(means) < 3:
        return CapacityGap(
            parameters=size,
            shape="unknown",
            best_teacher_loss=min(means, key=lambda t: means[t]) if means else None,
            said=f"{len(means)} teachers at {tokens:.3g} tokens; a U needs three to be seen",
        )
    teachers, losses = list(means), list(means.values())
    best = int(np.argmin(losses))
    before, after = losses[0] - losses[best], losses[-1] - losses[best]
    best_loss = teachers[best]
    if after > 2 * noise and best < len(losses) - 1:
        shape, said = (
            "u_shaped",
            (
                f"teachers better than loss {best_loss:.3g} make worse students (by {after:.3g}): "
                f"take that teacher, or one between, or a larger student"
            ),
        )
    elif before > 2 * noise:
        shape, said = (
            "stronger_is_better",
            (f"every better teacher made a better student: the best tried, loss {best_loss:.3g}"),
        )
    else:
        shape, said = "no_effect", "the teacher makes no difference beyond noise: take the cheapest"
    return CapacityGap(parameters=size, shape=shape, best_teacher_loss=best_loss, said=said)


def _noise(pilots: Sequence[Pilot]) -> float:
    """Standard deviation of runs that repeat one setting; 0 where none does."""
    groups: dict[tuple[float, float, float | None], list[float]] = {}
    for p in pilots:
        groups.setdefault((p.parameters, p.tokens, p.teacher_loss), []).append(p.loss)
    repeated = [g for g in groups.values() if len(g) > 1]
    if not repeated:
        return 0.0
    squares = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in repeated)
    return float(np.sqrt(squares / sum(len(g) - 1 for g in repeated)))


def _of_best_teachers(pilots: Sequence[Pilot]) -> list[bool]:
    """Which runs had the teacher with the lowest mean loss at their size and tokens."""
    groups: dict[tuple[float, float], dict[float | None, list[float]]] = {}
    for p in pilots:
        group = groups.setdefault((p.parameters, p.tokens), {})
        group.setdefault(p.teacher_loss, []).append(p.loss)

    def best(group: dict[float | None, list[float]]) -> float | None:
        return min(group, key=lambda teacher: float(np.mean(group[teacher])))

    chosen = {cell: best(group) for cell, group in groups.items()}
    return [p.teacher_loss == chosen[p.parameters, p.tokens] for p in pilots]


def _identifiable(pilots: Sequence[Pilot]) -> list[Problem]:
    wanted = (
        ("runs", len(pilots), LEAST_RUNS),
        ("parameters", len({p.parameters for p in pilots}), 3),
        ("tokens", len({p.tokens for p in pilots}), 3),
    )
    return [
        Problem(
            where=f"pilots.{name}",
            problem=f"{found} different, a law of five numbers needs {least}",
            mend="run more pilots, at other sizes and token counts",
        )
        for name, found, least in wanted
        if found < least
    ]


Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _columns(pilots: Sequence[Pilot]) -> tuple[Array, Array, Array]:
    return (
        np.array([p.parameters for p in pilots], dtype=float),
        np.array([p.tokens for p in pilots], dtype=float),
        np.array([p.loss for p in pilots], dtype=float),
    )


def _loss(theta: Array, n: Array, d: Array) -> Array:
    e, a, alpha, b, beta = theta
    found: Array = e + a * n**-alpha + b * d**-beta
    return found


def _coefficients(exponents: Array, n: Array, d: Array, loss: Array) -> tuple[Array, float]:
    """E, A, B, none negative, that fit best for these exponents; the residual's norm."""
    basis = np.stack([np.ones_like(n), n ** -exponents[0], d ** -exponents[1]], axis=1)
    scale = basis.max(axis=0)
    solved, norm = nnls(basis / scale, loss)
    return solved / scale, float(norm)


def _solve(
    n: Array, d: Array, loss: Array, starts: Sequence[tuple[float, float]] = _STARTS
) -> Array:
    def cost(log_exponents: Array) -> float:
        return _coefficients(np.exp(np.clip(log_exponents, -4, 1)), n, d, loss)[1]

    best = min(
        (
            minimize(cost, np.log(start), method="Nelder-Mead", options={"maxiter": 400})
            for start in starts
        ),
        key=lambda result: result.fun,
    )
    exponents = np.exp(np.clip(best.x, -4, 1))
    (e, a, b), _ = _coefficients(exponents, n, d, loss)
    return np.array([e, a, exponents[0], b, exponents[1]])


def _bootstrap(n: Array, d: Array, loss: Array, seed: int) -> Array:
    """RESAMPLES fits to runs drawn again with replacement."""
    rng = np.random.default_rng(seed)
    whole = _solve(n, d, loss)
    start = ((float(whole[2]), float(whole[4])),)
    fits: list[Array] = []
    while len(fits) < RESAMPLES:
        index = rng.integers(len(n), size=len(n))
        if min(len(set(n[index])), len(set(d[index]))) >= 2:
            fits.append(_solve(n[index], d[index], loss[index], start))
    return np.array(fits)


def advise(
    pilots: Pilots, *, seed: int = 0
) -> tuple[Fit, tuple[CapacityGap, ...], Prediction | None]:
    """The law, the capacity gap by student size, and the target's loss if one is named."""
    found = fit(pilots.runs, seed=seed)
    target = None
    if pilots.target is not None:
        target = predict(
            pilots.runs,
            parameters=pilots.target.parameters,
            tokens=pilots.target.tokens,
            seed=seed,
        )
    return found, capacity_gaps(pilots.runs), target
