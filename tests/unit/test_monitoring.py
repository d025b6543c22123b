"""Prometheus' rules: they ask only for what the code exports, and each is known to fire and to be silent."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.registry import REGISTRY

from services.api import middleware, streaming
from services.emb.metrics import EmbMetrics
from services.llm.metrics import LlmMetrics
from services.workers import dispatcher, recorder, tasks, upkeep
from sluice.chat import answer
from sluice.jobs import claims
from sluice.retrieval import search
from tests.unit.deployment import ROOT, STACK

FOLDER = ROOT / "infra" / "monitoring"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTS = yaml.safe_load((FOLDER / "rules.test.yml").read_text(encoding="utf-8"))["tests"]
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
# Importing them registers their metrics.
EXPORTING = (middleware, streaming, dispatcher, recorder, tasks, upkeep, answer, claims, search)
# Prometheus writes it itself, for every target that it finds.
ITS_OWN = {"up": {"job", "instance"}}
FROM_SCRAPING = {"job", "instance"}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "le", "group_left", "group_right", "bool", "offset"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
PORTS = {"api": 8000, "worker": 9100, "dispatcher": 9100, "emb": 8001, "llm": 8002}

each_rule = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


def exported() -> dict[str, set[str]]:
    """The labels of every series that our processes can have, by name."""
    assert all(EXPORTING)
    found = dict(ITS_OWN)
    for registry in (REGISTRY, EmbMetrics().registry, LlmMetrics().registry):
        found |= _series(registry)
    return found


def _series(registry: CollectorRegistry) -> dict[str, set[str]]:
    found = {}
    for collector in set(registry._names_to_collectors.values()):
        for family in collector.collect():
            for suffix in SUFFIXES.get(family.type, ("",)):
                bucket = {"le"} if suffix == "_bucket" else set()
                found[family.name + suffix] = set(getattr(collector, "_labelnames", ())) | bucket
    return found


def selectors(expression: str) -> dict[str, set[str]]:
    """The names of metrics in a rule, with the labels by which each is selected."""
    found: dict[str, set[str]] = {}
    plain = re.sub(r'"[^"]*"', '""', expression)
    grouping = re.sub(r"\b(by|without|on|ignoring) *\([^)]*\)", "", plain)
    for name, labels in re.findall(r"\b([a-z_][\w:]*)\b(?! *\()(?:\{([^}]*)\})?", re.sub(r"\[[^]]*\]", "", grouping)):
        if name not in WORDS and not re.search(rf"[{{,]\s*{name}\s*[=!]", grouping):
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", labels))
    return found


@each_rule
def test_a_rule_asks_for_metrics_that_the_code_exports(rule: dict[str, Any]) -> None:
    known = exported()
    asked = selectors(rule["expr"])

    assert asked
    assert set(asked) <= set(known)
    for name, labels in asked.items():
        assert labels <= known[name] | FROM_SCRAPING, name


@each_rule
def test_a_rule_says_how_urgent_it_is_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "warn"}
    assert re.search(r"\b(look (at|for)|see|says?|shows)\b", rule["annotations"]["summary"], flags=re.IGNORECASE)


@each_rule
def test_a_rule_points_at_metrics_that_the_code_exports(rule: dict[str, Any]) -> None:
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported()}
    named = set(re.findall(r"\b(?:sluice|http|emb|llm)_[a-z_]+", rule["annotations"]["summary"]))

    assert {re.sub(r"_total$", "", name) for name in named} <= families


@each_rule
def test_for_each_rule_there_is_a_story_in_which_it_fires_and_one_in_which_it_does_not(rule: dict[str, Any]) -> None:
    told = [bool(one["exp_alerts"]) for test in TESTS for one in test["alert_rule_test"]
            if one["alertname"] == rule["alert"]]  # fmt: skip

    assert set(told) == {True, False}


def test_every_part_of_ours_is_scraped_at_its_port() -> None:
    scraped = {
        job["job_name"]: (found["names"], found["type"], found["port"])
        for job in CONFIG["scrape_configs"]
        for found in job["dns_sd_configs"]
    }

    assert scraped == {name: ([name], "A", port) for name, port in PORTS.items()}
    assert set(PORTS) <= set(STACK["services"])


def test_a_part_that_is_away_is_noticed_whichever_it_is() -> None:
    (expression,) = (rule["expr"] for rule in RULES if rule["alert"] == "PartAway")

    assert set(re.findall(r'up\{job="(\w+)"\}', expression)) == set(PORTS)


@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]],
    ids=" ".join,
)  # fmt: skip
def test_prometheus_agrees(arguments: list[str]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus, which is large")

    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
