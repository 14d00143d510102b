"""What proves who calls: bearer tokens of a file, JWTs, client certificates."""

import hashlib
import hmac
import os
import stat
import threading
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.security.identity import Principal, Role


class CredentialsRefused(Exception):
    """A file of credentials or keys cannot be used; the message names the remedy."""


@dataclass(frozen=True)
class Token:
    """A line of the tokens' file.

    Attributes
    ----------
    name : str
        Who bears it.
    role : Role
        What the bearer may do.
    sha256 : str
        Of the token; the token itself is kept nowhere.
    expires : datetime or None
        When it ends.
    """

    name: str
    role: Role
    sha256: str
    expires: datetime | None = None


def hash_token(token: str) -> str:
    """Return what is stored of a token.

    One plain SHA-256 is enough: a token is 256 random bits, which nobody can
    go through. Slow hashes and salts are for passwords, which people choose.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def find_token(tokens: list[Token], token: str) -> Token | None:
    """Look a token up with the same work whether it is there or not."""
    digest, found = hash_token(token), None
    for known in tokens:
        if hmac.compare_digest(known.sha256, digest):
            found = known
    return found


def parse_tokens(text: str, file: str) -> list[Token]:
    """Read the text of a tokens' file.

    Raises
    ------
    CredentialsRefused
        It holds something else; the message repeats no value.
    """
    try:
        entries = tomllib.loads(text).get("token", [])
        tokens = [_token(entry) for entry in entries]
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        kind = type(error).__name__
        raise CredentialsRefused(f"{file} is no file of tokens ({kind}); write it with `token add`") from None
    except (KeyError, ValueError):
        raise CredentialsRefused(
            f"{file} has a token without name, sha256 (64 hexadecimal digits) or role (viewer, submitter, "
            "admin), or one whose `expires` is no time with an offset; write it with `token add`"
        ) from None
    if len({token.name for token in tokens}) != len(tokens):
        raise CredentialsRefused(f"{file} names two tokens alike; revoke one, or rename it")
    return tokens


def _token(entry: dict[str, Any]) -> Token:
    digest, expires = entry["sha256"].lower(), entry.get("expires")
    if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size or not entry["name"]:
        raise ValueError("sha256")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ValueError("expires")
    if set(entry) - {"name", "role", "sha256", "expires"}:
        raise ValueError("unknown key")
    return Token(str(entry["name"]), Role[entry["role"].upper()], digest, expires)


class WatchedFile:
    """A file that is read again when it changes; one thread may ask at a time.

    Parameters
    ----------
    path : Path
        The file.
    private : bool
        Whether it is refused if others than its owner may read it.

    Raises
    ------
    CredentialsRefused
        It cannot be read, or others may read it.
    """

    def __init__(self, path: Path, private: bool = False) -> None:
        self.path = path
        self._private = private
        self._stamp: tuple[int, ...] = ()

    def changed(self) -> bytes | None:
        """Return the content if it is not what it was at the last call, or if that failed."""
        last, self._stamp = self._stamp, ()
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                stamp = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode)
                if stamp == last:
                    self._stamp = last
                    return None
                if self._private and _exposed(state):
                    raise CredentialsRefused(
                        f"{self.path} may be read or written by others than its owner; run: chmod 600 "
                        f"{self.path}"
                    )
                content = file.read()
        except OSError as error:
            raise CredentialsRefused(f"{self.path} cannot be read ({error.strerror})") from None
        self._stamp = stamp
        return content


def _exposed(state: os.stat_result) -> bool:
    """Say whether others than the server may read or write a file."""
    others = 0o077
    # Kubernetes hands secrets over like this: root's, and for the server's own group to read.
    if state.st_uid == 0 != os.geteuid() and state.st_gid == os.getegid():
        others = 0o037
    return bool(stat.S_IMODE(state.st_mode) & others)


class TokenFile:
    """The bearer tokens of a file, read again when it changes.

    Parameters
    ----------
    path : Path
        A TOML file of `[[token]]` tables, as `neurofv-server token add` writes it.

    Raises
    ------
    CredentialsRefused
        It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, private=True)
        # The page's threads ask too: none goes on with old tokens while another reads the new ones.
        self._refreshing = threading.Lock()
        self._tokens: list[Token] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises
        ------
        CredentialsRefused
            It cannot be used any more; nobody is known then, until it can.
        """
        with self._refreshing:
            try:
                content = self._file.changed()
                if content is not None:
                    self._tokens = parse_tokens(content.decode("utf-8", "replace"), str(self._file.path))
            except CredentialsRefused:
                # A token that was revoked in a file with a slip in it must not live on.
                self._tokens = []
                raise

    def find(self, token: str) -> tuple[Principal, bool] | None:
        """Return the bearer of a token and whether its time is over; None if it is not known."""
        found = find_token(self._tokens, token)
        if found is None:
            return None
        over = found.expires is not None and found.expires <= datetime.now(UTC)
        return Principal(found.name, found.role), over
