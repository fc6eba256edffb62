# SPDX-License-Identifier: MIT
"""What the commands that serve have in common: options, errors, the end by a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ometrics.sources import Source
from ometrics.view.escape import harmless

if TYPE_CHECKING:
    from ometrics.export.otlp import PeriodicExporter

MAX_PORT: Final = 65_535
#: How often the main thread looks up; a signal wakes it at once where it can.
LOOK_S: Final = 0.5

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class CannotStartError(click.ClickException):
    """It cannot listen, or a package is missing; exit code 2."""

    exit_code = 2


class Address(click.ParamType):  # type: ignore[type-arg]
    """`HOST:PORT`, `:PORT`, `PORT` or `[::1]:PORT`."""

    name = "HOST:PORT"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, int]:
        """Host and port."""
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or int(port) > MAX_PORT:
            self.fail(f"{value!r} is no HOST:PORT, such as 127.0.0.1:11435", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


def guarded(who: str, sends_it: str) -> Callable[[Decorated], Decorated]:
    """
    The options by which a command says who may reach what it serves.

    Args:
        who: Such as `Callers`.
        sends_it: What follows on the token's file.
    """
    options = (
        click.option(
            "--token-file",
            metavar="FILE",
            help=f"{who} must send the bearer token in FILE (mode 0600){sends_it}.",
        ),
        click.option(
            "--tls-cert", metavar="FILE", help="Certificate (PEM): speak HTTPS."
        ),
        click.option(
            "--tls-key", metavar="FILE", help="Its key, if it is not in that file."
        ),
        click.option(
            "--tls-client-ca",
            metavar="FILE",
            help=f"{who} need a certificate of these authorities (PEM).",
        ),
        click.option(
            "--allow-host",
            "hosts",
            metavar="NAME",
            multiple=True,
            help=f"A name under which {who.lower()} reach it, beside localhost; may be"
            " repeated.",
        ),
        click.option(
            "--allow-public",
            is_flag=True,
            help="Let other machines in without asking them for anything.",
        ),
    )

    def add(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return add


otlp_option: Final = click.option(
    "--otlp",
    metavar="URL",
    help="Send all that is measured to an OpenTelemetry collector, such as"
    " http://127.0.0.1:4318, each minute and at the end.",
)


store_option: Final = click.option(
    "--store",
    metavar="STORE",
    help="Keep history in STORE, a file or a database URL, for 'history'.",
)


@contextmanager
def starting() -> Iterator[None]:
    """
    Turn what keeps a server from starting into what the command says of it.

    Raises:
        CannotStartError: For that.
    """
    try:
        yield
    except ImportError as error:
        raise CannotStartError(str(error)) from None
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {text}"
        raise CannotStartError(harmless(_as_options(text))) from None


def exporter(source: Source, url: str) -> PeriodicExporter:
    """
    Sends to an OpenTelemetry collector until it is closed, and once more then.

    Raises:
        ImportError: A package is missing.
        ValueError: It is no URL.
    """
    from ometrics.export.otlp import PeriodicExporter

    return PeriodicExporter(source, endpoint=url)


class End:
    """The signal that ends a server; the second one ends it at once."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.is_urgent = False

    def watch(self) -> None:
        """Notice signals from now on."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What is ignored stays ignored, as under nohup.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Wait for the first."""
        while not self.came.wait(LOOK_S):
            pass

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.is_urgent = self.came.is_set()
        self.came.set()


def say(text: str) -> None:
    """A line of the command's own, on standard error."""
    click.echo(f"ometrics: {harmless(text)}", err=True)


def _as_options(text: str) -> str:
    """An error of the library in the command's terms."""
    for argument, option in (
        ("token= or token_file= (and tls_cert=)", "--token-file (and --tls-cert)"),
        ("tls_client_ca=", "--tls-client-ca"),
        ("allow_public=True", "--allow-public"),
    ):
        text = text.replace(argument, option)
    return text
