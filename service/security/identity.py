"""Who calls."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do; each role may do what those before it may."""

    VIEWER = 1  # read models, and the own jobs
    SUBMITTER = 2  # create, cancel, delete and pin own jobs
    ADMIN = 3  # all that with everybody's jobs, and read the audit log


@dataclass(frozen=True)
class Principal:
    """A caller whose identity is proven.

    Attributes
    ----------
    name : str
        Of a token, a certificate or a JWT's subject.
    role : Role
        What the caller may do.
    """

    name: str
    role: Role


# Where nothing proves who calls, everybody on the machine is one person.
LOCAL = Principal("local", Role.ADMIN)
# The server itself: what it removes when its time has come, what it takes up again.
SERVER = Principal("server", Role.ADMIN)
_caller: ContextVar[Principal] = ContextVar("caller", default=LOCAL)


def caller() -> Principal:
    """Return who made the call that is being handled."""
    return _caller.get()


def set_caller(principal: Principal) -> None:
    """Note who made the call that is being handled."""
    _caller.set(principal)
