"""Settings of the server: environment variables `NEUROFV_*`, then a TOML file, then defaults."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from models import ZOO

_TRACING = (
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry.instrumentation.grpc",
)
RoleName = Literal["viewer", "submitter", "admin"]


class Settings(BaseSettings):
    """What an operator decides.

    Each field is set by the environment variable `NEUROFV_<FIELD>` or by the
    key `<field>` of the TOML file that `NEUROFV_CONFIG` names; the environment
    wins. An unknown key in the file is an error.
    """

    model_config = SettingsConfigDict(env_prefix="NEUROFV_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address on which gRPC listens.")
    port: int = Field(50051, ge=0, le=65535, description="Port of gRPC; 0 lets the system choose.")
    http_host: str = Field("127.0.0.1", description="Address of /metrics, /livez, /readyz and /ui.")
    http_port: int = Field(8002, ge=0, le=65535, description="Port of /metrics, /livez, /readyz and /ui.")
    repository: Path = Field(ZOO, description="Directory <repository>/<name>/<version>/ of bundles.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:<n>."
    )
    threads: int = Field(0, ge=0, description="Threads of a CPU worker; 0 takes every core.")
    data: Path = Field(
        Path("~/.local/state/neurofv"),
        description="Folder of jobs, volumes and the audit log; one server's own.",
    )
    database: str = Field(
        "",
        description="Database of jobs, such as postgresql+psycopg://user@host/name. Empty: SQLite in data.",
    )
    retention_hours: float = Field(168.0, ge=0, description="Hours for which an ended job is kept.")
    request_id_hours: float = Field(24.0, ge=0, description="Hours for which a request_id is remembered.")
    sweep_seconds: float = Field(60.0, gt=0, description="Seconds between removals of what has expired.")
    queue_length: int = Field(4096, ge=1, description="Jobs that may wait before new ones are refused.")
    caller_jobs: int = Field(2048, ge=1, description="Jobs of one caller that have not ended.")
    caller_voxel_steps: int = Field(
        10**13, ge=1, description="Voxels x volumes x steps of a caller's jobs that have not ended."
    )
    caller_bytes: int = Field(50 * 10**9, ge=1, description="Bytes of volumes stored for one caller.")
    max_snapshot_bytes: int = Field(
        256_000_000, ge=0, description="Bytes of snapshots kept of one job; the oldest make room."
    )
    max_steps: int = Field(10_000, ge=1, description="Most optimizer steps a request may ask for.")
    max_terms: int = Field(64, ge=1, description="Most terms an objective may have.")
    max_batch: int = Field(64, ge=1, description="Most volumes a request may ask for.")
    max_voxels: int = Field(
        8_000_000, ge=1, description="Most voxels at once: those of the canvas, times volumes, times copies."
    )
    max_activation_bytes: int = Field(
        0,
        ge=0,
        description="Memory that the network's activations may take; what does not fit is computed again. "
        "0 takes three quarters of what is free when a job starts.",
    )
    max_image_bytes: int = Field(
        256_000_000, ge=1, description="Most bytes of an image in a request, once inflated."
    )
    max_request_bytes: int = Field(64_000_000, ge=1, description="Most bytes of a request, images included.")
    share_batches: bool = Field(
        True, description="Whether jobs of one model, layer and method that wait at once share a batch."
    )
    brains: Path | None = Field(
        None,
        description="Folder of real brains (NIfTI, .mgz; in the model's space) on which patches are pasted.",
    )
    checkpoint_seconds: float = Field(
        10.0, ge=0, description="Seconds between checkpoints; 0 for one at every step."
    )
    max_streams: int = Field(500, ge=1, description="Most calls at once on one connection.")
    max_calls: int = Field(2000, ge=1, description="Most calls at once; more are RESOURCE_EXHAUSTED.")
    insecure: bool = Field(
        False,
        description="Whether plaintext, or callers without any credential, are accepted beyond loopback.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file: the server's certificate and its chain."
    )
    tls_key: Path | None = Field(None, description="PEM file: the private key of the certificate.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file: authorities. Clients must then have a certificate of theirs."
    )
    certificate_roles: dict[str, RoleName] = Field(
        {}, description="Roles of clients by the name in their certificate, as a JSON object."
    )
    certificate_default_role: RoleName | None = Field(
        None, description="Role of clients whose certificate's name has none; absent refuses them."
    )
    tokens: Path | None = Field(
        None, description="TOML file of bearer tokens, as `neurofv-server token add` writes it."
    )
    jwt_keys: Path | None = Field(None, description="Public keys of JWTs: a PEM file, or a JWKS file.")
    jwt_issuer: str | None = Field(None, description="What `iss` of a JWT must be.")
    jwt_audience: str | None = Field(None, description="What `aud` of a JWT must be or hold.")
    jwt_role_claim: str = Field("role", description="The claim of a JWT that names the role.")
    reflection: Literal["auto", "on", "off"] = Field(
        "auto", description="Reflection: auto asks for a credential wherever other calls do; on never does."
    )
    metrics_auth: bool = Field(False, description="Whether /metrics asks for a bearer token.")
    ui: bool = Field(
        True, description="Whether /ui shows models and jobs, to whoever may see them by gRPC too."
    )
    viewer: str = Field(
        "",
        description="What draws volumes at /ui: path of NiiVue's niivue.umd.js or of npm's package of it "
        "(.tgz), or none. Empty: the user's cache, which `make viewer` fills.",
    )
    audit_log: Path | None = Field(
        None, description="File of the audit log; absent: `audit.jsonl` in the folder data."
    )
    grace_seconds: float = Field(5.0, ge=0, description="Time that running calls get at shutdown.")
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+$",
        description="Collector to which OpenTelemetry traces go by OTLP over gRPC, such as "
        "http://localhost:4317; needs the extra `tracing`.",
    )
    log_format: Literal["json", "console"] = Field("json", description="Form of the log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_tracing(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not all(map(_installed, _TRACING)):
            raise ValueError("traces need the extra: pip install 'neurofv-service[tracing]'")
        return endpoint

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then the file."""
        file = os.environ.get("NEUROFV_CONFIG")
        if file is None:
            return (init_settings, env_settings)
        if not Path(file).is_file():
            raise FileNotFoundError(f"NEUROFV_CONFIG names {file!r}, which is no file")
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file))


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
