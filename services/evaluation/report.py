"""Verdicts of gates for other tools: JUnit XML for CI, Markdown for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from contracts.measure import Comparison, Interval
from services.evaluation.chain import Timed
from services.evaluation.gates.judgement import Judgement


def junit(gates: Sequence[Timed]) -> str:
    """A suite of one test case for each gate, with the worst answers.

    Failed is a `failure`, inconclusive an `error`.
    """
    suites = [_suite(gate.judged, gate.duration_s) for gate in gates]
    root = suites[0]
    if len(suites) > 1:
        root = ET.Element("testsuites", name="sluice")
        root.extend(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _suite(judged: Judgement, duration_s: float) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        name=f"sluice {judged.gate}",
        tests="1",
        failures=str(int(judged.verdict == "failed")),
        errors=str(int(judged.verdict == "inconclusive")),
        time=f"{duration_s:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for measured in judged.measurements:
        ET.SubElement(properties, "property", name=measured.name, value=f"{measured.value:.6g}")
    for compared in judged.comparisons:
        ET.SubElement(properties, "property", name=compared.metric, value=_change(compared))
    case = ET.SubElement(
        suite, "testcase", classname="sluice.gate", name=judged.gate, time=f"{duration_s:.3f}"
    )
    if judged.verdict != "passed":
        tag = "failure" if judged.verdict == "failed" else "error"
        ET.SubElement(case, tag, message=judged.summary, type=judged.remediation).text = "\n".join(
            f"{c.item}: {c.base:g} -> {c.candidate:g}" for c in judged.changed
        )
    else:
        ET.SubElement(case, "system-out").text = judged.summary
    return suite


def markdown(gates: Sequence[Timed], whole_s: float) -> str:
    """Each gate's page; ahead of several, a table of their verdicts and seconds."""
    pages = [_page(gate.judged) for gate in gates]
    if len(pages) == 1:
        return pages[0]
    lines = ["| gate | verdict | seconds |", "|---|---|---|"]
    lines += [f"| {g.judged.gate} | {g.judged.verdict} | {g.duration_s:.1f} |" for g in gates]
    lines += [f"| the chain, some side by side | | {whole_s:.1f} |", ""]
    return "\n".join(["\n".join(lines), *pages])


def _page(judged: Judgement) -> str:
    """A heading, the summary, a table of numbers, and what changed for the worse."""
    lines = [f"## {judged.gate}: {judged.verdict}", "", judged.summary, ""]
    lines += ["| measure | value | interval | n |", "|---|---|---|---|"]
    for measured in judged.measurements:
        interval = _interval(measured.interval)
        lines.append(f"| {measured.name} | {measured.value:.4g} | {interval} | {measured.n} |")
    for compared in judged.comparisons:
        interval = _interval(compared.interval)
        lines.append(f"| {compared.metric} | {_change(compared)} | {interval} | {compared.n} |")
    worse = [c for c in judged.changed if c.candidate < c.base]
    if worse:
        lines += ["", "### Worse than before", ""]
        lines += [f"- `{c.item}`: {_one_line(c.output)}" for c in worse]
    if judged.remediation != "none":
        lines += ["", f"Remediation: `{judged.remediation}`."]
    return "\n".join(lines) + "\n"


def _change(compared: Comparison) -> str:
    return f"{compared.baseline:.4g} → {compared.candidate:.4g}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.4g} to {interval.high:.4g}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:120]
