"""Every error robopolicy raises on purpose. Each message names the bad value and the valid ones."""

from __future__ import annotations

from collections.abc import Iterable


class RobopolicyError(Exception):
    """Base of all typed errors; the command line prints its message without a traceback."""


class ConfigError(RobopolicyError):
    """A configuration value is out of range or contradicts another."""


class SpecError(RobopolicyError):
    """Two specs that must agree do not, or a spec contradicts itself."""


class ShapeError(RobopolicyError):
    """An array's shape differs from its spec."""


class NonFiniteValueError(RobopolicyError):
    """NaN or infinity where finite numbers are required."""


class UnknownNameError(RobopolicyError):
    """A name is not among the known ones; the message lists them."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known_names = sorted(known)
        listing = ", ".join(known_names) if known_names else "none"
        super().__init__(f"unknown {kind} {name!r}; known: {listing}")
        self.name = name
        self.known = known_names


class StoreError(RobopolicyError):
    """An episode store cannot be opened, read or written."""


class SchemaVersionError(StoreError):
    """A store was written under another schema version."""


class ImportFormatError(RobopolicyError):
    """A foreign dataset cannot be imported; nothing was written."""


class BundleError(RobopolicyError):
    """A deployment bundle is incomplete, altered or of another format."""


class RunExistsError(RobopolicyError):
    """The output folder already holds results; they are never overwritten silently."""


class WorkerError(RobopolicyError):
    """The inference worker died, hung or reported a failure."""


class MissingDependencyError(RobopolicyError):
    """An optional package is not installed; the message names the extra that brings it."""
