"""`viva chain`: look at chains that run on this machine, as the user whose they are."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from services.terminal import drawn, write

if TYPE_CHECKING:
    from pipeline.snapshot import ChainSnapshot

chain_app = typer.Typer(help="Watch chains that run on this machine.", no_args_is_help=True)


@chain_app.command("list")
def chain_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the chains that run."""
    from pipeline.snapshot import pack_snapshot
    from pipeline.watch_socket import running_chains
    from services.chain_view import chains_table

    running = running_chains()
    if as_json:
        write(f"[{', '.join(pack_snapshot(seen).decode() for seen in running)}]\n")
    else:
        write(drawn(chains_table(running)))


@chain_app.command("watch")
def chain_watch(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One of viva chain list, if several run.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print the chain as it is now.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON objects, one a line, until the chain ends.")
    ] = False,
) -> None:
    """Draw a running chain: what each stage holds, how long it works and waits."""
    from pipeline.watch_socket import Watcher, find_chain

    # Leaving is how one stops to watch: no failure.
    with Watcher(find_chain(name or None)) as watcher, contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _print_json(watcher.snapshots(), once=once)
        elif once or not sys.stdout.isatty():
            _print_once(watcher.snapshots())
        else:
            _draw(watcher.snapshots())


def _print_json(snapshots: "Iterator[ChainSnapshot]", *, once: bool) -> None:
    from pipeline.snapshot import pack_snapshot

    for seen in itertools.islice(snapshots, 1) if once else snapshots:
        write(pack_snapshot(seen).decode() + "\n")


def _print_once(snapshots: "Iterator[ChainSnapshot]") -> None:
    from services.chain_view import chain_picture

    for seen in itertools.islice(snapshots, 1):
        write(drawn(chain_picture(seen)))


def _draw(snapshots: "Iterator[ChainSnapshot]") -> None:
    """Draw each snapshot over the one before; the last one stays."""
    from rich.console import Console
    from rich.live import Live

    from services.chain_view import chain_picture

    with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
        for seen in snapshots:
            live.update(chain_picture(seen), refresh=True)
