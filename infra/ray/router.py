"""Which replica gets a call: the one with the fewest."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import TypeVar

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

UNSEEN_S = 1.0  # so long a call may be on its way to a replica that does not count it yet

R = TypeVar("R")


def fewest(calls: Mapping[R, int], sent: Mapping[R, int], places: int) -> R:
    """Of the replicas in ``calls`` (how many each says it has) the one for the next call.

    ``sent`` is how many were sent there of late, which ``calls`` may or may not count. One that has a free
    place even if it counts none of them comes before one that may be full.
    """

    def order(replica: R) -> tuple[int, int, float]:
        most = calls[replica] + sent.get(replica, 0)
        return min(most, places), calls[replica], random.random()

    return min(calls, key=order)


class FewestCalls(RequestRouter):  # type: ignore[misc]  # Ray is an extra: unknown to the checks
    """Asks every replica how many calls it has, and sends the new one to the least busy.

    Ray's own router compares two that it picks at random and trusts numbers of up to 10 s ago. For requests
    of milliseconds that is right; a call is minutes long, a wrong choice stays, and a call that is sent to a
    full replica is refused though another has room. Calls begin seldom enough to ask all replicas, but when
    an engine dies all that it had come at once: so what was just sent is remembered.
    """

    # s, for Ray's own questions, which has 0.1: too short for the first one, and for a machine that computes.
    # A replica that does not answer gets no call, and each call waits so long, until Ray replaces it.
    queue_len_response_deadline_s = 1.0

    def initialize_state(self, *, places: int) -> None:
        """``places``: how many calls a replica takes."""
        self._places = places
        self._one_at_a_time = asyncio.Lock()
        self._sent: deque[tuple[float, ReplicaID]] = deque()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The least busy of all that answer; none if none does, and Ray asks again."""
        async with self._one_at_a_time:
            # Also takes dead ones out. Ray's own selection then goes by the numbers it has just noted.
            asked = await self._probe_queue_lens(candidate_replicas, 0)
            calls = {replica.replica_id: count for replica, count in asked if count is not None}
            if not calls:
                return []
            now = time.monotonic()
            while self._sent and self._sent[0][0] < now - UNSEEN_S:
                self._sent.popleft()
            chosen = fewest(calls, Counter(replica for _, replica in self._sent), self._places)
            self._sent.append((now, chosen))
            return [[replica for replica, _ in asked if replica.replica_id == chosen]]
