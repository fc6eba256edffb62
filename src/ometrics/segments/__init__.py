# SPDX-License-Identifier: MIT
"""Beyond the process: the records of every process of a machine, living or killed.

A collector with a directory keeps its records in a file there, its segment, and the
agent does nothing else for it: whoever wants the numbers reads them from outside.

    agent:    MetricsCollector(directory="/run/user/1000/ometrics/pool")
    reader:   ometrics.attach("/run/user/1000/ometrics/pool").snapshot()

`home` is the writing side, `attached` the reading one, `followed` the same for one who
looks again and again, and `apart` for who wants no sum; `folding` adds up those that
ended. The file itself is `_segment.pxd`'s, why it is always whole `_journal.pxd`'s.
"""

from ometrics.segments.apart import Apart
from ometrics.segments.attached import Attached, attach
from ometrics.segments.followed import Followed
from ometrics.segments.instances import Instance, Reading
from ometrics.segments.places import runtime_directory

__all__ = [
    "Apart",
    "Attached",
    "Followed",
    "Instance",
    "Reading",
    "attach",
    "runtime_directory",
]
