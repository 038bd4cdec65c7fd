"""The chart, by Helm's own library and Kubernetes' own schemas. Nothing is installed: there is no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bot.settings import Settings

helm = pytest.importorskip("helm_python", reason="Helm's library is to be had for Linux on x86-64 alone")
CHART = Path(__file__).parents[2] / "infra" / "helm" / "parley"
PHONE = {"phone": {"enabled": True, "trusted": "10.0.0.2"}}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    with helm.Chart.load(str(CHART)) as loaded:
        yield loaded


def _objects(chart: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What would be installed, by kind."""
    chart.validate_schema(values)
    texts = [text for name, text in chart.render(values, name="desk").items() if name.endswith(".yaml")]
    return {found["kind"]: found for text in texts for found in yaml.safe_load_all(text) if found}


def _environment(chart: Any, values: dict[str, Any]) -> dict[str, str]:
    pod = _objects(chart, values)["StatefulSet"]["spec"]["template"]["spec"]
    return {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}


def test_helm_finds_no_fault() -> None:
    found = helm.lint(str(CHART))
    assert not found["errors"]
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        PHONE,
        {"storage": {"size": ""}, "hostNetwork": False, "checkpoint": "hf://stepfun-ai/Step-Audio-2-mini"},
        {
            "existingSecret": "parley",
            "settings": {"PARLEY_AGENT": "receptionist", "PARLEY_MAX_CALL_S": 60},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "nodeSelector": {"gpu": "yes"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
    ],
    ids=["as it is", "phone", "bare", "everything"],
)
def test_what_is_rendered_is_what_kubernetes_takes(chart: Any, values: dict[str, Any]) -> None:
    objects = _objects(chart, values)
    assert set(objects) == {"StatefulSet", "Service", "PodDisruptionBudget"}
    for found in objects.values():
        kubernetes_validate.validate(found, "1.31", strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"maxCalls": 0},
        {"phone": {"enabled": True}},  # and nobody is trusted
        {"phone": {"port": 80}},
        {"settings": {"REDIS_URL": "x"}},
        {"image": {"repository": ""}},
        {"nosuch": 1},
    ],
)
def test_a_value_that_cannot_be_is_refused(chart: Any, values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        chart.validate_schema(values)


def test_parley_knows_what_it_is_told(chart: Any) -> None:
    environment = _environment(chart, PHONE | {"maxCalls": 7, "settings": {"PARLEY_AGENT": "desk"}})
    assert environment["PARLEY_MAX_CALLS"] == "7"
    assert environment["PARLEY_AGENT"] == "desk"
    assert environment["PARLEY_SIP__LISTEN"] == "$(POD_ADDRESS):5070"
    assert "PARLEY_CHECKPOINT" not in environment  # its default is nano, and "" is no checkpoint
    known = {f"PARLEY_{name.upper()}" for name in Settings.model_fields} | {"PARLEY_SIP"}  # the phone's group
    assert {name.partition("__")[0] for name in environment} - {"POD_ADDRESS"} <= known


def test_calls_are_over_before_the_pod_is_killed(chart: Any) -> None:
    for seconds in (0, 60, 600):
        pod = _objects(chart, {"drainSeconds": seconds})["StatefulSet"]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > seconds
