"""Structured logs on standard error: one event a line, facts as keys."""

import logging
import sys

import structlog


def configure_logs(form: str, level: str) -> None:
    """Set up structlog for the process.

    Parameters
    ----------
    form : {"json", "console"}
        For machines or for people.
    level : str
        Least level that is written.
    """
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
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # A line in one write, also where PYTHONUNBUFFERED is set: server and worker share the stream.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
