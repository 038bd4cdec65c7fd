"""Writing behind: bringing Redis up to date with what the calls have told, without a call ever waiting.

One task writes for all calls, a step at a time, whoever has waited longest first. What a call tells while a
step is under way is written together in its next one. A step that fails puts its call at the end of the row,
so a value that Redis never takes cannot keep the others from it.

Before a step this process makes sure that it has the call's lease, and of what Redis has: a call that another
process has taken over is not written into, and one that Redis has lost or never had is written whole.
One that an operator has had erased is written no more.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from loguru import logger
from redis import ConnectionError as RedisConnectionError
from redis import RedisError, ResponseError
from redis import TimeoutError as RedisTimeoutError
from redis.asyncio import Redis

from pipeline.memory.call_state import CallState, Step
from pipeline.memory.cancelling import heeding_cancellation
from pipeline.memory.keys import F_REVISION, Keys

LEASE_S = 10.0  # after a process has died, so long its calls are nobody's
RENEW_S = LEASE_S / 3  # two may fail; also how soon a Redis that has lost a silent call is noticed
WRITE_S = 2.0  # one step; longer than any healthy Redis takes for one, much shorter than a lease
FIRST_PAUSE_S = 0.05  # after a step that failed; doubled at each one that follows
LONGEST_PAUSE_S = 1.0
MOST_BYTES = 64 * 1024 * 1024  # of calls that are over and not yet written
MOST_CALLS = 1000  # likewise

# KEYS: lease. ARGV: this process, lease in ms. 1 if the lease is this process's now. What is no string there
# is nobody's lease.
TAKE_LEASE = """
local holder = redis.pcall('get', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1
"""

# KEYS: lease. ARGV: this process. Releases it if it is ours.
RELEASE = "if redis.pcall('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"

UNREACHABLE = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class Writer:
    """Writes for all calls of this process.

    Args:
        redis: a client that does not try again by itself.
        keys: the tenant's.
        process: what this process's leases and revisions are known by.
        keep_s: how long a call is kept after its end.
    """

    def __init__(self, redis: Redis, keys: Keys, process: str, keep_s: float) -> None:
        """See the class."""
        self.lost = 0
        self.stepping = asyncio.Lock()  # held while Redis is written to
        self._redis = redis
        self._keys = keys
        self._process = process
        self._keep_s = keep_s
        self._calls: dict[str, CallState] = {}  # those open, then those over and not written, as they ended
        self._due: dict[str, CallState] = {}  # in this order
        self._wake = asyncio.Event()
        self._renew_at = 0.0
        self._troubles: dict[str, str] = {}  # call id: why it could not be written
        self._said_lost = False

    # --- what there is to write ----------------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """Changes not yet written."""
        return sum(state.behind for state in self._calls.values())

    def open(self, call_id: str) -> CallState:
        """A call begins, or begins again; an earlier one of that id is written no more."""
        self.drop(call_id)
        state = self._calls[call_id] = CallState(call_id, self._process)
        self.changed(state)
        return state

    def is_open(self, state: CallState) -> bool:
        """Whether what this call tells is still to be written."""
        return self._knows(state) and state.closed_at is None

    def waiting(self, call_id: str) -> CallState | None:
        """The call, if Redis does not have all of it."""
        state = self._calls.get(call_id)
        return state if state is not None and state.behind else None

    def changed(self, state: CallState) -> None:
        """There is something to write."""
        self._due.setdefault(state.call_id, state)
        self._wake.set()

    def close(self, state: CallState) -> None:
        """The call is over: write what is left, then let go of it."""
        state.closed_at = time.monotonic()
        self._calls[state.call_id] = self._calls.pop(state.call_id)  # to the end
        self.changed(state)
        self._bound()

    def drop(self, call_id: str) -> None:
        """Write nothing more of a call."""
        self._calls.pop(call_id, None)
        self._due.pop(call_id, None)
        self._troubles.pop(call_id, None)

    def _bound(self) -> None:
        """Give up the calls that ended first, should those not yet written take too much memory.

        Calls that go on are not counted: what waits of them is what the call itself holds.
        """
        over = [state for state in self._calls.values() if state.closed_at is not None]
        sizes = {state.call_id: state.waiting_bytes for state in over}
        for state in over[:-1]:
            if len(sizes) <= MOST_CALLS and sum(sizes.values()) <= MOST_BYTES:
                return
            del sizes[state.call_id]
            self.lost += state.behind
            if not self._said_lost:
                logger.error("too much waits for Redis: the calls that ended first will not be remembered")
                self._said_lost = True
            self.drop(state.call_id)

    # --- writing it ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until cancelled."""
        pause_s = 0.0
        while True:
            await self._until_due()
            if await self._step(self._due.pop(next(iter(self._due)))):
                pause_s = 0.0
            else:
                pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)

    async def flush(self) -> None:
        """Write what is left, without pauses: each call until it fails."""
        for state in list(self._calls.values()):
            while state.behind or state.closed_at is not None:
                if not (await self._step(state) and self._knows(state)) or state.call_id in self._troubles:
                    break

    async def take_lease(self, call_id: str) -> bool:
        """Take the call's lease, or make ours last longer. False: another process has it.

        Raises ``RedisError``.
        """
        lease = self._keys.lease(call_id)
        return bool(await self._redis.eval(TAKE_LEASE, 1, lease, self._process, _ms(LEASE_S)))

    async def _until_due(self) -> None:
        while True:
            now = time.monotonic()
            if now >= self._renew_at:
                for state in self._calls.values():
                    self.changed(state)
                self._renew_at = now + RENEW_S
            if self._due:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._renew_at - now):
                    await self._wake.wait()

    async def _step(self, state: CallState) -> bool:
        """One step of a call. False if it failed; the call is then due again."""
        try:
            with heeding_cancellation():
                async with self.stepping, asyncio.timeout(WRITE_S):
                    if self._knows(state):
                        await self._write(state)
        except asyncio.CancelledError:
            state.lose_track()  # the step may have been done, or not
            raise
        except UNREACHABLE as error:
            for other in self._calls.values():  # Redis may come back without any of them
                other.lose_track()
                self.changed(other)
            return self._failed(state, error)
        except RedisError as error:
            state.lose_track()
            return self._failed(state, error)
        except Exception as error:  # else one call's fault would end the writing for all
            state.lose_track()
            if reason(error) not in self._troubles.values():
                logger.exception(f"call {state.call_id}: fault in writing it to Redis")
            return self._failed(state, error)
        return True

    async def _write(self, state: CallState) -> None:
        over_at = state.closed_at
        held, found, forgotten = await self._look(state)
        if forgotten:
            logger.info(f"call {state.call_id}: it was erased, so nothing more of it is kept")
            self.drop(state.call_id)
            await self._redis.eval(RELEASE, 1, self._keys.lease(state.call_id), self._process)
            return
        if not held and (over_at is None or self._may_be_had(state, over_at)):
            self._trouble(state, "another process has this call")
            return
        if not held or (over_at is not None and state.ever_written and self._is_anothers(found)):
            logger.info(f"call {state.call_id}: another process goes on with it, so its end here is not kept")
            self.drop(state.call_id)
            return
        step = state.next_step(found)
        await self._apply(state, step, over_at)
        state.done(step)
        if self._troubles.pop(state.call_id, None) is not None and not self._troubles:
            logger.info("what is said is kept in Redis again")
            self._said_lost = False
        if not self._knows(state):
            return
        if over_at is not None and step.last:
            self.drop(state.call_id)
        elif state.behind:
            self.changed(state)

    async def _look(self, state: CallState) -> tuple[bool, bytes | None, bool]:
        """Whether the lease is ours now, the revision Redis has, and whether the call was erased.

        An empty revision: what is there is nothing of Parley's. Who has the lease has its call to itself, so
        none is erased between this and the step.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.eval(TAKE_LEASE, 1, self._keys.lease(state.call_id), self._process, _ms(LEASE_S))
            pipe.hget(self._keys.call(state.call_id), F_REVISION)
            pipe.exists(self._keys.forgotten(state.call_id))
            held, found, forgotten = await pipe.execute(raise_on_error=False)
        for answer in (held, forgotten):
            if isinstance(answer, Exception):
                raise answer
        if isinstance(found, ResponseError) and "WRONGTYPE" in str(found):
            return bool(held), b"", bool(forgotten)
        if isinstance(found, Exception):
            raise found
        return bool(held), found, bool(forgotten)

    async def _apply(self, state: CallState, step: Step, over_at: float | None) -> None:
        call = self._keys.call(state.call_id)
        keep_s = max(self._keep_s, LEASE_S)  # renewed in time while the call goes on
        if over_at is not None:
            keep_s = max(0.0, self._keep_s - (time.monotonic() - over_at))
        async with self._redis.pipeline(transaction=True) as pipe:
            if step.anew:
                pipe.unlink(call)
            if stale := step.deleted():
                pipe.hdel(call, *stale)
            if fields := step.fields():
                pipe.hset(call, mapping=fields)  # type: ignore[arg-type] # bytes are fine
            pipe.pexpire(call, _ms(keep_s))
            if over_at is not None and step.last:
                pipe.delete(self._keys.lease(state.call_id))
            await pipe.execute()

    def _knows(self, state: CallState) -> bool:
        return self._calls.get(state.call_id) is state

    def _may_be_had(self, state: CallState, over_at: float) -> bool:
        """Whether a call that is over may be ours yet, though another process has its lease.

        Redis has nothing of it, and who has the lease may have died: it is waited for as long as one lasts.
        """
        return not state.ever_written and time.monotonic() - over_at < LEASE_S

    def _is_anothers(self, revision: bytes | None) -> bool:
        return revision is not None and not revision.startswith(self._process.encode())

    def _failed(self, state: CallState, error: Exception) -> bool:
        if self._knows(state):
            self._trouble(state, reason(error) if str(error) else f"no answer in {WRITE_S:g} s")
            self.changed(state)
            self._bound()
        return False

    def _trouble(self, state: CallState, why: str) -> None:
        """Say what keeps calls from being written, once for all that it keeps; they go on as ever."""
        if why not in self._troubles.values():
            logger.warning(f"call {state.call_id}: what is said is not kept in Redis for now: {why}")
        self._troubles[state.call_id] = why


def reason(error: Exception) -> str:
    """What Redis or the way there complains of, without the command, which holds what was said."""
    text = str(error).rpartition("caused error: ")[2]
    return f"{type(error).__name__}: {text[:200]}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
