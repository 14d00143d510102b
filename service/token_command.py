"""`neurofv-server token`: who may call, in a file of hashed bearer tokens."""

import fcntl
import os
import re
import secrets
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service.security.credentials import CredentialsRefused, Token, hash_token, parse_tokens
from service.security.identity import Role

_RANDOM_BYTES = 32
# Tells people and scanners of leaked secrets what they have found.
_PREFIX = "nfv_"
# Needs no escaping in TOML; what stands for others is not to be had.
_NAME = re.compile(r"(?!(?:local|server|anonymous)$)[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def add_parser(commands: Any) -> None:
    """Declare the command."""
    token = commands.add_parser("token", help="add, list and revoke bearer tokens")
    actions = token.add_subparsers(dest="action", required=True)
    for name, text in (("add", "make a token, shown once"), ("list", "list"), ("revoke", "remove a token")):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "--file", type=Path, default=os.environ.get("NEUROFV_TOKENS"), help="the TOML file"
        )
        if name != "list":
            action.add_argument("name", help="who bears it")
        if name == "add":
            roles = [role.name.lower() for role in Role]
            action.add_argument("--role", choices=roles, required=True, help="what the bearer may do")
            action.add_argument("--days", type=float, help="how long it is good; without end by default")


def run(arguments: Namespace) -> None:
    """Do what the command says."""
    if arguments.file is None:
        sys.exit("neurofv-server: name the file of tokens with --file or NEUROFV_TOKENS")
    try:
        {"add": _add, "list": _list, "revoke": _revoke}[arguments.action](arguments)
    except CredentialsRefused as error:
        sys.exit(f"neurofv-server: {error}")
    except OSError as error:
        sys.exit(f"neurofv-server: {arguments.file} cannot be written: {error.strerror}")


def _add(arguments: Namespace) -> None:
    if not _NAME.fullmatch(arguments.name):
        sys.exit(
            f"neurofv-server: the name {arguments.name!r} cannot be had; take letters, digits and . _ @ -, "
            "at most 64, but not local, server or anonymous"
        )
    expires = None
    if arguments.days is not None:
        if not 0 < arguments.days <= 36500:
            sys.exit(f"neurofv-server: --days is {arguments.days:g}; give more than 0 and at most 36500")
        expires = (datetime.now(UTC) + timedelta(days=arguments.days)).replace(microsecond=0)
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    with _edited(Path(arguments.file)) as tokens:
        if any(known.name == arguments.name for known in tokens):
            sys.exit(
                f"neurofv-server: there is a token of {arguments.name!r}; revoke it, or take another name"
            )
        tokens.append(Token(arguments.name, Role[arguments.role.upper()], hash_token(token), expires))
    print(token)
    print("Give it to its bearer now: it is stored nowhere, and not shown again.", file=sys.stderr)


def _revoke(arguments: Namespace) -> None:
    with _edited(Path(arguments.file)) as tokens:
        kept = [token for token in tokens if token.name != arguments.name]
        if len(kept) == len(tokens):
            names = ", ".join(token.name for token in tokens) or "none"
            sys.exit(
                f"neurofv-server: no token of {arguments.name!r} in {arguments.file}; there are: {names}"
            )
        tokens[:] = kept


def _list(arguments: Namespace) -> None:
    for token in _read(Path(arguments.file)):
        end = token.expires.isoformat() if token.expires else "without end"
        over = " (over)" if token.expires and token.expires <= datetime.now(UTC) else ""
        print(f"{token.name}\t{token.role.name.lower()}\t{end}{over}")


def _read(path: Path) -> list[Token]:
    return parse_tokens(path.read_text(encoding="utf-8"), str(path)) if path.exists() else []


@contextmanager
def _edited(path: Path) -> Iterator[list[Token]]:
    """Read the tokens, and write them again after the block, whole or not at all."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Two commands at once take turns, so that none loses the other's token.
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = _read(path)
        yield tokens
        # mkstemp makes it readable by its owner only.
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(file, "w", encoding="utf-8") as new:
                new.write(_text(tokens))
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(tokens: list[Token]) -> str:
    lines = ["# Written by `neurofv-server token`. Tokens are stored as their SHA-256 only."]
    for token in tokens:
        lines += ["", "[[token]]", f'name = "{token.name}"', f'role = "{token.role.name.lower()}"']
        lines.append(f'sha256 = "{token.sha256}"')
        if token.expires:
            lines.append(f"expires = {token.expires.isoformat()}")
    return "\n".join(lines) + "\n"
