"""Errors only a simulator can raise."""

from __future__ import annotations

from robopolicy.core.errors import RobopolicyError


class UnstablePhysicsError(RobopolicyError):
    """The simulated state became NaN, infinite or absurd; the state before the bad tick was restored."""


class ModelError(RobopolicyError):
    """A model file is missing, broken, or lacks what an arm needs; names the file and the reason."""
