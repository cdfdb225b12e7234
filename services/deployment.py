"""A deployment: all that `viva serve` can be told, as a typed file (configs/deployments/*.yaml)."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.catalog import configs_folder, is_bare_name
from services.ice import IceError, IcePlan
from services.limits import Rate

MAX_FILE_BYTES = 1 << 20
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class DeploymentError(ValueError):
    """A deployment cannot be used: one line naming the field and the remedy."""


class Part(BaseModel):
    """What every part of the file is: unknown fields are refused, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Part):
    """Certificate chain and key, both PEM files."""

    cert: Path
    key: Path


class Ice(Part):
    """ICE servers; `turn_secret_file` holds the secret shared with the TURN server.

    Media use `udp_ports` (first and last) on the local `addresses`; None: any, all but loopback.
    """

    urls: tuple[str, ...] = ()
    turn_secret_file: Path | None = None
    turn_ttl_s: Annotated[int, Field(ge=60, le=86_400)] = 3600
    username: str = ""
    credential: str = ""
    udp_ports: tuple[int, int] | None = None
    addresses: tuple[str, ...] | None = None


class Sessions(Part):
    """How many sessions there are at once, and how long; `capacity` None: as measured at start."""

    capacity: Count | None = None
    max_queue: Annotated[int, Field(ge=0, le=10_000)] = 16
    max_new: Count = 256
    max_viewers: Count = 8
    idle_timeout_s: Seconds = 300.0
    max_duration_s: Seconds = 3600.0
    grace_s: Seconds = 30.0
    claim_s: Seconds = 30.0
    max_wait_s: Seconds = 300.0
    closing_ms: Annotated[int, Field(ge=0, le=60_000)] = 500
    drain_s: Seconds = 30.0
    token_ttl_s: Annotated[int, Field(ge=10, le=3600)] = 300
    sample_rate: Literal[48_000] = 48_000


class Limits(Part):
    """What callers may send; rates are requests a second for a key or an address."""

    max_json_bytes: Count = 65_536
    max_sdp_bytes: Count = 65_536
    max_speech_bytes: Annotated[int, Field(ge=1, le=1 << 28)] = 16 << 20
    max_picture_bytes: Annotated[int, Field(ge=1, le=1 << 25)] = 12 << 20
    max_picture_pixels: Annotated[int, Field(ge=4096, le=64_000_000)] = 24_000_000
    max_uploads: Count = 64
    upload_ttl_s: Seconds = 3600.0
    max_text_chars: Count = 2000
    max_queued_s: Annotated[int, Field(ge=1, le=3600)] = 180
    body_timeout_s: Seconds = 15.0
    header_timeout_s: Seconds = 15.0
    requests_per_s: Annotated[float, Field(gt=0, le=1e6)] = 50.0
    burst: Count = 200
    sessions_per_s: Annotated[float, Field(gt=0, le=1e6)] = 5.0
    sessions_burst: Count = 50

    @property
    def request_rate(self) -> Rate:
        """For everything."""
        return Rate(per_s=self.requests_per_s, burst=self.burst)

    @property
    def session_rate(self) -> Rate:
        """For what makes sessions and takes pictures."""
        return Rate(per_s=self.sessions_per_s, burst=self.sessions_burst)


class ChainPart(Part):
    """Where the plan's stages run; the words are those of `viva render`."""

    kind: Literal["local", "ray"] = "local"
    stages: str = ""
    devices: str = ""
    strategy: str = ""
    ray_address: str = ""
    spares: str = ""


class Jobs(Part):
    """The batch queue: where it lies (None: as `viva jobs`), what it takes, who does the jobs.

    `workers` is how many jobs are done here at once; 0: `viva jobs work` does them, anywhere that
    has the same data and store. Jobs read uploads, files below `folders`, URLs of `schemes`.
    """

    data: Path | None = None
    store: Annotated[str, Field(repr=False)] = ""
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    segment_s: Annotated[float, Field(ge=0.5, le=600)] = 20.0
    ttl_days: Annotated[float, Field(ge=0, le=3650)] = 7.0
    folders: tuple[Path, ...] = ()
    schemes: tuple[str, ...] = ()
    max_upload_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 4 << 30
    max_data_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 200 << 30
    max_transfers: Count = 32
    sign_chain: Path | None = None
    sign_key: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse half a signature."""
        if (self.sign_chain is None) != (self.sign_key is None):
            raise ValueError("sign_chain and sign_key belong together: give both")
        return self

    @property
    def is_default(self) -> bool:
        """Whether nobody asked for anything."""
        return self == Jobs()


class Deployment(Part):
    """All of it; every field has a default that suits a laptop."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    grpc_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    grpc_client_ca: Path | None = None
    tls: Tls | None = None
    model: str = "pocket"
    plan: str = ""
    model_socket: Path | None = None
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    spare: bool = True
    chain: ChainPart = ChainPart()
    ice: Ice = Ice()
    sessions: Sessions = Sessions()
    limits: Limits = Limits()
    jobs: Jobs = Jobs()
    keys_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    push_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    traces: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what contradicts itself."""
        if "*" in self.cors_origins:
            raise ValueError("cors_origins: '*' opens the API to every page: name the origins")
        if self.grpc_client_ca is not None and self.tls is None:
            raise ValueError("grpc_client_ca: mutual TLS needs tls, too: give cert and key")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def ice_plan(self) -> IcePlan:
        """The ICE servers, with the secret read from its file.

        Raises:
            DeploymentError: names the server or file that cannot be used.
        """
        path = self.ice.turn_secret_file
        try:
            secret = path.read_text(encoding="utf-8").strip() if path else ""
            return IcePlan(
                urls=self.ice.urls,
                turn_secret=secret,
                ttl_s=self.ice.turn_ttl_s,
                username=self.ice.username,
                credential=self.ice.credential,
            )
        except (OSError, UnicodeDecodeError) as error:
            raise DeploymentError(
                f"ice.turn_secret_file {path}: cannot be read ({error})"
            ) from error
        except IceError as error:
            raise DeploymentError(str(error)) from error


def read_deployment(name: str) -> Deployment:
    """A deployment by a shipped name (`laptop`) or the path of a YAML file.

    Raises:
        DeploymentError: one line naming the file, the field and what is wrong.
    """
    path = deployment_path(name)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DeploymentError(f"{path}: has more than {MAX_FILE_BYTES} bytes: is it the file?")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, DeploymentError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise DeploymentError(f"--deployment {path}: cannot be read ({reason})") from error
    return parse_deployment({} if values is None else values, name=str(path))


def parse_deployment(values: object, *, name: str) -> Deployment:
    """A deployment from what a file says.

    Raises:
        DeploymentError: names the first field that is wrong.
    """
    try:
        return Deployment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DeploymentError(f"{name}: {field}: {first['msg']}") from error


def deployment_path(name: str) -> Path:
    """The file that a shipped name or a path stands for; it need not exist."""
    shipped = configs_folder() / "deployments" / f"{name}.yaml"
    return shipped if is_bare_name(name) and shipped.is_file() else Path(name)
