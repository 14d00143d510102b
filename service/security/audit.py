"""The audit log: what was asked of the server, by whom, in a chain of hashes.

A line is canonical JSON; its `hash` is the SHA-256 of the line without that
key, and its `previous` the hash of the line before. So a line that is altered,
removed, inserted or moved breaks the chain. What a chain cannot show is a cut
end: for that the newest sequence and hash also stand in `<log>.head`.

Which of the two can be ahead? A record is on the disk before the head is
written, so a crash leaves the log ahead, never the head: a head that the log
does not hold means that lines were cut off.

The file is not rotated: a chain has one beginning. A hundred thousand records
take some 40 MB, and are checked in about 4 s at the next start.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

import structlog

from service.errors import StorageBusy, StorageFull
from service.failpoints import failpoint
from service.security.identity import SERVER, Principal

NO_HASH = "0" * 64
_LONGEST_TEXT = 256
_MOST_FACTS = 32
_FACT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = structlog.get_logger()


class AuditBroken(Exception):
    """The log is not what was written; the message names the line and the remedy."""


class AuditLog:
    """An append-only file of records, which one server writes.

    Methods may be called from several threads; `record` waits for the disk.

    Parameters
    ----------
    path : Path
        The log; made if it is missing. `<path>.head` lies beside it.
    on_record : callable
        Called after each record.

    Raises
    ------
    AuditBroken
        The chain is broken, its end is cut off, or another server writes it.
    OSError
        It cannot be read or made.
    """

    def __init__(self, path: Path, on_record: Callable[[], object] = lambda: None) -> None:
        self._path = path
        self._on_record = on_record
        self._head_path = path.with_name(path.name + ".head")
        self._lock = threading.Lock()
        self._file = _open(path)
        try:
            noted = self._read_head()
            chain = _Chain(noted[0]).take(path)
            self._sequence, self._hash, self._size = chain.sequence, chain.hash, chain.size
            self._head_file = self._open_head(noted, chain)
            if chain.torn:
                os.ftruncate(self._file, self._size)
                self.record(SERVER, "audit.recovered", "audit", bytes_cut=chain.torn)
            self._note_head()
        except BaseException:
            os.close(self._file)
            raise

    @property
    def head(self) -> tuple[int, str]:
        """The newest record's sequence and hash; 0 and zeros before the first."""
        with self._lock:
            return self._sequence, self._hash

    def record(
        self, principal: Principal | str, action: str, resource: str, outcome: str = "OK", **facts: object
    ) -> None:
        """Append a record; it is on the disk when this returns.

        Call it before the act: if it raises, do not act.

        Parameters
        ----------
        principal : Principal or str
            Who asks.
        action : str
            What for, such as `job.create`.
        resource : str
            Of what, such as `jobs/<id>`.
        outcome : str
            `OK`, or the reason of a refusal.
        **facts
            Digests, names and numbers; never a request's body, an image or a token.

        Raises
        ------
        StorageFull, StorageBusy
            It cannot be written.
        """
        name = principal.name if isinstance(principal, Principal) else principal
        with self._lock:
            entry = {
                "sequence": self._sequence + 1,
                "time": datetime.now(UTC).isoformat(timespec="microseconds"),
                "principal": _bounded(name),
                "action": _bounded(action),
                "resource": _bounded(resource),
                "outcome": _bounded(outcome),
                "facts": _facts(facts),
                "previous": self._hash,
            }
            digest = hashlib.sha256(canonical(entry)).hexdigest()
            self._append(canonical(entry | {"hash": digest}) + b"\n")
            self._sequence, self._hash = self._sequence + 1, digest
            self._note_head()
        self._on_record()
        failpoint("audit.after_write")

    def lines(self, after: int = 0) -> Iterator[str]:
        """Yield the records behind a sequence, as they stand in the file, without their line ends."""
        with self._lock:
            last = self._sequence
        with self._path.open("rb") as file:
            for line in islice(file, after, last):
                yield line.decode().removesuffix("\n")

    def close(self) -> None:
        """Give the file back; nothing is left to write."""
        os.close(self._head_file)
        os.close(self._file)

    def _append(self, line: bytes) -> None:
        """Write a line to the disk, or leave the file as it was."""
        try:
            # What a write before this one has left behind, if its removal failed too.
            if os.fstat(self._file).st_size != self._size:
                os.ftruncate(self._file, self._size)
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                _log.error("audit_tail_left", code=error.errno)
            if error.errno in _FULL:
                raise StorageFull(
                    "the server's disk is full: the audit log cannot be written; nothing was done"
                ) from None
            raise StorageBusy("the audit log cannot be written now; nothing was done") from None
        self._size += len(line)

    def _read_head(self) -> tuple[int, str]:
        """Return the sequence and hash that were noted last; make the head before the first record."""
        if not self._head_path.exists():
            if self._path.stat().st_size:
                raise AuditBroken(
                    f"{self._head_path.name} is missing, so the log's end may be cut off; put it back, or "
                    "move the log away to begin a new one"
                )
            # Under its name only when it is whole.
            made = self._head_path.with_name(self._head_path.name + ".new")
            made.touch(0o600)
            with made.open("wb") as file:
                file.write(_head_line(0, NO_HASH))
                file.flush()
                os.fsync(file.fileno())
            made.replace(self._head_path)
            _sync_folder(self._path.parent)
        found = re.fullmatch(rb"(\d{20}) ([0-9a-f]{64})\n", self._head_path.read_bytes())
        if found is None:
            raise AuditBroken(f"{self._head_path.name} is damaged; put it back from a copy")
        return int(found[1]), found[2].decode()

    def _open_head(self, noted: tuple[int, str], chain: "_Chain") -> int:
        """Compare the head with the log, and keep it open."""
        sequence, digest = noted
        if chain.wanted_hash != digest:
            raise AuditBroken(
                f"the log ends or differs at line {min(sequence, chain.sequence + 1)}, but its head says "
                f"that there were {sequence} records; put the lines back from a copy"
            )
        return os.open(self._head_path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _note_head(self) -> None:
        """Overwrite the head in place. A crash before this leaves the log ahead, which is allowed."""
        try:
            os.pwrite(self._head_file, _head_line(self._sequence, self._hash), 0)
        except OSError as error:
            # The record stands; the next one takes the head along.
            _log.error("audit_head_not_written", code=error.errno)


class _Chain:
    """What a file holds, checked line by line; notes the hash of the record that is wanted."""

    def __init__(self, wanted: int) -> None:
        self.sequence, self.hash = 0, NO_HASH
        self.size = self.torn = 0
        self.wanted_hash = None if wanted else NO_HASH
        self._wanted = wanted

    def take(self, path: Path) -> Self:
        """Read a file to its end."""
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    # Only the last one can be so: a process died while it wrote it.
                    self.torn = len(line)
                elif not self._follows(line):
                    raise AuditBroken(
                        f"line {number} of {path.name} does not continue the chain: it was altered, or lines "
                        "before it were; `neurofv audit-log verify` says what; put the log back from a copy"
                    )
        return self

    def _follows(self, line: bytes) -> bool:
        """Take a line in if it is the next link."""
        try:
            entry: Any = json.loads(line)
            digest = entry.pop("hash")
            good = (
                canonical(entry | {"hash": digest}) + b"\n" == line
                and hashlib.sha256(canonical(entry)).hexdigest() == digest
                and (entry["sequence"], entry["previous"]) == (self.sequence + 1, self.hash)
            )
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return False
        self.sequence, self.hash = self.sequence + 1, digest
        self.size += len(line)
        if self.sequence == self._wanted:
            self.wanted_hash = digest
        return good


def canonical(entry: dict[str, Any]) -> bytes:
    """Return the one way to write a record: sorted keys, no blanks, ASCII."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _open(path: Path) -> int:
    """Open the log for one writer."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o600)
    os.fchmod(file, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise AuditBroken(f"another server writes {path.name}; name another file") from None
    _sync_folder(path.parent)
    return file


def _sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _head_line(sequence: int, digest: str) -> bytes:
    # Always as long, so that it is overwritten in place: a rename would cost another wait for the disk.
    return f"{sequence:020d} {digest}\n".encode()


def _facts(facts: dict[str, object]) -> dict[str, object]:
    """Bound what is told beside: few, short, plain values."""
    kept: dict[str, object] = {}
    for name, value in islice(facts.items(), _MOST_FACTS):
        if _FACT.fullmatch(name):
            plain = value is None or isinstance(value, bool | int)
            kept[name] = value if plain else _bounded(str(value))
    return kept


def _bounded(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
