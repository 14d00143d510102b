"""Places where tests let the process die, as `kill -9` would.

`NEUROFV_FAILPOINT=name:count:file` ends the process at the count-th pass of a
place, while the file exists; the file goes first, so that the next process
lives. Unset, a failpoint costs a dictionary look-up.
"""

import os
import signal
from collections import Counter
from pathlib import Path

FAILPOINTS = {
    "job.before_commit": "the job's row is written, not yet committed",
    "job.after_commit": "the job is committed, its caller not yet answered",
    "events.before_commit": "events are written, not yet committed",
    "events.after_commit": "events are committed, nobody has been sent them",
    "volume.before_rename": "a volume's file is complete under its temporary name",
    "volume.after_rename": "a volume's file is in place, its event not yet written",
    "checkpoint.before_rename": "a checkpoint is complete under its temporary name",
    "checkpoint.after_rename": "a checkpoint is in place, its row not yet committed",
    "end.before_commit": "the job's end is written, not yet committed",
    "end.after_commit": "the job's end is committed",
    "cancel.before_commit": "the wish to cancel is written, not yet committed",
    "delete.before_commit": "the job's rows are removed, not yet committed",
    "delete.after_commit": "the job's rows are gone, its files not yet",
    "audit.after_write": "the audit log has the record, the act has not begun",
    "worker.step": "the worker has told of a step",
    "worker.before_checkpoint": "the worker is about to send a checkpoint",
    "worker.before_result": "the worker is about to judge the result",
}
_passes: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here if a test wants it.

    Parameters
    ----------
    name : str
        One of `FAILPOINTS`.
    """
    wanted = os.environ.get("NEUROFV_FAILPOINT")
    if not wanted:
        return
    place, count, flag = wanted.split(":", 2)
    if place != name:
        return
    _passes[name] += 1
    if _passes[name] >= int(count) and Path(flag).exists():
        Path(flag).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
