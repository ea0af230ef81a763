"""The HTML card: the signed record as a page that a person reads, with its plots (R3).

One file without scripts or outside links, so it can be mailed, printed and kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from contracts.base import Digest
from contracts.card import AdaptationCard
from contracts.rollout import StageJudged
from services.registry import plots
from services.registry.readme import delta, lesson, teacher

_ENVIRONMENT = Environment(
    loader=PackageLoader("services.registry", "templates"),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(card: AdaptationCard, judged: Sequence[StageJudged], *, payload: Digest) -> str:
    """The page of the adapter that `card` describes and `judged` stages let through."""
    return _ENVIRONMENT.get_template("card.html").render(
        card=card,
        payload=payload,
        stages=judged,
        delta=delta,
        lesson=lesson,
        teacher=teacher,
        changes=Markup(plots.changes(card.gates)),
        ladder=Markup(plots.stages(judged)),
    )
