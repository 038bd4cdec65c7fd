"""Which replica gets a call: the one with the fewest."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class FewestCalls(RequestRouter):  # type: ignore[misc]  # Ray is an extra: unknown to the checks
    """Asks every replica how many calls it has, and sends the new one to the least busy.

    Ray's own router compares two that it picks at random and trusts numbers of up to 10 s ago. For requests
    of milliseconds that is right; a call is minutes long, a wrong choice stays, and a call that is sent to a
    full replica is refused though another has room. Calls begin seldom enough to ask all replicas.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As Ray makes it."""
        super().__init__(*args, **kwargs)
        self._use_replica_queue_len_cache = False

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All of them, as one rank: of a rank Ray takes the least busy."""
        return [list(candidate_replicas)]
