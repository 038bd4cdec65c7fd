"""What the cluster's engines are told, and which of them gets a call; no cluster is started."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.ray.settings import NANO, EngineArgs

FOLDER = Path(__file__).parents[2] / "infra" / "ray"


def test_without_a_word_it_is_nano() -> None:
    settings = EngineArgs.model_validate({}).engine()
    assert Path(settings.checkpoint) == NANO
    assert NANO.is_dir()


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CHECKPOINT", "/models/a")
    monkeypatch.setenv("PARLEY_ENGINE__OPTIONS", "--max-sessions 3 --device cuda")
    monkeypatch.setenv("PARLEY_ENGINE__URL", "ws://not-for-us")
    settings = EngineArgs.model_validate({}).engine()
    assert (settings.checkpoint, settings.max_sessions, settings.device) == ("/models/a", 3, "cuda")
    settings = EngineArgs.model_validate({"checkpoint": "/models/b", "options": ""}).engine()
    assert (settings.checkpoint, settings.device) == ("/models/b", "auto")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"options": "--max-sessions 0"}, "--max-sessions must be more than zero"),
        ({"options": "--nosuch"}, "--nosuch"),
        ({"options": "'"}, "No closing quotation"),
        ({"nosuch": 1}, "nosuch"),
    ],
)
def test_what_cannot_be_is_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EngineArgs.model_validate(args).engine()


# --- what needs Ray ---

COUNTS = st.dictionaries(st.integers(0, 9), st.integers(0, 6), min_size=1)


@given(COUNTS, st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5))
def test_a_replica_that_may_be_full_gets_a_call_only_if_all_may_be(
    calls: dict[int, int], sent: list[int], places: int
) -> None:
    fewest = pytest.importorskip("infra.ray.router", reason="pip install -e '.[ray]'").fewest
    chosen = fewest(calls, Counter(sent), places)
    most = {replica: count + sent.count(replica) for replica, count in calls.items()}
    if most[chosen] >= places:
        assert all(count >= places for count in most.values())
        assert calls[chosen] == min(calls.values())
    else:
        assert most[chosen] == min(most.values())


def _serve_config(name: str) -> Any:
    """Of the Serve config itself, or of the one within Kubernetes' manifest."""
    file = yaml.safe_load((FOLDER / name).read_text())
    return yaml.safe_load(file["spec"]["serveConfigV2"]) if name == "kuberay.yaml" else file


@pytest.mark.parametrize("name", ["serve.yaml", "kuberay.yaml"])
def test_the_shipped_files_are_what_ray_takes(name: str) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="pip install -e '.[ray]'")
    from infra.ray.app import APPLICATION, REFUSALS, engines

    (application,) = schema.ServeDeploySchema.model_validate(_serve_config(name)).applications
    assert (application.name, application.import_path) == (APPLICATION, "infra.ray.app:engines")
    built = engines(application.args)._bound_deployment
    (deployment,) = application.deployments
    assert deployment.name == built.name
    places = EngineArgs.model_validate(application.args).engine().max_sessions
    assert built.max_ongoing_requests == places + REFUSALS
    assert deployment.autoscaling_config["target_ongoing_requests"] <= places


def test_the_pods_are_what_kubernetes_takes_and_fit_the_engines() -> None:
    spec = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())["spec"]
    config = _serve_config("kuberay.yaml")
    (engine,) = config["applications"][0]["deployments"]
    (workers,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    head = spec["rayClusterConfig"]["headGroupSpec"]
    for group in (head, workers):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(pod, "1.31", strict=True)
        ports = {
            port["name"]: port["containerPort"]
            for port in group["template"]["spec"]["containers"][0]["ports"]
        }
        assert ports["serve"] == config["http_options"]["port"]
    pod = workers["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > engine["graceful_shutdown_timeout_s"]
    asked = pod["containers"][0]["resources"]["requests"]
    assert int(asked["cpu"]) == engine["ray_actor_options"]["num_cpus"]
    assert int(asked["nvidia.com/gpu"]) == engine["ray_actor_options"]["num_gpus"]
    assert workers["maxReplicas"] == engine["autoscaling_config"]["max_replicas"]


def test_of_a_file_that_says_nothing_there_is_one_engine_that_lets_calls_end() -> None:
    pytest.importorskip("ray.serve", reason="pip install -e '.[ray]'")
    from bot.settings import Settings
    from infra.ray.app import DRAIN_S, engines

    config = engines({})._bound_deployment._deployment_config
    assert (config.autoscaling_config.min_replicas, config.autoscaling_config.max_replicas) == (1, 1)
    assert config.graceful_shutdown_timeout_s == DRAIN_S == Settings.model_fields["max_call_s"].default
