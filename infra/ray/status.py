"""``python -m infra.ray.status``, on a node of the cluster: every engine, and how many calls it has.

Ends with status 1 when there is none that takes calls.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TypedDict

import ray
from ray import serve

from infra.ray.app import APPLICATION, DEPLOYMENT

ANSWER_S = 10.0


class EngineStatus(TypedDict):
    """What one engine says of itself; it answers only once its model is loaded and warm."""

    node: str
    pid: int
    replica: str
    checkpoint: str
    sessions: int
    places: int


def main() -> int:
    """Print a line for each engine. Returns the exit status."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray.init("auto", log_to_driver=False, logging_level="ERROR")
        engines = ask()
    except ConnectionError:
        print("There is no Ray on this machine. Start one: ray start --help", file=sys.stderr)
        return 1
    except (serve.exceptions.RayServeException, TimeoutError) as error:
        print(f"The engines cannot be asked: {error}", file=sys.stderr)
        return 1
    finally:
        ray.shutdown()
    for each in engines:
        print("{node} pid {pid} replica {replica}: {sessions}/{places} sessions, {checkpoint}".format(**each))
    if not engines:
        print("No engine is ready.", file=sys.stderr)
    return 0 if engines else 1


def ask() -> list[EngineStatus]:
    """Of every replica that takes calls, by node and process. To be called where Ray is initialised."""
    handle: Any = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
    answers: list[EngineStatus] = handle.broadcast("about").results(timeout_s=ANSWER_S)
    return sorted(answers, key=lambda engine: (engine["node"], engine["pid"]))


if __name__ == "__main__":
    sys.exit(main())
