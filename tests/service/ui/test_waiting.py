"""Pages that wait for news: places of their own, and an end with the server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from benchmarks.reliability.quick import QuickExecutor
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.job import Job, Outcome
from service.ui import api, places
from tests.service.security.authorities import TOKENS, write_tokens
from tests.service.ui.site import Site, open_site

OTHER = "nfv_other-0123456789abcdefghijklmnopqrstuvwxyz"


class Still(QuickExecutor):
    """Takes a job up and does nothing until it is paused."""

    async def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        while not self._pausing:
            await asyncio.sleep(0.01)
        for job in jobs:
            yield job, Outcome(vis.JOB_STATE_QUEUED)


async def test_waiting_pages_take_no_place_from_probes_and_hold_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_LONGEST_WAIT", 30.0)
    site = await open_site(tmp_path, Still)
    try:
        record = await site.create(ends=False)
        while site.house.store.get(record.id).state != vis.JOB_STATE_RUNNING:
            await asyncio.sleep(0.01)
        last = site.house.store.get(record.id).last_sequence
        path = f"/ui/api/{record.name}/events?after={last}"
        waiting = [site.begin(path) for _ in range(places.MOST_AT_ONCE + 8)]
        while sum(answer.done() for answer in waiting) < 8:
            await asyncio.sleep(0.01)
        assert max([await _gap(site) for _ in range(20)]) < 2.0
        assert [answer.result()[0] for answer in waiting if answer.done()] == [503] * 8
        # News reach all who wait, at once.
        await site.house.desk.cancel(record)
        statuses = [(await answer)[0] for answer in waiting]
        assert statuses.count(200) == places.MOST_AT_ONCE
        # All places are free again.
        assert (await site.begin("/ui/api/jobs"))[0] == 200
    finally:
        await site.close()


async def test_one_who_waits_much_leaves_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_LONGEST_WAIT", 30.0)
    site = await open_site(
        tmp_path, Still, tokens=write_tokens(tmp_path / "tokens.toml", other=(OTHER, "submitter", None))
    )
    try:
        record = await site.create("submitter", ends=False)
        while site.house.store.get(record.id).state != vis.JOB_STATE_RUNNING:
            await asyncio.sleep(0.01)
        path = f"/ui/api/{record.name}/events?after={site.house.store.get(record.id).last_sequence}"
        waiting = [site.begin(path, TOKENS["submitter"]) for _ in range(places.MOST_EACH + 3)]
        while sum(answer.done() for answer in waiting) < 3:
            await asyncio.sleep(0.01)
        for answer in (answer.result() for answer in waiting if answer.done()):
            assert (answer[0], answer[1]["retry-after"]) == (429, "2")
            assert b"you have too many" in answer[2]
        labels = {"method": "neurofv.v1.JobService/WatchJob", "status": "429"}
        metric = site.house.metrics.registry.get_sample_value
        assert metric("neurofv_ui_requests_total", labels) == 3
        for token in (OTHER, TOKENS["viewer"], TOKENS["admin"]):
            assert (await site.begin("/ui/api/jobs", token))[0] == 200
        assert (await site.begin("/ui/api/jobs", "wrong"))[0] == 401
        await site.house.desk.cancel(record)
        assert [(await answer)[0] for answer in waiting].count(200) == places.MOST_EACH
        assert (await site.begin("/ui/api/jobs", TOKENS["submitter"]))[0] == 200
    finally:
        await site.close()


async def _gap(site: Site) -> float:
    """Ask a probe while others wait; return for how long the server's loop, which is this one, was away."""
    begun = time.monotonic()
    await asyncio.sleep(0.01)
    gap = time.monotonic() - begun
    assert (await site.begin("/livez"))[0] == 200
    return gap


async def test_a_page_that_waits_is_told_when_the_server_ends(tmp_path: Path) -> None:
    site = await open_site(tmp_path, Still)
    running = await site.create(ends=False)
    while site.house.store.get(running.id).state != vis.JOB_STATE_RUNNING:
        await asyncio.sleep(0.01)
    # Nothing becomes of it: only the server's end is to be told.
    queued = await site.create(ends=False)
    last = site.house.store.get(queued.id).last_sequence
    waiting = site.begin(f"/ui/api/{queued.name}/events?after={last}")
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await site.house.desk.dispatcher.drain(5)
    site.house.desk.wake()
    status, _, body = await asyncio.wait_for(waiting, 10)
    assert (status, json.loads(body)["error"]["reason"]) == (503, "SERVER_DRAINING")
    await site.close()
