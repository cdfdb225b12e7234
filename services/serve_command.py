"""The command `viva serve`; nothing heavy is imported before it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.options import OptionError

if TYPE_CHECKING:
    from services.deployment import Deployment

EXIT_FAILED = 1


def _option(name: str, metavar: str, text: str) -> object:
    """An option whose value the deployment judges."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


def _jobs_option(name: str, metavar: str, text: str) -> object:
    """An option that `viva jobs` has as well, with the same variable."""
    variable = f"VIVA_JOBS_{name.upper()}"
    return typer.Option(
        f"--jobs-{name}", envvar=variable, metavar=metavar, help=text, show_default=False
    )


def serve(  # noqa: PLR0913 - one parameter per option
    deployment: Annotated[
        str, _option("deployment", "NAME|FILE", "What to serve. (default: laptop)")
    ] = "laptop",
    host: Annotated[str | None, _option("host", "HOST", "Address to listen at.")] = None,
    port: Annotated[int | None, _option("port", "N", "Port; 0 takes a free one.")] = None,
    grpc_port: Annotated[
        int | None, _option("grpc-port", "N", "Serve gRPC, too, at this port; 0 takes a free one.")
    ] = None,
    jobs_data: Annotated[
        str | None, _jobs_option("data", "DIR", "Where jobs lie. (default: that of viva jobs)")
    ] = None,
    jobs_store: Annotated[
        str | None, _jobs_option("store", "URL", "The jobs' database. (default: SQLite there)")
    ] = None,
    jobs_workers: Annotated[
        int | None,
        _option("jobs-workers", "N", "Do so many jobs at once, behind live sessions. (default: 0)"),
    ] = None,
    model: Annotated[str | None, _option("model", "NAME|DIR", "Model.")] = None,
    plan: Annotated[str | None, _option("plan", "NAME|FILE", "Plan.")] = None,
    chain: Annotated[
        str | None, _option("chain", "local|ray", "Run stages in one process, or as Ray actors.")
    ] = None,
    stages: Annotated[str | None, _option("stages", "N", "Cut the steps so.")] = None,
    devices: Annotated[str | None, _option("devices", "LIST", "For --chain ray.")] = None,
    threads: Annotated[int | None, _option("threads", "N", "Threads of the model.")] = None,
    capacity: Annotated[
        int | None, _option("capacity", "N", "Sessions at once. (default: as measured at start)")
    ] = None,
    ice: Annotated[
        list[str] | None, _option("ice", "URL", "STUN or TURN server, such as turn:host:3478.")
    ] = None,
    keys: Annotated[str | None, _option("keys", "FILE", "API keys, one a line.")] = None,
    tls_cert: Annotated[str | None, _option("tls-cert", "FILE", "Certificate chain, PEM.")] = None,
    tls_key: Annotated[str | None, _option("tls-key", "FILE", "Its key, PEM.")] = None,
    model_socket: Annotated[
        str | None, _option("model-socket", "PATH", "Use a model process that listens there.")
    ] = None,
    no_spare: Annotated[
        bool, typer.Option("--no-spare", help="Keep no second model process warm.")
    ] = False,
    traces: Annotated[
        bool, typer.Option("--traces", help="Send OpenTelemetry traces (OTEL_* variables).")
    ] = False,
) -> None:
    """Serve live sessions and the demo page; prints its address once the model is warm."""
    try:
        from services.deployment import Deployment, DeploymentError, read_deployment
        from services.serve import given
    except ImportError as error:
        raise OptionError(
            f"viva serve needs the package {error.name}: pip install 'viva-voce[serve]'"
        ) from error
    try:
        read = read_deployment(deployment)
        top = {
            "host": host,
            "port": port,
            "grpc_port": grpc_port,
            "model": model,
            "plan": plan,
            "threads": threads,
            "keys_file": Path(keys) if keys else None,
            "model_socket": Path(model_socket) if model_socket else None,
            "spare": False if no_spare else None,
            "traces": True if traces else None,
            "tls": _tls(tls_cert, tls_key),
            "jobs": _part(
                read,
                "jobs",
                data=jobs_data or None,
                store=jobs_store or None,
                workers=jobs_workers,
            ),
            "chain": _part(read, "chain", kind=chain, stages=stages, devices=devices),
            "sessions": _part(read, "sessions", capacity=capacity),
            "ice": _part(read, "ice", urls=tuple(ice) if ice else None),
        }
        chosen: Deployment = given(read, **top)
    except DeploymentError as error:
        raise OptionError(str(error)) from error
    _run(chosen)


def _run(deployment: "Deployment") -> None:
    """Serve, and end with one line where that cannot begin."""
    from services.auth import KeyFileError
    from services.deployment import DeploymentError
    from services.model_worker import ModelUnavailable
    from services.serve import serve as serve_deployment
    from services.tracing import TracingMissing

    try:
        status = serve_deployment(deployment)
    except (DeploymentError, KeyFileError, TracingMissing) as error:
        raise OptionError(str(error)) from error
    except (ModelUnavailable, OSError) as error:
        sys.stderr.write(f"viva: {' '.join(str(error).split())}\n")
        raise SystemExit(EXIT_FAILED) from error
    if status:
        raise SystemExit(status)


def _tls(cert: str | None, key: str | None) -> dict[str, str] | None:
    """Both halves of TLS, or none.

    Raises:
        OptionError: only one is given.
    """
    if (cert is None) != (key is None):
        raise OptionError("--tls-cert and --tls-key belong together: give both")
    return None if cert is None or key is None else {"cert": cert, "key": key}


def _part(read: "Deployment", name: str, **options: object) -> dict[str, object] | None:
    """A part of the deployment with options in place; None where none is given."""
    changes = {key: value for key, value in options.items() if value is not None}
    return {**getattr(read, name).model_dump(), **changes} if changes else None
