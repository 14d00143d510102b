"""The page's port in front of a house."""

import asyncio
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.reliability.quick import QuickExecutor
from neurofv.v1.visualization_service_pb2 import VisualizeRequest
from service.observability.http import OperatorServer
from service.rpc.jobs import JobService
from service.rpc.models import ModelService
from service.security.doors import Doors
from service.security.identity import Principal, Role, set_caller
from service.storage.records import Record
from service.ui.api import Api
from service.ui.application import Ui
from service.ui.viewer import Viewer
from tests.house import House
from tests.service.requests import CUBE, request

STEPS = 200
ASKED = request(CUBE, f"steps: {STEPS} snapshot_every: 0")


class Site:
    """The page's port in front of a house."""

    def __init__(self, house: House, doors: Doors, viewer: Viewer | None = None) -> None:
        jobs = JobService(house.desk, house.metrics)
        api = Api(house.desk, ModelService(house.desk.repository), jobs, house.metrics)
        ui = Ui(doors, api, house.metrics, viewer)
        self.house, self.doors = house, doors
        self.server = OperatorServer(("127.0.0.1", 0), house.metrics.registry, lambda: True, doors.http, ui)
        self._threads = ThreadPoolExecutor(80)

    async def close(self) -> None:
        self.server.close()
        await self.doors.close()
        await self.house.close()

    def ask(
        self, path: str, token: str = "", method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def begin(self, *arguments: Any, **headers: str) -> asyncio.Future:
        """Ask from a thread, for the loop of the test is the server's."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, lambda: self.ask(*arguments, **headers))

    async def json(self, path: str, token: str = "") -> Any:
        status, _, body = await self.begin(path, token)
        assert status == 200, body
        return json.loads(body)

    async def create(
        self, owner: str = "local", ends: bool = True, asked: VisualizeRequest = ASKED
    ) -> Record:
        set_caller(Principal(owner, Role.SUBMITTER))
        record = await self.house.desk.create(asked)
        while ends and not self.house.store.get(record.id).over:
            await asyncio.sleep(0.01)
        return record


async def open_site(
    folder: Path, executor: type = QuickExecutor, viewer: Viewer | None = None, **settings: Any
) -> Site:
    house = await House(folder, executor, audit_log=folder / "doors.jsonl", **settings).open()
    return Site(house, Doors(house.settings, house.metrics), viewer)
