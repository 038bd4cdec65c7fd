"""``infra.ray.app:engines``: the engine's ASGI application as a Ray Serve deployment.

One WebSocket is one call is one ongoing request of a replica: Ray's numbers are calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from infra.ray.router import FewestCalls
from infra.ray.settings import EngineArgs
from model_runtime.engine.settings import Settings

APPLICATION, DEPLOYMENT = "parley", "engine"  # the names in the config file
# Ray's own limit lies so far above the places of an engine: one call too many must get through to be refused
# in the protocol's words. Ray itself would have it wait for a place, or answer with HTTP 500.
REFUSALS = 8
QUEUE = 256  # being sent to a replica, at one proxy: after an engine has died all that it had come at once
DRAIN_S = 1800.0  # for the calls of a replica that goes: as long as a call may be (PARLEY_MAX_CALL_S)
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 30.0  # the event loop only moves bytes; longer than this without an answer is dead


@serve.deployment
@serve.ingress()
class Engine:
    """One engine. A replica is ready once its model is loaded and warm."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        """Load the model. Raises ``CheckpointError``, which ``serve status`` shows."""
        from model_runtime.engine.kit import load
        from model_runtime.engine.reception import Reception
        from model_runtime.engine.worker import Worker

        logging.basicConfig(level=settings.log_level, stream=sys.stderr)
        self._loaded = False
        self._worker = Worker(lambda: load(settings))
        self._worker.start()
        await asyncio.wrap_future(self._worker.ready)
        self._loaded = True
        self._reception = Reception(settings, self._worker)

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray serves."""
        from model_runtime.engine.asgi import application

        return application(self._reception)

    def about(self) -> dict[str, object]:
        """What ``infra.ray.status`` shows of a replica."""
        return {
            "node": ray.util.get_node_ip_address(),
            "pid": os.getpid(),
            "replica": serve.get_replica_context().replica_id.unique_id,
            "checkpoint": self._worker.ready.result().card.name,
            "sessions": self._reception.sessions,
            "places": self._reception.places,
        }

    def check_health(self) -> None:
        """Raises when the model's thread has ended: Ray then replaces the replica."""
        if self._worker.ended.done():
            raise RuntimeError("The model's thread has ended.") from self._worker.ended.exception()

    async def __del__(self) -> None:
        """End the model's thread, when Ray has drained the replica, or could not make it."""
        if self._loaded:
            self._worker.stop()
            await asyncio.wrap_future(self._worker.ended)


def engines(args: dict[str, Any]) -> Application:
    """The deployment ``engine``, as ``serve run`` and ``serve deploy`` build it of ``EngineArgs``.

    Raises ``ValueError``. What is set here the config file may set otherwise, except for the two limits.
    """
    settings = EngineArgs.model_validate(args).engine()
    options = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": settings.max_sessions + REFUSALS,
        "max_queued_requests": QUEUE,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=1, max_replicas=1, target_ongoing_requests=settings.max_sessions
        ),
        "request_router_config": RequestRouterConfig(
            request_router_class=FewestCalls, request_router_kwargs={"places": settings.max_sessions}
        ),
        "graceful_shutdown_timeout_s": DRAIN_S,
        "graceful_shutdown_wait_loop_s": 1.0,  # how soon it is seen that the last call is over
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
    }
    deployment: Any = Engine
    application: Application = deployment.options(**options).bind(settings)
    return application
