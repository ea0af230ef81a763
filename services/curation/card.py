"""The dataset card as a page a person reads (C8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contracts.data import DatasetCard


def markdown(card: DatasetCard) -> str:
    """The card in Markdown: where rows came from, what happened to them, what they are now."""
    parts = ["# Dataset card", "", *_splits(card), *_sources(card), *_stages(card)]
    parts += ["## Composition", "", *_composition(card), ""]
    parts += _agreement(card)
    parts += ["## Contamination sweep", ""]
    parts += [f"- `{name}`: {count} training rows dropped" for name, count in
              sorted(card.contamination.items())] or ["No evaluation set was given."]  # fmt: skip
    parts += ["", *_behaviour(card)]
    parts += ["## Warnings", ""]
    parts += [f"- {warning}" for warning in card.warnings] or ["None."]
    parts += ["", "## Files", ""]
    parts += [f"- `{name}`: `{digest}`" for name, digest in sorted(card.files.items())]
    tools = ", ".join(f"{name} {version}" for name, version in sorted(card.tools.items()))
    return "\n".join((*parts, "", f"Shaped with {tools}." if tools else "", ""))


def _splits(card: DatasetCard) -> list[str]:
    rows = ", ".join(f"{count} {name}" for name, count in card.splits.items())
    return [f"Rows: {rows}.", ""]


def _sources(card: DatasetCard) -> list[str]:
    table = _table(
        ("source", "role", "licence", "provenance", "rows"),
        ((s.uri, s.role, s.licence, s.provenance, str(s.rows)) for s in card.sources),
    )
    return ["## Sources", "", *table, ""]


def _stages(card: DatasetCard) -> list[str]:
    table = _table(
        ("stage", "in", "out", "dropped", "changed"),
        (
            (s.stage, str(s.rows_in), str(s.rows_out), _counts(s.dropped), _counts(s.changed))
            for s in card.stages
        ),
    )
    return ["## Stages", "", *table, ""]


def _composition(card: DatasetCard) -> list[str]:
    roles = sorted({*card.composition, *card.composition_target})
    return _table(
        ("role", "share", "wanted"),
        (
            (role, f"{card.composition.get(role, 0.0):.1%}",
             f"{card.composition_target[role]:.0%}" if role in card.composition_target else "–")
            for role in roles
        ),
    )  # fmt: skip


def _agreement(card: DatasetCard) -> list[str]:
    if not card.agreement:
        return []
    table = _table(
        ("rubric line", "kappa", "interval", "rows", "raters", "commonest label"),
        (
            (a.line, "no evidence" if a.kappa is None else f"{a.kappa:.2f} ({a.kind})",
             f"{a.interval.low:.2f} to {a.interval.high:.2f}" if a.interval else "–",
             str(a.items), str(a.raters), f"{a.base_rate:.0%}")
            for a in card.agreement
        ),
    )  # fmt: skip
    return ["## Agreement of raters", "", *table, ""]


def _behaviour(card: DatasetCard) -> list[str]:
    refusals = {name: n for name, n in card.refusals.items() if name != "forced"}
    lines = [f"- Refusals: {_counts(refusals)}; forced by a mandate: {card.refusals['forced']}"] \
        if refusals else []  # fmt: skip
    if card.volatility:
        lines.append(f"- Volatile facts below the threshold: {_counts(card.volatility)}")
    if card.canaries:
        lines.append(f"- Canary strings planted in the training rows: {card.canaries}")
    return ["## Refusals, passing facts, canaries", "", *lines, ""] if lines else []


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items())) or "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return lines
