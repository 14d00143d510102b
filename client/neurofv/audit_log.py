"""Check an audit log without trusting the server that wrote it.

Each record is a line of canonical JSON. Its `hash` is the SHA-256 of the line
without that key, its `previous` the hash of the line before; the first one's is
64 zeros. Sequences begin at 1 and have no gaps.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_HASH = "0" * 64
_FIELDS = {
    "sequence": int,
    "time": str,
    "principal": str,
    "action": str,
    "resource": str,
    "outcome": str,
    "facts": dict,
    "previous": str,
    "hash": str,
}


@dataclass(frozen=True)
class Fault:
    """The first place where a log is not what was written.

    Attributes
    ----------
    sequence : int
        The record that should stand there.
    what : str
        What is wrong with it.
    """

    sequence: int
    what: str


@dataclass(frozen=True)
class Verdict:
    """What a check has found.

    Attributes
    ----------
    records : int
        Records in front of the fault, or all.
    head : str
        Hash of the last of them; note it elsewhere, so that a cut end is found later.
    fault : Fault or None
        What is wrong; None if the chain holds.
    """

    records: int
    head: str
    fault: Fault | None = None


def verify(lines: Iterable[str], head: str | None = None) -> Verdict:
    """Find the first broken link of a log.

    Parameters
    ----------
    lines : iterable of str
        The whole log, oldest record first, without line ends.
    head : str, optional
        A hash noted earlier. The log must hold it: otherwise its end was cut off, or all of it
        written anew.

    Returns
    -------
    Verdict
        With the fault, if there is one.

    Examples
    --------
    >>> verify([]).fault is None
    True
    """
    records, last, seen = 0, NO_HASH, head in (None, NO_HASH)
    for line in lines:
        entry, fault = _read(line)
        fault = fault or _misplaced(entry, records + 1, last)
        if fault:
            return Verdict(records, last, Fault(records + 1, fault))
        records, last = records + 1, entry["hash"]
        seen = seen or last == head
    if not seen:
        what = f"no record has the hash {head} that was noted: the end was cut off, or the log was replaced"
        return Verdict(records, last, Fault(records + 1, what))
    return Verdict(records, last)


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a log's file; a line end other than the log's own stays part of its line."""
    with Path(path).open("rb") as file:
        for line in file:
            # The mark makes a last line without its end no record.
            text = line[:-1] if line.endswith(b"\n") else line + b"\0"
            yield text.decode("utf-8", "backslashreplace")


def read_head(path: str | Path) -> str | None:
    """Return the hash that the server keeps beside a log's file, in `<file>.head`; None without one."""
    beside = Path(f"{path}.head")
    if not beside.is_file():
        return None
    return beside.read_text(encoding="ascii", errors="replace").strip().rpartition(" ")[2]


def _read(line: str) -> tuple[dict[str, Any], str]:
    """Return a record, and what is wrong with it by itself."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "the line is no record: it was altered, or is cut off"
    if not isinstance(entry, dict) or {key: type(value) for key, value in entry.items()} != _FIELDS:
        return {}, "the line is no record: it has other fields"
    plain = {key: value for key, value in entry.items() if key != "hash"}
    try:
        same = _canonical(entry) == line
        digest = hashlib.sha256(_canonical(plain).encode("ascii")).hexdigest()
    except ValueError:
        return {}, "the line is no record: it holds what is no JSON"
    if not same or digest != entry["hash"]:
        return entry, "the record was altered: it does not have the hash that it names"
    return entry, ""


def _misplaced(entry: dict[str, Any], expected: int, last: str) -> str:
    """Return what is wrong with a record's place."""
    found = entry["sequence"]
    if found > expected:
        return f"records {expected} to {found - 1} were removed, or moved"
    if found < expected:
        return f"record {found} stands here: it was inserted, moved or repeated"
    if entry["previous"] != last:
        return "the record does not follow the one before it: one of the two was replaced"
    return ""


def _canonical(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
