"""The commands for jobs, against the real server."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

import neurofv
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.running import MODEL, SUBJECT, wait_for
from tests.client.test_command import NEUROFV, command, environment, process
from tests.server import RunningServer

SMALL = ["--class", "cube", "--steps", "3", "--canvas", "48", "--seed", "5"]
LONG = ["--class", "cube", "--steps", "9999", "--canvas", "48"]


@pytest.fixture(scope="module")
def done(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that `neurofv submit` made and `neurofv watch` waited for."""
    folder = tmp_path_factory.mktemp("done")
    run = process(server, "submit", MODEL, *SMALL, "--every", "1", "--pin", cwd=folder)
    assert run.returncode == 0, run.stderr
    name = run.stdout.strip()
    assert name.startswith("jobs/")
    assert list(folder.iterdir()) == []
    run = command(server, "watch", name, "-o", "a.nii.gz", "--snapshots", "way", "--no-picture", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("cube: activation ")
    assert {path.name for path in folder.iterdir()} == {"a.nii.gz", "a.json", "a_gradient.nii.gz", "way"}
    assert 1 <= len(list((folder / "way").iterdir())) <= 3
    return name


def test_watch_begins_behind_any_event(server: RunningServer, done: str, tmp_path: Path) -> None:
    arguments = ["--after", "5", "--out", "late.nii.gz", "--no-picture"]
    run = command(server, "watch", done.removeprefix("jobs/"), *arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        *("late.nii.gz", "late.json", "late_gradient.nii.gz")
    }
    assert json.loads((tmp_path / "late.json").read_text())["job"] == done


def test_jobs_are_listed_and_described(server: RunningServer, done: str, tmp_path: Path) -> None:
    listed = command(server, "jobs", "--state", "succeeded", "--model", MODEL, cwd=tmp_path)
    (row,) = [line for line in listed.stdout.splitlines() if done in line]
    for word in ("succeeded, pinned", f"{MODEL}/1", "cube", "3/3", " s"):
        assert word in row
    assert done not in command(server, "jobs", "--state", "failed", cwd=tmp_path).stdout
    lines = command(server, "jobs", "--json", cwd=tmp_path).stdout.splitlines()
    (record,) = [each for each in map(json.loads, lines) if each["name"] == done]
    assert record["request"]["steps"] == 3
    described = command(server, "job", done, cwd=tmp_path).stdout
    for word in ("succeeded, pinned", "created", "ended", "3 of 3, attempt 1", "volume final", "SHA-256"):
        assert word in described
    assert json.loads(command(server, "job", done, "--json", cwd=tmp_path).stdout)["name"] == done


def test_a_volume_is_downloaded(server: RunningServer, done: str, tmp_path: Path) -> None:
    run = command(server, "download", done, "--volume", "gradient", "--out", "g.nii.gz", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "g.nii.gz\n"
    run = command(server, "download", done, cwd=tmp_path)
    assert (tmp_path / run.stdout.strip()).is_file()
    assert len(list(tmp_path.iterdir())) == 2


def test_jobs_are_cancelled_pinned_and_deleted(server: RunningServer, tmp_path: Path) -> None:
    name = command(server, "submit", MODEL, *LONG, "--request-id", "mine", cwd=tmp_path).stdout.strip()
    again = command(server, "submit", MODEL, *LONG, "--request-id", "mine", cwd=tmp_path).stdout.strip()
    assert name == again
    early = command(server, "delete", name, cwd=tmp_path)
    assert early.returncode == 1
    assert "JOB_NOT_FINISHED" in early.stderr
    assert "cancel" in command(server, "cancel", name, cwd=tmp_path).stdout
    watched = command(server, "watch", name, cwd=tmp_path)
    assert watched.returncode == 1
    assert "JOB_CANCELLED" in watched.stderr
    assert "until it is unpinned" in command(server, "pin", name, cwd=tmp_path).stdout
    assert "is removed at 20" in command(server, "unpin", name, cwd=tmp_path).stdout
    assert "deleted" in command(server, "delete", name, cwd=tmp_path).stdout
    assert "JOB_NOT_FOUND" in command(server, "job", name, cwd=tmp_path).stderr
    assert list(tmp_path.iterdir()) == []


def interrupted(server: RunningServer, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Send Ctrl-C to a command once a job runs."""
    with subprocess.Popen(
        [*NEUROFV, *arguments],
        env=environment(server),
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        wait_for(lambda: server.metric("neurofv_watchers") >= 1)
        wait_for(lambda: server.metric("neurofv_jobs_running") == 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return process.returncode, said


@pytest.mark.parametrize("how", ["watch", "visualize"])
def test_ctrl_c_leaves_the_job_alone(
    server: RunningServer, client: neurofv.Client, how: str, tmp_path: Path
) -> None:
    if how == "watch":
        name = command(server, "submit", MODEL, *LONG, cwd=tmp_path).stdout.strip()
        code, said = interrupted(server, "watch", name, cwd=tmp_path)
    else:
        code, said = interrupted(server, "visualize", MODEL, *LONG, "--detach", cwd=tmp_path)
        (name,) = [job.name for job in client.jobs(states="running")]
    assert code == 130
    assert f"{name} goes on; see it with: neurofv watch {name}" in said
    assert client.job(name).state == vis.JOB_STATE_RUNNING
    client.cancel_job(name)
    wait_for(lambda: client.job(name).state == vis.JOB_STATE_CANCELLED)


def test_a_job_is_run_again_bit_for_bit(server: RunningServer, done: str, tmp_path: Path) -> None:
    run = command(server, "replay", done, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 of 2 volumes have the same bits" in run.stdout
    assert run.stdout.count("equal") == 2
    assert "·" not in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_replay_needs_the_same_images(server: RunningServer, tmp_path: Path) -> None:
    person = ["--subject", str(SUBJECT), "--start", "subject"]
    name = command(server, "submit", MODEL, *SMALL, *person, cwd=tmp_path).stdout.strip()
    command(server, "watch", name, "--no-picture", cwd=tmp_path)
    without = command(server, "replay", name, cwd=tmp_path)
    assert without.returncode == 2
    assert "--subject is missing: the server keeps no images" in without.stderr
    other = command(server, "replay", name, "--subject", __file__, cwd=tmp_path)
    assert other.returncode == 2
    assert "its SHA-256 is" in other.stderr
    run = command(server, "replay", name, "--subject", str(SUBJECT), cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_replay_that_differs_says_so(
    server: RunningServer,
    client: neurofv.Client,
    done: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = client.job(done)
    recorded.completed.provenance.threads += 3
    recorded.request.seed += 1
    monkeypatch.setattr(neurofv.Client, "job", lambda self, name: recorded)
    monkeypatch.setattr("sys.argv", ["neurofv", "replay", done, "--server", server.target])
    with pytest.raises(SystemExit) as caught:
        run_here()
    assert caught.value.code == 1
    said = capsys.readouterr().out
    assert "0 of 2 volumes have the same bits" in said
    assert "threads: recorded" in said


def run_here() -> None:
    from neurofv.cli.app import app

    app()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["job", "jobs/1"], 1, "32 hexadecimal digits"),
        (["job", "0" * 32], 1, "JOB_NOT_FOUND"),
        (["watch", "0" * 32], 1, "JOB_NOT_FOUND"),
        (["replay", "0" * 32], 1, "JOB_NOT_FOUND"),
        (["jobs", "--state", "asleep"], 2, "--state 'asleep': there are: queued"),
        (["jobs", "--limit", "0"], 2, "--limit"),
        (["submit", MODEL], 2, "--class"),
        (["submit", MODEL, "--class", "cube", "--request-id", "a b"], 1, "request_id"),
    ],
)
def test_failures_are_told_in_a_line(
    server: RunningServer, arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    run = command(server, *arguments, cwd=tmp_path)
    assert run.returncode == code
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_volume_is_named_with_those_there_are(
    server: RunningServer, done: str, tmp_path: Path
) -> None:
    run = command(server, "download", done, "--volume", "opacity", cwd=tmp_path)
    assert run.returncode == 2
    assert "--volume 'opacity'" in run.stderr
    assert "final, gradient" in run.stderr
    past = command(server, "watch", done, "--after", "9999", cwd=tmp_path)
    assert past.returncode == 1
    assert "SEQUENCE_OUT_OF_RANGE" in past.stderr
