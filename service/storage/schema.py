"""The tables. A change here raises `VERSION` and adds a step to `database.MIGRATIONS`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

VERSION = 1
metadata = MetaData()
# SQLite numbers rows by itself only where the key is a plain INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")

about = Table(
    "neurofv",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", String(255), nullable=False),
)
job = Table(
    "job",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(255), nullable=False),
    Column("state", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    # Seconds since 1970; null before it happens.
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("expires", Double),
    # The resolved request, with digests in place of images.
    Column("request", LargeBinary, nullable=False),
    # The same with its images, if it has any; gone once the job has ended.
    Column("private", LargeBinary),
    Column("share_method", LargeBinary, nullable=False),
    Column("share_volumes", Integer, nullable=False),
    Column("share_voxels", BigInteger, nullable=False),
    Column("voxel_steps", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    # Events and volumes that the worker has told.
    Column("told", BigInteger, nullable=False),
    Column("step", Integer, nullable=False),
    # Times the process died with the job.
    Column("crashes", Integer, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    # google.rpc.Status.
    Column("error", LargeBinary),
    Index("job_by_owner", "owner", "number"),
    Index("job_by_state", "state"),
    Index("job_by_expiry", "expires"),
)
# A VisualizeResponse each; a volume is its `volume_begin`.
event = Table(
    "event",
    metadata,
    Column("job", _Number, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
volume = Table(
    "volume",
    metadata,
    Column("job", _Number, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("snapshot", Boolean, nullable=False),
    # Whether its file is there; snapshots make room for newer ones.
    Column("kept", Boolean, nullable=False),
)
checkpoint = Table(
    "checkpoint",
    metadata,
    Column("job", _Number, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("told", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
request_id = Table(
    "request_id",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("body", String(64), nullable=False),
    Column("job", String(32), nullable=False),
    Column("expires", Double, nullable=False),
)
# Jobs whose time is over: their owners are told so for a while.
tombstone = Table(
    "tombstone",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("removed", Double, nullable=False),
)
