"""What can go wrong that a user can mend, and with which exit code does the command end?

    SfiinError                1  anything below
    ├── InputError            3  a file that is missing, corrupt, or not what it should be
    │   ├── SceneError        3  PAN or MS unusable: type, bands, georeference, no common area
    │   └── CheckpointError   3  a checkpoint of unknown layout, or damaged
    ├── MismatchError         4  two things that do not belong together, such as model and scene
    │   ├── ContractError     4  a contract with a missing, unknown or ill-typed field
    │   └── UndecidedError    4  two benchmarks that cannot be compared: invalid, or without a spread
    ├── UnavailableError      5  an extra, a backend or a device that this machine lacks
    ├── CheckFailedError      6  an artefact that differs from its reference by more than its gate
    │   └── UntrustedError    6  a session that did not pass its self-test after work; to be done again
    ├── OutputError           7  a product that could not be written
    ├── AlignmentError        8  PAN and MS that do not lie on one another
    ├── PartialError          9  some of many scenes failed
    ├── TotalError           10  all of many scenes failed
    └── StoppedError        143  told to end (SIGTERM); what is done is kept

Codes 0 (success), 2 (wrong command line) and 130 (interrupted) are the shell's usual ones.
"""

from __future__ import annotations


class SfiinError(Exception):
    """A failure explained in one line: what happened, why, and what to do.

    Its text is shown to the user as it is, without a traceback; `exit_code` becomes the command's status.
    """

    exit_code = 1


class InputError(SfiinError):
    """A given file is missing, unreadable or not of the kind asked for."""

    exit_code = 3


class SceneError(InputError):
    """A PAN or MS image cannot be used: data type, number of bands, georeference, or no common area."""


class CheckpointError(InputError):
    """A checkpoint is damaged, or of a layout that this version does not know."""


class MismatchError(SfiinError):
    """Two things do not belong together; the message names the field in which they differ."""

    exit_code = 4


class ContractError(MismatchError):
    """A contract has a missing, unknown or ill-typed field; the message names it."""


class UndecidedError(MismatchError):
    """Two benchmarks cannot be compared: one is invalid, or its spread is not known; nobody can say which is
    faster."""


class UnavailableError(SfiinError):
    """An optional package, a backend or a device is not there; the message says how to get it."""

    exit_code = 5


class CheckFailedError(SfiinError):
    """An artefact differs from its reference by more than its gate, and was not published."""

    exit_code = 6


class UntrustedError(CheckFailedError):
    """A session did not pass its self-test: what it made since the last one is thrown away, and to be done
    again."""


class AlignmentError(SfiinError):
    """PAN and MS are shifted against one another by more than may be; the message says how far."""

    exit_code = 8


class PartialError(SfiinError):
    """Some of many scenes failed, each with an error of its own."""

    exit_code = 9


class TotalError(SfiinError):
    """All of many scenes failed, each with an error of its own."""

    exit_code = 10


class OutputError(SfiinError):
    """The product could not be written; nothing half-written is left."""

    exit_code = 7


class StoppedError(SfiinError):
    """The work was told to end before it was done; what is done is kept."""

    exit_code = 143
