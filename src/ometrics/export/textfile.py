# SPDX-License-Identifier: MIT
"""A Prometheus page as a file, for node_exporter's textfile collector.

For programs that nobody can scrape: batch jobs, and machines without an open port.

    textfile.write(mc.snapshot(), "/var/lib/node_exporter/ometrics.prom")

node_exporter adds the file's age as `node_textfile_mtime_seconds`; alert on that, since
a program that ended leaves its last page.
"""

from __future__ import annotations

import os

from ometrics.export.files import AnyPath, replace_file
from ometrics.export.prometheus import TEXT, render
from ometrics.snapshot import Snapshot


def write(snapshot: Snapshot, path: AnyPath) -> None:
    """
    Write the text page, atomically: a scrape sees the old page or the new one.

    Args:
        snapshot: What to write.
        path: A file whose name ends in `.prom`, as node_exporter reads no other; one
            for each process.

    Raises:
        ValueError: The name does not end in `.prom`.
        OSError: The file could not be written and is as it was; the error names it.
    """
    if not os.fsdecode(path).endswith(".prom"):
        raise ValueError(f"{os.fspath(path)!r} must end in .prom for node_exporter")
    replace_file(path, render(snapshot, TEXT))
