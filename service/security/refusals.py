"""Records of refused calls, few enough that an attacker does not fill the disk with them."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from service.errors import ServiceError
from service.security.audit import AuditLog

_SECONDS = 1.0
_MOST_EACH = 3
_MOST_TOGETHER = 20
_log = structlog.get_logger()


@dataclass(frozen=True)
class Refusal:
    """A call that was refused.

    Attributes
    ----------
    principal : str
        Who called, as far as it is proven.
    peer : str
        The address.
    method : str
        The method, if the server has it.
    reason : str
        Of the refusal.
    resource : str
        What was asked for.
    """

    principal: str
    peer: str
    method: str
    reason: str
    resource: str

    @property
    def key(self) -> tuple[str, str]:
        """Whose share of records it takes."""
        return self.principal, self.peer


class Refusals:
    """Writes refusals to the audit log: in a second, three of a caller and twenty of all, the rest counted.

    Parameters
    ----------
    log : AuditLog or None
        Where to; None drops them.
    clock : callable
        Seconds, for tests.
    """

    def __init__(self, log: AuditLog | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._begun = clock()
        self._written: dict[tuple[str, str], int] = {}
        self._suppressed = 0
        self._flush: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def note(self, refusal: Refusal) -> None:
        """Record a refusal, or count it. The call is refused in any case, so a full disk stops nothing."""
        if self._log is None:
            return
        if self._clock() - self._begun >= _SECONDS:
            await self.flush()
        together = sum(self._written.values())
        mine = self._written.get(refusal.key, 0)
        if mine >= _MOST_EACH or together >= _MOST_TOGETHER:
            self._suppressed += 1
            if self._flush is None:
                self._flush = asyncio.get_running_loop().call_later(_SECONDS, self._flush_soon)
            return
        self._written[refusal.key] = mine + 1
        facts: dict[str, object] = {"peer": refusal.peer, "method": refusal.method}
        await self._record(refusal.principal, refusal.resource, refusal.reason, facts)

    async def flush(self) -> None:
        """Begin a new second, and record how many of the last one were not written."""
        count, self._suppressed = self._suppressed, 0
        self._begun = self._clock()
        self._written.clear()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if count:
            await self._record("server", "audit", "SUPPRESSED", {"calls": count})

    def _flush_soon(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.flush())

    async def _record(self, principal: str, resource: str, outcome: str, facts: dict[str, object]) -> None:
        assert self._log is not None
        try:
            await asyncio.to_thread(self._log.record, principal, "call.refused", resource, outcome, **facts)
        except ServiceError as error:
            _log.error("refusal_not_recorded", reason=error.reason)
