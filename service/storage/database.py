"""Connections to the jobs' database: SQLite by default, PostgreSQL by URL."""

import errno
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from service.errors import StorageBusy, StorageFull
from service.storage import schema

# How long a transaction waits for another process's lock.
_BUSY_SECONDS = 2.0
# "neurofv" on a telephone's keys: the lock that says which server a PostgreSQL database belongs to.
_ADVISORY_KEY = 6387638
_FULL = ("full", "No space left", "could not extend", "could not write")
# From a version of the schema to the next one: what is done to the connection.
MIGRATIONS: dict[int, Callable[[Connection], None]] = {}
_log = structlog.get_logger()


class StorageUnusable(OSError):
    """The storage is not this server's to use; it does not start."""


class Database:
    """The jobs' database; belongs to one server at a time.

    Parameters
    ----------
    url : str
        As SQLAlchemy has it; empty for an SQLite file in the folder.
    folder : Path
        The server's own, made if need be.

    Raises
    ------
    StorageUnusable
        Another server uses it, or a newer version of the service has written it.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._lock = _lock(folder)
        address = make_url(url or f"sqlite:///{folder / 'jobs.sqlite3'}")
        self._writer = _engine(address, "BEGIN IMMEDIATE")
        self._reader = _engine(address, "BEGIN")
        self._owner: Connection | None = None
        try:
            if address.get_backend_name() == "postgresql":
                self._owner = self._claim()
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that changes something.

        Raises
        ------
        StorageFull, StorageBusy
            It could not be begun or committed; nothing has changed.
        """
        with faults(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that reads.

        Raises
        ------
        StorageFull, StorageBusy
            It cannot be read now.
        """
        with faults(), self._reader.begin() as connection:
            yield connection

    def check(self) -> None:
        """Make sure that the database is still this server's.

        Raises
        ------
        StorageUnusable
            The lock was lost, and another server has taken it.
        """
        if self._owner is None:
            return
        try:
            self._owner.execute(text("SELECT 1"))
            self._owner.commit()
        except DBAPIError:
            with suppress(DBAPIError):
                self._owner.close()
            with faults():
                self._owner = self._claim()

    def scrub(self) -> None:
        """Overwrite what was removed: SQLite's log would keep it for a while. A reader may put it off."""
        if self._writer.dialect.name == "sqlite":
            with suppress(DBAPIError, sqlite3.Error):
                connection = self._writer.raw_connection()
                try:
                    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    connection.close()

    def close(self) -> None:
        """Close every connection, and let another server have the folder."""
        if self._owner is not None:
            self._owner.close()
        self._writer.dispose()
        self._reader.dispose()
        self._lock.close()

    def _claim(self) -> Connection:
        """Take the lock that holds for as long as the connection."""
        connection = self._reader.connect()
        free = connection.execute(text(f"SELECT pg_try_advisory_lock({_ADVISORY_KEY})")).scalar_one()
        connection.commit()
        if not free:
            connection.close()
            raise StorageUnusable("another server uses this database (NEUROFV_DATABASE); stop it first")
        return connection

    def _prepare(self) -> None:
        """Make the tables, or bring those of an older version up to date."""
        with self._writer.begin() as connection:
            known = inspect(connection).has_table(schema.about.name)
            if not known:
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.about).values(key="schema", value=str(schema.VERSION)))
                return
            row = select(schema.about.c.value).where(schema.about.c.key == "schema")
            version = int(connection.execute(row).scalar_one())
            if version > schema.VERSION:
                raise StorageUnusable(
                    f"the jobs' database has schema {version}, but this version of the service knows "
                    f"{schema.VERSION}; install the newer version again, or name another database"
                )
            for step in range(version, schema.VERSION):
                MIGRATIONS[step](connection)
                changed = schema.about.update().where(schema.about.c.key == "schema")
                connection.execute(changed.values(value=str(step + 1)))
                _log.info("schema_migrated", version=step + 1)


@contextmanager
def faults() -> Iterator[None]:
    """Turn what a disk and a database refuse into the service's errors."""
    try:
        yield
    except DBAPIError as error:
        # Only its class: the statement holds the caller's data.
        kind = type(error.orig).__name__
        if any(word in str(error.orig) for word in _FULL):
            raise StorageFull("the server's disk is full; try again when there is room") from None
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise StorageBusy("the server's database cannot be written now; try again") from None
        raise RuntimeError(f"the database refused a statement: {kind}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("the server's disk is full; try again when there is room") from None
        if error.errno in (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE):
            raise StorageBusy("the server's disk cannot be written now; try again") from None
        raise


def _engine(address: Any, begin: str) -> Engine:
    if address.get_backend_name() != "sqlite":
        return create_engine(address, pool_pre_ping=True)
    engine = create_engine(address, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, and not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _lock(folder: Path) -> IO[bytes]:
    """Take the folder for this process; the lock goes with it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StorageUnusable(
            f"another server uses {folder.name!r}; stop it, or give this one a folder of its own with "
            "NEUROFV_DATA"
        ) from None
    return file
