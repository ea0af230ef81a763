"""Prometheus itself: its rules fire, it scrapes a service, and it understands every dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from contracts.base import Service
from shared.messaging.embedded import free_port
from tests.deploy.monitoring_process import monitoring
from tests.deploy.test_dashboards import RULES, expressions

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="the Debian package `prometheus` is not installed"
)


def promtool(*arguments: str) -> str:
    found = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.req("M16")
def test_rules_and_configuration_are_what_prometheus_reads() -> None:
    assert "6 rules found" in promtool("check", "rules", "rules.yaml")
    assert "is valid" in promtool("check", "config", "prometheus.yaml")


@pytest.mark.req("M16")
def test_every_rule_fires_on_what_it_is_for_and_on_nothing_else() -> None:
    promtool("test", "rules", "rules.test.yaml")
    cases = yaml.safe_load((PROMETHEUS / "rules.test.yaml").read_text(encoding="utf-8"))["tests"]
    asked = [case for test in cases for case in test["alert_rule_test"]]
    names = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    assert names == {case["alertname"] for case in asked if "exp_alerts" in case}
    assert names == {case["alertname"] for case in asked if "exp_alerts" not in case}


def query(port: int, expression: str) -> list[dict[str, object]]:
    """What Prometheus answers now. Raises HTTPError if it does not understand."""
    asked = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/api/v1/query?{asked}", timeout=5
    ) as answer:
        return list(json.loads(answer.read())["data"]["result"])


@pytest.mark.req("M16")
async def test_prometheus_scrapes_a_service_and_raises_its_incident(
    nats_server, settings, tmp_path
) -> None:
    port, served = free_port(), free_port()
    first = served - list(Service).index(Service.MONITORING)
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PROMETHEUS / "rules.yaml")],
        "scrape_configs": [
            {"job_name": "sluice", "static_configs": [{"targets": [f"127.0.0.1:{served}"]}]}
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    prometheus = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    try:
        async with monitoring(nats_server, settings, SLUICE_METRICS_PORT=str(first)):
            firing = 'sluice_alerts_firing{sluice_metric="grounding"}'
            pending = 'ALERTS{alertname="AdapterIncidentOpenForAnHour",sluice_metric="grounding"}'
            async with asyncio.timeout(60):
                while not await _answered(port, firing) or not await _answered(port, pending):
                    await asyncio.sleep(0.3)
            (series,) = query(port, firing)
            assert series["metric"]["gen_ai_request_model"] == "grounding"
            assert series["value"][1] == "1"
            assert query(port, "sluice_monitoring_signals_total")
            for where, expression in expressions():
                plain = re.sub(r"label_values\((.*), [a-z_]+\)", r"\1", expression)
                assert isinstance(query(port, _filled(plain)), list), where
    finally:
        prometheus.terminate()
        await prometheus.wait()


def _filled(expression: str) -> str:
    """As Grafana sends it: variables and intervals in place."""
    filled = expression.replace("$__rate_interval", "1m").replace("$__interval", "1m")
    return re.sub(r"\$\{?[a-z_]+\}?", "x", filled)


async def _answered(port: int, expression: str) -> bool:
    try:
        return bool(await asyncio.to_thread(query, port, expression))
    except (urllib.error.URLError, OSError):
        return False
