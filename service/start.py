"""How the server process reads its settings, serves, and ends."""

import asyncio
import os
import signal
import sys
import tomllib
from typing import Any

from pydantic import ValidationError

from models import ModelError
from service.errors import WorkerLost
from service.observability.logs import configure_logs
from service.security.audit import AuditBroken
from service.security.credentials import CredentialsRefused
from service.security.transport import DoorsRefused
from service.server import Server
from service.settings import Settings
from service.ui.viewer import ViewerRefused


async def _serve(settings: Settings) -> None:
    server = Server(settings)
    asked_to_stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, asked_to_stop.set)
    stopping = asyncio.create_task(asked_to_stop.wait())
    starting = asyncio.create_task(server.start())
    try:
        # Who is asked to stop while models still load does not load them to the end.
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            failed = asyncio.create_task(server.failed.wait())
            await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        starting.cancel()
        await server.stop()
    if server.failed.is_set():
        sys.exit("neurofv-server: a part of the server has failed; the log says which. Start it again")


def serve(insecure: bool) -> None:
    """Read the settings, and serve until SIGTERM or Ctrl-C.

    Parameters
    ----------
    insecure : bool
        Whether the command line accepts open doors.
    """
    settings = _read_settings({"insecure": True} if insecure else {})
    configure_logs(settings.log_format, settings.log_level)
    try:
        asyncio.run(_serve(settings))
    except ModelError as error:
        sys.exit(f"neurofv-server: NEUROFV_REPOSITORY={settings.repository}: {error}")
    except AuditBroken as error:
        sys.exit(f"neurofv-server: the audit log cannot be used: {error}")
    except (WorkerLost, OSError, DoorsRefused, CredentialsRefused, ViewerRefused) as error:
        sys.exit(f"neurofv-server: {error}")


def _read_settings(chosen: dict[str, Any]) -> Settings:
    """Read the settings, or end with what is wrong with them."""
    try:
        return Settings(**chosen)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors()
        ]
        sys.exit(f"neurofv-server: the settings {_sources()} cannot be used: {'; '.join(faults)}")
    except (OSError, tomllib.TOMLDecodeError) as error:
        sys.exit(f"neurofv-server: the settings {_sources()} cannot be read: {error}")


def _sources() -> str:
    file = os.environ.get("NEUROFV_CONFIG")
    return f"in the environment (NEUROFV_*) or in {file}" if file else "in the environment (NEUROFV_*)"
