"""Law 1, checked: whatever runs while the mutex is held is `noexcept nogil`.

Cython refuses Python objects, allocation and exceptions inside a function declared
`noexcept nogil`; this check sees to it that nothing else runs under the lock:

1. A C function named `locked_*` is declared `noexcept nogil`, everywhere.
2. In the body of such a function, and wherever the mutex may be held between the call
   that takes it and the one that releases it, only functions declared `noexcept nogil`
   are called, and nothing returns, raises, yields, catches or touches the GIL.

It follows branches and loops, but reads text, not types: a store to a Python attribute
under the lock passes. Keep those stretches to C stores and to calls of `locked_*`
functions, which the compiler checks.

Usage: `python tools/check_nogil.py [FILE ...]`, by default all sources of the package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

LOCK_CALL = re.compile(r"\bom_mutex_(acquire|lock|release)\s*\(\s*&?\s*([\w.]+)")
# Functions that return with the mutex held, or raise without it.
TAKES_LOCK = re.compile(r"\bacquire_\w+\s*\(")
# Gives the mutex back after a change; its own body is checked like any other.
GIVES_BACK = re.compile(r"\bcommit\s*\(")
# Held by one reader at a time while it allocates; no recorder ever waits for it.
OUTER_LOCKS = frozenset({"copying"})

# libc functions that neither allocate nor block nor set errno to be looked at.
LIBC = frozenset({"memcpy", "memmove", "memset", "memcmp"})
# Words before a parenthesis that call nothing, and what Cython turns into plain C.
NOT_CALLS = frozenset(
    {"if", "elif", "while", "for", "in", "is", "and", "or", "not", "lambda"}
    | {"sizeof", "range", "min", "max", "abs"}
)
FORBIDDEN = re.compile(
    r"\b(return|raise|yield|await|try|except|with(?!\s+nogil\b)|import)\b"
)

TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"""'
    r"|'''(?:\\.|[^\\])*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    r"|\#[^\n]*",
    re.DOTALL,
)
RETURN = re.compile(r"return [\w.]+$")
CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
C_FUNCTION = re.compile(r"^(?:cdef|cpdef)\b[^=(]*?\b(\w+)\s*\(")
EXTERN_FUNCTION = re.compile(r"^[^=(]*?\b(\w+)\s*\(")
EXTERN_BLOCK = re.compile(r"^cdef\s+extern\b")
PYTHON_FUNCTION = re.compile(r"^(?:async\s+)?def\s+(\w+)")


class Line(NamedTuple):
    """One statement, without text and comments, its continuation lines joined."""

    path: Path
    number: int
    indent: int
    code: str

    def problem(self, what: str) -> str:
        """Return the message that points at this line."""
        return f"{self.path}:{self.number}: {what}"


def read_lines(path: Path) -> list[Line]:
    """Split a Cython source into statements; strings become `""`, comments vanish."""
    source = TEXT.sub(_blank, path.read_text(encoding="utf-8"))
    lines: list[Line] = []
    pending, start, depth = "", 0, 0
    for number, text in enumerate(source.split("\n"), 1):
        if not pending:
            start = number
        pending = f"{pending} {text.strip()}" if pending else text.rstrip()
        depth += sum(map(text.count, "([{")) - sum(map(text.count, ")]}"))
        if depth > 0 or pending.endswith("\\"):
            pending = pending.rstrip("\\")
            continue
        if pending.strip():
            indent = len(pending) - len(pending.lstrip())
            lines.append(Line(path, start, indent, pending.strip()))
        pending, depth = "", 0
    return lines


def _blank(match: re.Match[str]) -> str:
    """Replace a string or comment, keeping the number of lines."""
    text = match.group()
    return "" if text.startswith("#") else '""' + "\n" * text.count("\n")


def is_safe(line: Line) -> bool:
    """Tell whether a declaration lets the function run under the lock."""
    tail = line.code[line.code.rindex(")") :]
    return bool(re.search(r"\bnoexcept\s+nogil\b", tail))


def is_safe_extern(block: Line, line: Line) -> bool:
    """Tell the same of a C declaration: those raise only if they say `except`."""
    tail = line.code[line.code.rindex(")") :]
    says_nogil = re.search(r"\bnogil\b", f"{block.code} {tail}")
    return bool(says_nogil) and not re.search(r"\bexcept\b", tail)


def c_functions(lines: list[Line]) -> dict[str, bool]:
    """Return every C function that `lines` declare, and whether it is safe."""
    found: dict[str, bool] = {}
    extern: Line | None = None
    for line in lines:
        if EXTERN_BLOCK.match(line.code):
            extern = line
            continue
        if extern and line.indent <= extern.indent:
            extern = None
        declared = (EXTERN_FUNCTION if extern else C_FUNCTION).match(line.code)
        if declared:
            fine = is_safe_extern(extern, line) if extern else is_safe(line)
            found[declared[1]] = found.get(declared[1], True) and fine
    return found


def functions(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """Return the name and the statements of every function."""
    found: list[tuple[str, list[Line]]] = []
    indent = (
        -1
    )  # Of the `def` whose body is being read; nothing is deeper than a class.
    for line in lines:
        declared = C_FUNCTION.match(line.code) or PYTHON_FUNCTION.match(line.code)
        if declared and line.code.endswith(":"):
            found.append((declared[1], []))
            indent = line.indent
        elif indent >= 0 and line.indent > indent:
            found[-1][1].append(line)
        else:
            indent = -1
    return found


class Statement(NamedTuple):
    """A line and the block that it opens, if any."""

    line: Line
    block: list[Statement]


def nested(body: list[Line]) -> list[Statement]:
    """Turn indented lines into blocks."""
    root: list[Statement] = []
    open_blocks = [(-1, root)]
    for line in body:
        while line.indent <= open_blocks[-1][0]:
            open_blocks.pop()
        statement = Statement(line, [])
        open_blocks[-1][1].append(statement)
        open_blocks.append((line.indent, statement.block))
    return root


FREE, HELD = "free", "held"
States = frozenset[str]
NOWHERE: States = frozenset()


class Walker:
    """
    Follows one function, knowing at each line whether the mutex may be held.

    Args:
        safe: Names of C functions, and whether they may run under the lock.
        may_return: Whether it returns with the mutex held, as `acquire_*` do.
    """

    def __init__(self, safe: dict[str, bool], *, may_return: bool = False) -> None:
        self._safe = safe
        self._may_return = may_return
        self._breaks: list[States] = []
        self.problems: dict[str, None] = {}  # Ordered, each once.

    def walk(self, block: list[Statement], states: States) -> States:
        """Return the states in which `block` is left, if entered in `states`."""
        otherwise, done = states, NOWHERE  # Of the chain of if, elif and else.
        for line, inner in block:
            word = line.code.split(None, 1)[0].rstrip(":")
            if word in {"elif", "else", "except"}:
                done |= self.walk(inner, self.step(line, otherwise))
                states = done if word == "else" else done | otherwise
                continue
            states = otherwise = self.step(line, states)
            if word in {"while", "for"}:
                states = otherwise = self.loop(line, inner, states)
            elif word == "if":
                done = self.walk(inner, states)
                states = done | otherwise
            elif inner:
                states = done = self.walk(inner, states)
            elif word == "break" and self._breaks:
                self._breaks[-1] |= states
            if word in {"return", "raise", "break", "continue"}:
                states = NOWHERE
        return states

    def loop(self, line: Line, block: list[Statement], states: States) -> States:
        """Return the states after a loop: its condition fails, or it breaks."""
        self._breaks.append(NOWHERE)
        states |= self.walk(block, states)
        states |= self.walk(block, states)  # Again, now as its own end leaves it.
        breaks = self._breaks.pop()
        is_endless = re.match(r"while\s+(True|1)\s*:", line.code)
        return breaks if is_endless else breaks | states

    def step(self, line: Line, states: States) -> States:
        """Check one line; return the states after it, without the block it opens."""
        call = LOCK_CALL.search(line.code)
        if call and call[2].rpartition(".")[2] not in OUTER_LOCKS:
            if call[1] == "release":
                return frozenset({FREE})
            if HELD in states:
                self.report(line, "takes the mutex while holding it")
            return frozenset({HELD})
        if GIVES_BACK.search(line.code):
            return frozenset({FREE})
        if TAKES_LOCK.search(line.code):
            if HELD in states:
                self.report(line, "takes the mutex while holding it")
            return frozenset({HELD})
        if HELD in states and self._may_return and RETURN.match(line.code):
            return NOWHERE
        if HELD in states:
            if forbidden := FORBIDDEN.search(line.code):
                self.report(line, f"has `{forbidden[1]}` under the lock")
            self.check_calls(line)
        return states

    def check_calls(self, line: Line) -> None:
        """Check that a line calls only what may run under the lock."""
        for name in CALL.findall(line.code):
            if name not in NOT_CALLS and not self._safe.get(name, False):
                self.report(line, f"calls `{name}` under the lock")

    def report(self, line: Line, what: str) -> None:
        """Note a breach of the law."""
        self.problems[line.problem(what)] = None


def check_function(name: str, body: list[Line], safe: dict[str, bool]) -> list[str]:
    """Return what one function does that must not be done while the mutex is held."""
    walker = Walker(safe, may_return=name.startswith("acquire_"))
    if name.startswith("locked_"):
        for line in body:
            walker.check_calls(line)
    elif HELD in walker.walk(nested(body), frozenset({FREE})):
        walker.report(body[-1], f"`{name}` ends and may never have released the mutex")
    return list(walker.problems)


def check(paths: list[Path]) -> list[str]:
    """Return what breaks the law in `paths`: one message a place, empty if nothing."""
    files = [read_lines(path) for path in paths]
    safe = dict.fromkeys(LIBC, True)
    for lines in files:
        for name, is_fine in c_functions(lines).items():
            safe[name] = safe.get(name, True) and is_fine
    safe |= {"om_mutex_acquire": False, "om_mutex_lock": False}  # Not while it is held.

    problems: list[str] = []
    for lines in files:
        problems += [
            line.problem(f"`{match[1]}` must be declared `noexcept nogil`")
            for line in lines
            if (match := C_FUNCTION.match(line.code))
            and match[1].startswith("locked_")
            and not is_safe(line)
        ]
        for name, body in functions(lines):
            problems += check_function(name, body, safe)
    return problems


def main(arguments: list[str]) -> int:
    """Check the named files, or the package; print problems, return the exit code."""
    package = Path(__file__).parents[1] / "src" / "ometrics"
    paths = [Path(argument) for argument in arguments] or sorted(
        [*package.rglob("*.pyx"), *package.rglob("*.pxd")]
    )
    problems = check(paths)
    for problem in problems:
        print(problem)
    print(f"check_nogil: {len(paths)} files, {len(problems)} problems")
    return int(bool(problems) or not paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
