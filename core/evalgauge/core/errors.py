"""Errors, each saying what the caller should do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding by msgspec raises for bytes that are not what they should be."""


class EvalgaugeError(Exception):
    """Base of every error that is meant for a person to read; the command line prints it without a traceback."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a file: where it is (line and column count from 1), what it is and how to mend it.

    `line` 0 is for what is no file, such as an environment variable: `file` names it, and no place is shown.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: message`, with the hint on a line of its own."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.message}"
        return f"{text}\n  {self.hint}" if self.hint else text


class DocumentError(EvalgaugeError):
    """A pack, mapping, configuration or test file is wrong. Mend the file: `problems` holds every fault found."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(EvalgaugeError):
    """What was asked for cannot be run: a missing extra, a name that no plugin has, flags that contradict."""

    exit_code = 2


class StateError(EvalgaugeError):
    """The state folder cannot be used as it is. The message says what to do; nothing was changed."""

    exit_code = 3


class StoreUnavailableError(EvalgaugeError):
    """A commit did not come about for a reason that passes. Try again: nothing is lost, and nothing shown."""


class FencedError(EvalgaugeError):
    """Somebody else has taken over. Throw away what is not committed, restore, and go on from there."""


class StateLockedError(StateError):
    """Another live process holds the state folder. Stop it, or give this one a folder of its own."""
