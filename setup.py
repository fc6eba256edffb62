"""Builds the compiled modules; everything else is in `pyproject.toml`.

`OMETRICS_SANITIZE=thread|address|undefined` builds them instrumented (`make sanitize`).
`OMETRICS_CFLAGS` adds compiler flags, for instance the guards that fault tests remove.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# Why each: binding=False makes methods plain descriptors, which CPython specialises
# (5 ns a call); the clinic signatures keep `inspect.signature` and stubtest working.
DIRECTIVES = {
    "language_level": 3,
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "freethreading_compatible": True,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "auto_pickle": False,
}

sanitizer = os.environ.get("OMETRICS_SANITIZE", "")
compile_args = [] if sys.platform == "win32" else ["-O3", "-fno-semantic-interposition"]
link_args: list[str] = []
if sanitizer:
    compile_args = [f"-fsanitize={sanitizer}", "-O1", "-g", "-fno-omit-frame-pointer"]
    link_args = [f"-fsanitize={sanitizer}"]
compile_args += os.environ.get("OMETRICS_CFLAGS", "").split()

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"ometrics.{source.stem}",
                [str(source)],
                depends=["src/ometrics/_mutex.h"],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
            for source in sorted(Path("src/ometrics").glob("*.pyx"))
        ],
        compiler_directives=DIRECTIVES,
    )
)
