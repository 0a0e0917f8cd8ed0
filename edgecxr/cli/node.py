"""`edgecxr node`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.serve import Config

nodes = typer.Typer(
    help="Look at a node that `edgecxr serve` runs, or help it on.",
    epilog="Examples:  edgecxr node status --config node.toml  |  edgecxr node retry --config node.toml",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(nodes, name="node")


users = typer.Typer(
    help="Users of the web page and their roles.",
    epilog="Example:  edgecxr node user add jane --role viewer --config node.toml",
    no_args_is_help=True,
    rich_markup_mode=None,
)
nodes.add_typer(users, name="user")
UserName = Annotated[str, typer.Argument(help="Of a user.")]


@nodes.command("status", epilog="Example:  edgecxr node status --config node.toml")
def node_status(
    config: Config = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how many films and results are in which state."""
    from edgecxr.node.check import describe, status
    from edgecxr.node.node_config import read_config
    from edgecxr.terminal import show_json, show_text

    now = status(read_config(config))
    if json_:
        show_json(json.dumps(now))
    else:
        show_text(describe(now))


@nodes.command("retry", epilog="Example:  edgecxr node retry --config node.toml --to pacs")
def node_retry(
    config: Config = None,
    to: Annotated[str | None, typer.Option(metavar="NAME", help="Of this destination alone.")] = None,
) -> None:
    """Send again what was given up or dropped, and what waits."""
    from edgecxr.node.audit.audit_events import Audit
    from edgecxr.node.check import destination_of, opened
    from edgecxr.node.deliveries import Deliveries
    from edgecxr.node.node_config import read_config
    from edgecxr.terminal import show

    read = read_config(config)
    if to is not None:
        destination_of(read, to)
    with opened(read) as spool:
        names = [each.name for each in read.destination] if to is None else [to]
        deliveries = Deliveries(spool)
        count = sum(deliveries.retry(name) for name in names)
        waiting = sum(deliveries.hurry(name) for name in names)
        Audit(read, "command").retried(count + waiting, to)
    show(f"{count} results that were given up are sent again, {waiting} that waited for their next try are tried now")


@nodes.command("echo", epilog="Example:  edgecxr node echo pacs --config node.toml")
def node_echo(
    name: Annotated[str, typer.Argument(help="Of a destination.")],
    config: Config = None,
) -> None:
    """Ask a destination by C-ECHO, or by HTTP, whether it is there."""
    import sqlite3
    from contextlib import suppress

    from edgecxr.errors import CheckFailed, MissingPackage, UsageError
    from edgecxr.extras import installed
    from edgecxr.node.check import destination_of, opened
    from edgecxr.node.node_config import read_config
    from edgecxr.terminal import show

    read = read_config(config)
    to = destination_of(read, name)
    if installed("pynetdicom") is None:
        raise MissingPackage("pynetdicom", "node", "edgecxr node echo")
    from edgecxr.node.sending.association import quiet
    from edgecxr.node.sending.failures import Unreachable
    from edgecxr.node.sending.send import connection_to

    def noted(answered: bool) -> None:
        with (
            suppress(UsageError, sqlite3.Error),
            opened(read) as spool,
        ):  # the web page shows it, if a node has run here
            spool.note(f"echo.{name}", "answered" if answered else "did_not_answer")

    quiet()
    connection = connection_to(to, read)
    try:
        connection.verify()
        noted(True)
    except Unreachable as error:
        noted(False)
        raise CheckFailed(f"{name}: {error}") from error
    finally:
        connection.release()
    show(f"{name}: {to.place} answers")


@nodes.command(
    "ca",
    epilog="Examples:  edgecxr node ca certificates node --host 10.1.2.3  |  edgecxr node ca certificates ct1",
)
def node_ca(
    folder: Annotated[Path, typer.Argument(help="Of the authority and its certificates; made if missing.")],
    name: Annotated[str, typer.Argument(help="Of the system: NAME.key and NAME.pem.")],
    host: Annotated[list[str] | None, typer.Option(help="Name or IP address of the system; repeatable.")] = None,
    days: Annotated[int, typer.Option(help="Days for which the certificate is valid.")] = 825,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new certificate for a key that is there.")] = False,
) -> None:
    """Make a certificate for TLS, and the authority if there is none.

    It needs openssl. The folder's ca.key can make certificates for everything that trusts ca.pem: guard it.
    """
    from edgecxr.node.tls.authority import certify
    from edgecxr.terminal import show

    for path in certify(folder, name, host or (), days, renew):
        show(str(path))


@nodes.command("audit", epilog="Examples:  edgecxr node audit --since 7d  |  edgecxr node audit --verify")
def node_audit(
    config: Config = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 2026-11-29T08:30, 12h or 7d.")] = None,
    film: Annotated[str | None, typer.Option(metavar="UID", help="About this film alone, and its results.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="The lines as they are, in JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed or removed.")] = False,
    anchor: Annotated[
        str | None, typer.Option(metavar="LINE:SHA256", help="What an earlier --verify has printed.")
    ] = None,
) -> None:
    """Show who sent, read and got what, and when; or check it."""
    from edgecxr.errors import UsageError
    from edgecxr.node.audit import audit_reading
    from edgecxr.node.audit.audit_events import Audit
    from edgecxr.node.node_config import read_config
    from edgecxr.terminal import aligned, show, show_json, show_text

    if anchor is not None and not verify:
        raise UsageError("--anchor is for --verify: give both")
    if verify and (since or film or json_):
        raise UsageError("--verify checks the whole trail: leave --since, --film and --json out")
    read = read_config(config)
    if verify:
        for line in audit_reading.report(audit_reading.verify(read.folder, anchor)):
            show(line)
        return
    entries = audit_reading.entries(read.folder, audit_reading.moment(since) if since else None, film)
    if json_:
        for entry in entries:
            show_json(json.dumps(entry, separators=(",", ":")))
    else:
        show_text("\n".join(aligned(map(audit_reading.describe, entries))))
    Audit(read, "command").trail_read()


@users.command("add", epilog="Example:  edgecxr node user add jane --role viewer --config node.toml")
def node_user_add(
    name: UserName,
    role: Annotated[str, typer.Option(metavar="ROLE", help="viewer, operator (sends again) or admin.")] = "viewer",
    config: Config = None,
) -> None:
    """Add a user, or give one another role and password.

    The password is asked for on a terminal, else it is the first line of standard input.
    """
    import getpass
    import sys

    from edgecxr.errors import UsageError
    from edgecxr.node.audit.audit_events import Audit
    from edgecxr.node.node_config import read_config
    from edgecxr.node.web.users import add_user
    from edgecxr.terminal import show

    read = read_config(config)
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("The same again: ") != password:
            raise UsageError("the two passwords differ: type the command again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    new = add_user(read.folder, name, role, password)
    Audit(read, "command").user_changed(name, f"{'added' if new else 'new password'}, {role}")
    show(f"{name} {'can now sign in' if new else 'has a new password'}, as {role}")


@users.command("remove", epilog="Example:  edgecxr node user remove jane --config node.toml")
def node_user_remove(name: UserName, config: Config = None) -> None:
    """Remove a user, who is signed out at once."""
    from edgecxr.node.audit.audit_events import Audit
    from edgecxr.node.node_config import read_config
    from edgecxr.node.web.users import remove_user
    from edgecxr.terminal import show

    read = read_config(config)
    remove_user(read.folder, name)
    Audit(read, "command").user_changed(name, "removed")
    show(f"{name} is removed")


@users.command("list", epilog="Example:  edgecxr node user list --config node.toml")
def node_user_list(config: Config = None) -> None:
    """Name the users and their roles."""
    from edgecxr.node.node_config import read_config
    from edgecxr.node.web.users import users_of
    from edgecxr.terminal import aligned, show_text

    users = users_of(read_config(config).folder)
    rows = [[name, user.role] for name, user in users.items()]
    show_text("\n".join(aligned(rows)) if rows else "no users: nobody needs a password, on this machine alone")
