"""Writes the places of the declared fields in the core: `_fields.pxd`.

python tools/generate.py            writes the files
python tools/generate.py --check    exit code 1 if one is not current

The enums must be current before the core can be compiled, and the package can only be
imported once it is: so this loads `fields.py`, `models.py` and `snapshot.py` without
the package's compiled modules.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
ENUMS = ROOT / "src" / "ometrics" / "_fields.pxd"

HEAD = '''\
# SPDX-License-Identifier: MIT
"""Places of the declared fields in the core's arrays.

Written by `tools/generate.py` from the declarations in `models.py` and `snapshot.py`.
"""
'''


def enums() -> str:
    """The text of `_fields.pxd`."""
    _without_core()
    from ometrics.fields import Counter, Counts, Distribution, Field, stored
    from ometrics.models import CallMetrics, PerformanceMetrics
    from ometrics.snapshot import Snapshot, TaskStatistics

    owners = {
        "MODEL": PerformanceMetrics,
        "CALL": CallMetrics,
        "TASK": TaskStatistics,
        "SNAPSHOT": Snapshot,
    }
    kinds: dict[str, type[Field]] = {
        "COUNTERS": Counter,
        "HISTOGRAMS": Distribution,
        "CODES": Counts,
    }
    parts = [HEAD]
    sizes: dict[str, dict[str, int]] = {}
    for prefix, owner in owners.items():
        for plural, kind in kinds.items():
            names = stored(owner, kind)
            sizes.setdefault(plural, {})[prefix] = len(names)
            if names:
                places = [f"{prefix}_{name.upper()}" for name in names]
                parts.append(_enum([*places, f"{prefix}_{plural}"]))
    records = ("MODEL", "CALL")
    parts.append("# Room in a record, which is a model's or an operation's.\n")
    parts.append(
        "cdef enum:\n"
        f"    COUNTERS = {max(sizes['COUNTERS'][r] for r in records)}\n"
        f"    CODES = {max(sizes['CODES'][r] for r in records)}\n"
    )
    return "\n".join(parts)


def _enum(places: list[str]) -> str:
    return "cdef enum:\n" + "".join(f"    {place}\n" for place in places)


def _without_core() -> None:
    """Let the read types be imported where nothing is compiled yet."""
    if "ometrics" in sys.modules:
        return
    package = ModuleType("ometrics")
    package.__path__ = [str(ROOT / "src" / "ometrics")]
    sys.modules["ometrics"] = package
    for name in ("_histogram", "_validation"):
        compiled = ModuleType(f"ometrics.{name}")
        compiled.__getattr__ = lambda _: lambda *_: None  # type: ignore[method-assign]
        sys.modules[compiled.__name__] = compiled
        setattr(package, name, compiled)


def main() -> int:
    """Write the files, or say which of them are not current."""
    text = enums()
    if "--check" not in sys.argv[1:]:
        if not ENUMS.exists() or ENUMS.read_text(encoding="utf-8") != text:
            ENUMS.write_text(text, encoding="utf-8")
            print(f"wrote {ENUMS.name}")
        return 0
    if ENUMS.exists() and ENUMS.read_text(encoding="utf-8") == text:
        return 0
    print(f"{ENUMS.name} is not current: run python tools/generate.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
