"""`python -m service`: run the server until SIGTERM or Ctrl-C."""

import asyncio
import os
import signal
import sys
import tomllib

from pydantic import ValidationError

from models import ModelError
from service.errors import WorkerLost
from service.observability.logs import configure_logs
from service.server import Server
from service.settings import Settings


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
            await stopping
    finally:
        starting.cancel()
        await server.stop()


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = Settings()
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors()
        ]
        sys.exit(f"neurofv-server: the settings {_sources()} cannot be used: {'; '.join(faults)}")
    except (OSError, tomllib.TOMLDecodeError) as error:
        sys.exit(f"neurofv-server: the settings {_sources()} cannot be read: {error}")
    configure_logs(settings.log_format, settings.log_level)
    try:
        asyncio.run(_serve(settings))
    except ModelError as error:
        sys.exit(f"neurofv-server: NEUROFV_REPOSITORY={settings.repository}: {error}")
    except (WorkerLost, OSError) as error:
        sys.exit(f"neurofv-server: {error}")


def _sources() -> str:
    file = os.environ.get("NEUROFV_CONFIG")
    return f"in the environment (NEUROFV_*) or in {file}" if file else "in the environment (NEUROFV_*)"


if __name__ == "__main__":
    main()
