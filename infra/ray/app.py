"""``infra.ray.app:engines``: the engine's ASGI application as a Ray Serve deployment.

One WebSocket is one call is one ongoing request of a replica: Ray's numbers are calls.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from infra.ray.router import FewestCalls
from infra.ray.settings import REFUSALS, ClusterSettings
from model_runtime.engine.settings import Settings

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
        self._worker = Worker(lambda: load(settings))
        self._worker.start()
        await asyncio.wrap_future(self._worker.ready)
        self._reception = Reception(settings, self._worker)

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray serves."""
        from model_runtime.engine.asgi import application

        return application(self._reception)

    def check_health(self) -> None:
        """Raises when the model's thread has ended: Ray then replaces the replica."""
        if self._worker.ended.done():
            raise RuntimeError("The model's thread has ended.") from self._worker.ended.exception()

    async def __del__(self) -> None:
        """End the model's thread, when Ray has drained the replica."""
        self._worker.stop()
        await asyncio.wrap_future(self._worker.ended)


def engines(args: dict[str, Any]) -> Application:
    """The deployment, as ``serve run`` and ``serve deploy`` build it of ``ClusterSettings``."""
    chosen = ClusterSettings.model_validate(args)
    options = {
        "name": "engine",
        "max_ongoing_requests": chosen.calls + REFUSALS,
        "max_queued_requests": 4 * REFUSALS,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=chosen.min_replicas,
            initial_replicas=chosen.min_replicas,
            max_replicas=chosen.max_replicas,
            target_ongoing_requests=chosen.calls * chosen.target_load,
            upscale_delay_s=chosen.upscale_delay_s,
            downscale_delay_s=chosen.downscale_delay_s,
        ),
        "request_router_config": RequestRouterConfig(request_router_class=FewestCalls),
        "graceful_shutdown_timeout_s": chosen.drain_s,
        "graceful_shutdown_wait_loop_s": 1.0,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "ray_actor_options": {"num_cpus": chosen.cpus, "num_gpus": chosen.gpus},
    }
    deployment: Any = Engine
    application: Application = deployment.options(**options).bind(chosen.engine())
    return application
