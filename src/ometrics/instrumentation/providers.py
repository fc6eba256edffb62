# SPDX-License-Identifier: MIT
"""Whose server a host is: Ollama's or another's, and its `gen_ai.provider.name`."""

from __future__ import annotations

import functools
import ipaddress
import os
from typing import Final
from urllib.parse import urlsplit

OLLAMA_PORT: Final = 11434

# The well-known values of `gen_ai.provider.name` (OpenTelemetry's GenAI conventions),
# by the end of the host's name.
_PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "models.inference.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.groq.com": "groq",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}


def provider_of(interface: str, host: str, port: int | None) -> str:
    """
    The provider's name.

    Args:
        interface: Of the endpoint: `ollama`, `openai` or `anthropic`.
        host: Name or address.
        port: `None` for the scheme's own.

    Returns:
        `ollama` for Ollama's own interface, and for its other ones on its port or at
        `OLLAMA_HOST`; a host's name from the conventions; else the interface's owner,
        as the conventions ask of those who cannot know who stands behind it.
    """
    if interface == "ollama" or port == OLLAMA_PORT:
        return "ollama"
    if (host, port) == ollama_host(os.environ.get("OLLAMA_HOST", "")):
        return "ollama"
    return _known(host) or interface


@functools.lru_cache(maxsize=256)
def _known(host: str) -> str | None:
    parts = host.lower().rstrip(".").split(".")
    names = (".".join(parts[at:]) for at in range(len(parts)))
    return next((_PROVIDERS[name] for name in names if name in _PROVIDERS), None)


@functools.lru_cache(maxsize=16)
def ollama_host(value: str) -> tuple[str, int | None]:
    """
    Host and port of `OLLAMA_HOST`, in any of the forms that Ollama takes.

    Args:
        value: As `10.0.0.5`, `gpu:8080`, `:8080`, `[::1]`, `https://gpu/ollama`.

    Returns:
        The host, `127.0.0.1` if it names none or all; the port, `None` for a scheme's.
    """
    value = value.strip().strip("\"'")
    scheme, separator, _ = value.partition("://")
    try:
        address = urlsplit(value if separator else f"//{value}")
        host, port = address.hostname or "", address.port
    except ValueError:
        return "", None
    if port is None and not separator:
        port = OLLAMA_PORT
    elif port is None:
        port = None if scheme in ("http", "https") else OLLAMA_PORT
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - a server's "all", here "this one"
        host = "127.0.0.1"
    return host, port


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host.lower().rstrip(".") in ("localhost", "localhost.localdomain"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def known_host(given: str) -> str:
    """
    A host as `is_local_ollama` compares it.

    Args:
        given: As `gpu-box`, `GPU-Box:11434`, `fd00::1`, `http://gpu-box:11434`; `*`.

    Raises:
        ValueError: It names no host.
    """
    if given == "*":
        return given
    try:
        return ipaddress.ip_address(given).compressed
    except ValueError:
        pass
    try:
        address = urlsplit(given if "://" in given else f"//{given}")
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if not host:
        raise ValueError(f"host {given!r}: give one as 'gpu-box' or 'gpu-box:11434'")
    return host if port is None else f"{host}:{port}"


def is_local_ollama(host: str, port: int | None, known: frozenset[str]) -> bool:
    """
    Whether calls to this host are measured, whatever client makes them.

    Args:
        host: Name or address.
        port: `None` for the scheme's own.
        known: Further hosts, as `host` or `host:port`; `*` is every host.
    """
    if is_loopback(host) or "*" in known:
        return True
    if host in known or (port is not None and f"{host}:{port}" in known):
        return True
    return host == ollama_host(os.environ.get("OLLAMA_HOST", ""))[0]
