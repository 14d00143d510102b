"""Structured logs on standard error: one event a line, facts as keys.

Only keys of an allow-list are written, so that a careless line cannot repeat
what a caller has sent. Exceptions are written as their types and places: their
texts may quote a request.
"""

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

# Facts of the server, and names that it has given itself. No key may hold what a caller writes freely.
KEYS = frozenset(
    {
        *("event", "level", "timestamp", "trace", "logger", "dropped", "text_bytes"),
        *("host", "port", "http_port", "device", "grace_seconds", "next_try_seconds", "seconds"),
        *(
            "model",
            "version",
            "job",
            "jobs",
            "jobs_again_alone",
            "state",
            "states",
            "method",
            "code",
            "reason",
        ),
        *("attempt", "sequence", "step", "count", "bytes", "schema", "error_id", "kind", "worker"),
        *("changes", "running", "waiting", "limit", "source", "why"),
    }
)
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LONGEST_TEXT = 512
_MOST_FRAMES = 40


def configure_logs(form: str, level: str) -> None:
    """Set up structlog for the process, and route what libraries log and what escapes through it.

    Parameters
    ----------
    form : {"json", "console"}
        For machines or for people.
    level : str
        Least level that is written.
    """
    configure_events(form, level)
    logging.basicConfig(handlers=[_Library()], level=logging.WARNING, force=True)
    # A handler that fails would print what it was given.
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    sys.excepthook = _escaped
    threading.excepthook = lambda failed: _escaped(failed.exc_type, failed.exc_value, failed.exc_traceback)


def configure_events(form: str, level: str) -> None:
    """Set up structlog alone, in a process whose other log lines are not ours; see `configure_logs`."""
    renderer = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            keep_places,
            keep_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # A line in one write, also where PYTHONUNBUFFERED is set: server and worker share the stream.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def keep_places(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by its type and the places that it passed through (a structlog processor)."""
    given = entry.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        entry["trace"] = places(given)
    return entry


def keep_allowed(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what the allow-list does not name, and say how much that was (a structlog processor)."""
    kept = {key: _plain(value) for key, value in entry.items() if key in KEYS}
    if len(kept) < len(entry):
        kept["dropped"] = len(entry) - len(kept)
    if not _EVENT.fullmatch(str(kept.get("event"))):
        # An event is a name in the code; a sentence may have been put together from anything.
        kept["event"], kept["text_bytes"] = "unnamed", len(str(entry.get("event")))
    return kept


def places(error: BaseException) -> list[str]:
    """Return an exception's type and frames, and those of its causes, without any text of theirs.

    Parameters
    ----------
    error : BaseException
        Any.

    Returns
    -------
    list of str
        The type's name, then `module:function:line` from the outside in; causes follow.
    """
    found: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(found) < _MOST_FRAMES:
        seen.add(id(current))
        found.append(type(current).__name__)
        found.extend(_frames(current.__traceback__))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found[:_MOST_FRAMES]


def _frames(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{trace.tb_frame.f_globals.get('__name__')}:{code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found


def _plain(value: Any) -> Any:
    """Bound a value to what is short and plain."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value[:_MOST_FRAMES]]
    return str(value)[:_LONGEST_TEXT] if isinstance(value, str) else type(value).__name__


class _Library(logging.Handler):
    """Writes that a library has logged, and where; never what, which may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library_log", logger=record.name, exc_info=record.exc_info, text_bytes=len(str(record.msg)))


def _escaped(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Write an exception that nobody has caught."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        structlog.get_logger().error("uncaught", exc_info=error)
