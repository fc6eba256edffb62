# SPDX-License-Identifier: MIT
"""`ometrics store`: what is in a history, whether it is sound, and moving it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from ometrics.cli.command import Group
from ometrics.view.escape import harmless
from ometrics.view.terminal import console_for
from ometrics.view.units import number

if TYPE_CHECKING:
    from ometrics.store import Store

DEFAULT: Final = "metrics.db"
EXAMPLES: Final = (
    ("ometrics store info", "what is in metrics.db"),
    ("ometrics store check metrics.db && echo sound", "is it?"),
    ("ometrics store migrate metrics.db postgresql://host/db", "move it"),
)
NOTES: Final = """
STORE is a file or a database URL; 'metrics.db' if it is left out. Exit codes: 0 all is
well; 1 'check' found damage; 2 wrong usage, or a store that cannot be used.
"""


class UnusableStoreError(click.ClickException):
    """A store that cannot be used; exit code 2, like every wrong argument."""

    exit_code = 2


@contextmanager
def opened(where: str, *, create: bool = False) -> Iterator[Store]:
    """
    A store for the length of a command.

    Raises:
        UnusableStoreError: It cannot be used; the message says why.
    """
    with explained():
        import ometrics.store

        with ometrics.store.open(where, create=create) as store:
            yield store


@contextmanager
def explained() -> Iterator[None]:
    """
    What is wrong with a store, as an error of the command.

    Raises:
        UnusableStoreError: Instead of what a store raises, or an extra that is missing.
    """
    try:
        from ometrics.store import StoreError
    except ImportError as error:
        raise UnusableStoreError(str(error)) from None
    try:
        yield
    except (StoreError, ImportError) as error:
        raise UnusableStoreError(harmless(str(error))) from None


@click.group(cls=Group, examples=EXAMPLES, notes=NOTES)
def store() -> None:
    """Look after a history that 'MetricsCollector(store=...)' wrote."""


@store.command()
@click.argument("store", default=DEFAULT)
def info(store: str) -> None:
    """Say what is in STORE: size, span, windows by level, models, processes."""
    with opened(store) as there:
        from ometrics.store import care

        found = care.info(there)
    span = "nothing yet"
    if found.start is not None and found.end is not None:
        span = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    names = {0: "as written", 300: "5 minutes", 3600: "1 hour", 86_400: "1 day"}
    levels = ", ".join(
        f"{n:,} {names.get(step, f'{step} s')}" for step, n in found.windows.items()
    )
    rows = [
        ("store", harmless(found.place)),
        ("database", found.database),
        ("size", f"{number(found.size / 1e6)} MB"),
        ("span", span),
        ("windows", levels or "none"),
        ("models", f"{found.models:,}"),
        ("processes", f"{found.instances:,}"),
        ("requests", f"{found.requests:,}"),
    ]
    console = console_for(sys.stdout)
    for title, value in rows:
        console.print(Text.assemble((f"{title:<10} ", "dim"), value), soft_wrap=True)


@store.command()
@click.argument("store", default=DEFAULT)
def check(store: str) -> int:
    """Read all of STORE; name what is damaged, and exit with 1 if anything is."""
    with opened(store) as there:
        from ometrics.store import care

        problems = care.check(there)
    for problem in problems:
        click.echo(harmless(problem))
    click.echo(f"{len(problems)} problems" if problems else "sound")
    return int(bool(problems))


@store.command()
@click.argument("store", default=DEFAULT)
@click.option("--vacuum", is_flag=True, help="Give freed space back to the disk.")
def thin(store: str, *, vacuum: bool) -> None:
    """Merge and delete old windows of STORE now; writers do so by themselves."""
    with opened(store, create=True) as there:
        changed = there.thin()
        if vacuum:
            there.database.maintain("VACUUM")
    click.echo(f"{changed:,} windows merged or deleted")


@store.command()
@click.argument("store")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--before", metavar="TIME", help="Only what ended before, such as 90d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(store: str, model: str | None, before: str | None, *, yes: bool) -> None:
    """Delete from STORE for good: a model, what is old, or what is both."""
    if model is None and before is None:
        raise click.UsageError("say what: --model NAME or --before TIME")
    if not yes:
        click.confirm("This cannot be undone. Go on?", abort=True)
    with opened(store, create=True) as there:
        try:
            deleted = there.forget(model=model, before=before)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--before") from None
        there.database.maintain("VACUUM")
    click.echo(f"{deleted:,} rows deleted")


@store.command()
@click.argument("store")
@click.argument("file", type=click.Path(path_type=Path))
def export(store: str, file: Path) -> None:
    """Write all of STORE to a new FILE, a line of JSON for each row."""
    with opened(store) as there:
        from ometrics.store import care

        try:
            n = care.export(there, file)
        except OSError as error:
            raise UnusableStoreError(f"{file}: {error.strerror}") from None
    click.echo(f"{n:,} rows written to {harmless(str(file))}")


@store.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("store")
def import_(file: Path, store: str) -> None:
    """Read FILE, which 'export' wrote, into a new STORE."""
    with opened(store, create=True) as there:
        from ometrics.store import care

        n = care.load(there, file)
    click.echo(f"{n:,} rows read into {harmless(there.database.place)}")


@store.command()
@click.argument("source")
@click.argument("target")
def migrate(source: str, target: str) -> None:
    """Copy all of SOURCE into a new store TARGET, from SQLite to PostgreSQL or back."""
    with opened(source) as there, opened(target, create=True) as here:
        from ometrics.store import care

        n = care.copy(there, here)
        problems = care.check(here)
        same = there.snapshot().models == here.snapshot().models
        place = here.database.place
    if problems or not same:
        raise UnusableStoreError(f"{harmless(place)}: the copy differs; do not use it")
    click.echo(f"{n:,} rows copied to {harmless(place)}, and read back the same")
