"""The data behind the page, over HTTP, with everything real but the optimizer."""

import asyncio
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest
import structlog

from service.ui import api, places
from service.ui.viewer import read_viewer
from tests.service.requests import CUBE, request
from tests.service.security.authorities import NOW, TOKENS, write_tokens
from tests.service.ui.site import STEPS, Site, open_site

OTHER = "nfv_other-0123456789abcdefghijklmnopqrstuvwxyz"
LATE = "nfv_late-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Open to everybody on this machine."""
    found = await open_site(tmp_path)
    yield found
    await found.close()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Site]:
    """Asks for tokens; `submitter` owns what the tests create."""
    more = {"other": (OTHER, "submitter", None), "late": (LATE, "admin", NOW - timedelta(seconds=1))}
    found = await open_site(tmp_path, tokens=write_tokens(tmp_path / "tokens.toml", **more))
    yield found
    await found.close()


async def test_who_may_see_what(guarded: Site) -> None:
    record = await guarded.create("submitter")
    general = ("/ui/api/caller", "/ui/api/models", "/ui/api/models/lesion-shapes/1", "/ui/api/jobs")
    job = f"/ui/api/{record.name}"
    own = (job, f"{job}/events", f"{job}/volumes/final")
    told = {
        "": (401, 401),
        "wrong": (401, 401),
        LATE: (401, 401),
        TOKENS["viewer"]: (200, 404),
        OTHER: (200, 404),
        TOKENS["submitter"]: (200, 200),
        TOKENS["admin"]: (200, 200),
    }
    for token, (everywhere, here) in told.items():
        for paths, expected in ((general, everywhere), (own, here)):
            for path in paths:
                status, headers, body = await guarded.begin(path, token)
                assert (path, token, status) == (path, token, expected)
                if status == 401:
                    assert headers["www-authenticate"] == "Bearer"
                if status != 200:
                    assert record.owner not in body.decode()
        if everywhere == 200:
            seen = [row["name"] for row in (await guarded.json("/ui/api/jobs", token))["jobs"]]
            assert seen == ([record.name] if here == 200 else [])
    # What is not there is not told to whoever brings nothing, either.
    assert (await guarded.begin("/ui/api/nothing"))[0] == 401
    assert (await guarded.begin("/ui/api/nothing", TOKENS["viewer"]))[0] == 404


async def test_other_ways_to_bring_a_token_do_not_count(guarded: Site) -> None:
    token = TOKENS["admin"]
    assert (await guarded.begin(f"/ui/api/jobs?token={token}&access_token={token}"))[0] == 401
    assert (await guarded.begin("/ui/api/jobs", Cookie=f"neurofv-token={token}"))[0] == 401
    assert (await guarded.begin("/ui/api/jobs", Authorization=f"Basic {token}"))[0] == 401


async def test_refusals_are_counted_and_recorded_as_with_grpc(guarded: Site, tmp_path: Path) -> None:
    record = await guarded.create("submitter")
    await guarded.begin("/ui/api/jobs", "wrong")
    await guarded.begin(f"/ui/api/{record.name}", OTHER)
    metric = guarded.house.metrics.registry.get_sample_value
    assert metric("neurofv_auth_failures_total", {"reason": "CREDENTIAL_INVALID"}) == 1
    lines = [json.loads(line) for line in (tmp_path / "doors.jsonl").read_text().splitlines()]
    found = [(line["principal"], line["resource"], line["outcome"]) for line in lines]
    assert found == [("anonymous", "", "CREDENTIAL_INVALID"), ("other", record.name, "JOB_NOT_FOUND")]
    assert [line["facts"]["method"] for line in lines] == [
        "ui:neurofv.v1.JobService/ListJobs",
        "ui:neurofv.v1.JobService/GetJob",
    ]
    # Opening the page is no attempt to get in.
    before = metric("neurofv_auth_failures_total", {"reason": "CREDENTIAL_INVALID"})
    assert (await guarded.json("/ui/api/door"))["open"] is False
    assert (await guarded.begin("/ui/"))[0] == 200
    assert metric("neurofv_auth_failures_total", {"reason": "CREDENTIAL_INVALID"}) == before


async def test_requests_are_counted_by_what_was_asked_and_answered(guarded: Site) -> None:
    record = await guarded.create("submitter")
    asked = (
        ("/ui/api/caller", TOKENS["viewer"], "neurofv.v1.ModelService/ListModels", "200"),
        ("/ui/api/models", "wrong", "neurofv.v1.ModelService/ListModels", "401"),
        (
            f"/ui/api/{record.name}/volumes/final",
            TOKENS["submitter"],
            "neurofv.v1.JobService/ReadVolume",
            "200",
        ),
        (
            f"/ui/api/{record.name}/events?after=x",
            TOKENS["submitter"],
            "neurofv.v1.JobService/WatchJob",
            "400",
        ),
        (f"/ui/api/{record.name}", TOKENS["viewer"], "neurofv.v1.JobService/GetJob", "404"),
        ("/ui/api/nothing", TOKENS["viewer"], "unknown", "404"),
    )
    for path, token, method, status in asked:
        assert (await guarded.begin(path, token))[0] == int(status)
        labels = {"method": method, "status": status}
        found = guarded.house.metrics.registry.get_sample_value("neurofv_ui_requests_total", labels)
        assert (path, found) == (path, 1)


async def test_events_come_in_pages_without_gaps(site: Site) -> None:
    record = await site.create()
    path, after, numbers, kinds = f"/ui/api/{record.name}/events", 0, [], set()
    while True:
        page = await site.json(f"{path}?after={after}")
        assert len(page["events"]) <= api._MOST_EVENTS
        numbers += [int(event["sequence"]) for event in page["events"]]
        kinds |= {key for event in page["events"] for key in event} - {"sequence", "time"}
        assert page["more"] is (len(page["events"]) == api._MOST_EVENTS)
        if page["last"]:
            break
        after = numbers[-1]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > STEPS
    assert kinds == {"accepted", "state_changed", "progress", "volume_begin", "completed"}
    for wrong in ("-1", "x", "1" * 30, str(numbers[-1] + 1)):
        assert (await site.begin(f"{path}?after={wrong}"))[0] == 400


async def test_a_volume_has_the_stored_bytes(site: Site) -> None:
    record = await site.create()
    status, headers, body = await site.begin(f"/ui/api/{record.name}/volumes/final")
    assert (status, headers["content-type"], int(headers["content-length"])) == (
        200,
        "application/gzip",
        len(body),
    )
    stored = next((site.house.settings.data / "volumes" / record.id).glob("*.nii.gz"))
    assert body == stored.read_bytes()
    assert (await site.begin(f"/ui/api/{record.name}/volumes/step00003"))[0] == 404
    assert (await site.begin(f"/ui/api/{record.name}/volumes/..%2f..%2faudit.jsonl"))[0] == 404


async def test_a_damaged_volume_is_not_passed_off_as_whole(site: Site) -> None:
    record = await site.create()
    stored = next((site.house.settings.data / "volumes" / record.id).glob("*.nii.gz"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
    status, _, body = await site.begin(f"/ui/api/{record.name}/volumes/final")
    assert status == 500
    assert json.loads(body)["error"]["reason"] == "ARTIFACT_CORRUPT"
    # Its place is free again.
    assert (await site.begin("/ui/api/models"))[0] == 200


async def test_the_list_names_units_and_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAGE", 2)
    names = [(await site.create()).name for _ in range(3)]
    first = await site.json("/ui/api/jobs")
    second = await site.json(f"/ui/api/jobs?page_token={first['next_page_token']}")
    rows = first["jobs"] + second["jobs"]
    assert [row["name"] for row in rows] == names[::-1]
    assert second["next_page_token"] == ""
    assert {(row["model"], row["steps"], row["state"]) for row in rows} == {
        ("lesion-shapes", STEPS, "JOB_STATE_SUCCEEDED")
    }
    assert rows[0]["objective"]["terms"][0]["class_logit"]["class_name"] == "cube"
    await site.house.desk.create(request(CUBE, f"steps: {STEPS} control {{ random_weights {{ seed: 5 }} }}"))
    newest = (await site.json("/ui/api/jobs"))["jobs"]
    assert [row["control"] for row in newest] == ["random weights, seed 5", ""]


async def test_the_page_forbids_all_but_its_own(site: Site) -> None:
    assert (await site.begin("/ui"))[0] == 308
    paths = ["/ui/", "/ui/main.js", "/ui/style.css", "/ui/icon.svg", "/ui/api/jobs", "/ui/nothing", "/ui"]
    for path in paths:
        _, headers, _ = await site.begin(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        assert "://" not in policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "set-cookie" not in headers
        assert not [name for name in headers if name.startswith("access-control")]
    for path in ("/ui/../settings.py", "/ui/%2e%2e/application.py", "/ui/__init__.py", "/uix"):
        assert (await site.begin(path))[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert (await site.begin("/ui/api/jobs", "", method))[0] == 405


def test_the_page_s_files_hold_nothing_inline_and_name_no_host() -> None:
    folder = files("service.ui") / "page"
    page = (folder / "index.html").read_text()
    assert "<style" not in page
    assert " style=" not in page
    assert not re.search(r"<[^>]* on[a-z]+=", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "innerHTML" not in text


async def test_the_viewer_is_one_file_that_browsers_may_keep(tmp_path: Path) -> None:
    script = tmp_path / "niivue.umd.js"
    script.write_text("globalThis.niivue = {};")
    site = await open_site(tmp_path, viewer=read_viewer(str(script)))
    try:
        assert (await site.json("/ui/api/door"))["viewer"] is True
        status, plain, body = await site.begin("/ui/niivue.js")
        assert (status, plain["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert body.decode().endswith(script.read_text())
        assert b"BSD 2-Clause License" in body
        _, packed, smaller = await site.begin("/ui/niivue.js", **{"Accept-Encoding": "deflate, gzip, br"})
        assert (packed["content-encoding"], gzip.decompress(smaller)) == ("gzip", body)
        assert (packed["vary"], packed["cache-control"]) == ("Accept-Encoding", "no-cache")
        assert packed["etag"] == plain["etag"]
        status, headers, nothing = await site.begin("/ui/niivue.js", **{"If-None-Match": plain["etag"]})
        assert (status, nothing) == (304, b"")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (await site.begin("/ui/niivue.js", **{"If-None-Match": 'W/"other"'}))[0] == 200
    finally:
        await site.close()


async def test_without_a_viewer_there_is_no_such_file(site: Site) -> None:
    assert (await site.json("/ui/api/door"))["viewer"] is False
    assert (await site.begin("/ui/niivue.js"))[0] == 404


def test_a_viewer_that_is_missing_is_logged_and_one_that_is_not_wanted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with structlog.testing.capture_logs() as lines:
        assert read_viewer("none") is None
        assert lines == []
        assert read_viewer("") is None
    assert [line["event"] for line in lines] == ["ui_without_viewer"]
    assert "make viewer" in lines[0]["why"]


def test_a_named_viewer_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "niivue.tgz"
    chosen = {"NEUROFV_VIEWER": str(file), "NEUROFV_DATA": str(tmp_path), "NEUROFV_HTTP_PORT": "0"}
    command = [sys.executable, "-m", "service"]
    ended = subprocess.run(command, env=os.environ | chosen, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert f"NEUROFV_VIEWER is {str(file)!r}: name NiiVue's niivue.umd.js" in ended.stderr


async def test_a_name_of_elsewhere_does_not_reach_an_open_page(site: Site) -> None:
    """A site whose name is pointed at 127.0.0.1 (DNS rebinding) would read along otherwise."""
    for host in ("127.0.0.1", "localhost:8002", "[::1]:8002", "127.0.0.1:1"):
        assert (await site.begin("/ui/api/jobs", Host=host))[0] == 200
    for host in ("evil.example", "evil.example:8002", "127.0.0.1.evil.example", "10.0.0.1:8002"):
        assert (await site.begin("/ui/api/jobs", Host=host))[0] == 421
        assert (await site.begin("/metrics", Host=host))[0] == 200


async def test_readers_who_stop_give_their_places_back(site: Site) -> None:
    record = await site.create()
    for _ in range(places.MOST_AT_ONCE + 4):
        with socket.create_connection(("127.0.0.1", site.server.port)) as plain:
            plain.sendall(f"GET /ui/api/{record.name}/volumes/final HTTP/1.0\r\n\r\n".encode())
    await asyncio.sleep(0.5)
    assert (await site.begin("/ui/api/jobs"))[0] == 200
    assert threading.active_count() < 200
