"""Sensors that stand still or read what cannot be; pure logic, every instant is passed in [ns]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.normalise import Normalisers
from robopolicy.core.plant import Stamped
from robopolicy.core.robot import Limits
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.control.faults import FaultError

STATE_FROZEN, CAMERA_FROZEN, OUT_OF_RANGE = "joint_state_frozen", "camera_frozen", "out_of_range"
STALE = "stale_observation"


@dataclass(frozen=True)
class MonitorConfig:
    """When a sensor counts as failed. Periods are the policy's, at which observations are taken.

    Args:
        frozen_periods: a stamp that has not advanced for longer than this; 0 switches it off.
        start_s: patience with a stamp that has not advanced even once, since some drivers and simulated
            delays begin with what they have [s].
        still_periods: identical pixels for longer than this; 0 switches it off. A real camera has noise, a
            simulated one may see nothing move.
        stuck_periods: measured joints that are identical bit by bit for longer than this, while the
            commands moved by ``stuck_distance`` [rad, m]; 0 switches it off.
        range_factor: a state further from the centre of what it was normalised to than this many times
            its half range, and ``range_floor`` [its unit], since some hardly move in the data; 0: off.
        range_slack: a measured position beyond its limits by this share of their range.
        range_observations: out of range this often in a row is a fault; 0: it is only counted.
        stale_periods: observations that are too old for the safety filter, for longer than this; 0: off.
    """

    frozen_periods: float = 1.5
    start_s: float = 1.0
    still_periods: float = 0.0
    stuck_periods: float = 1.5
    stuck_distance: float = 0.05
    range_factor: float = 3.0
    range_floor: float = 0.1
    range_slack: float = 0.05
    range_observations: int = 2
    stale_periods: float = 5.0

    def __post_init__(self) -> None:
        values = vars(self)
        bad = {name: value for name, value in values.items() if not value >= 0}
        if bad:
            raise ConfigError(f"monitors take no negative values, got {bad}")


class Monitors:
    """All of a run's; ``reset`` at its start.

    Args:
        specs: of the policy; only what it sees is watched.
        normalisers: of the policy; None, behind a server say, leaves the ranges unchecked.
        limits: of the plant's commands; None leaves them unchecked.
    Raises:
        ShapeError: the limits are of another number of dimensions.
    """

    def __init__(
        self,
        specs: PolicySpecs,
        config: MonitorConfig | None = None,
        *,
        normalisers: Normalisers | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._specs, self._config = specs.specs, config or MonitorConfig()
        self._normalisers, self._limits = normalisers, limits
        dim = self._specs.action.dim
        if limits is not None and len(limits.lower) != dim:
            raise ShapeError(f"limits of {len(limits.lower)} dimensions for actions of {dim}")
        names = tuple(n for n, s in self._specs.observation.items() if s.kind == "state")
        self._bounds: dict[str, Float] = {}  # per state, of its features as they are normalised
        if normalisers is not None and names and self._config.range_factor:
            self._states = self._specs.select(names)
            for name in names:
                scale = np.array(normalisers.observation[name].scale)
                self._bounds[name] = self._config.range_factor + self._config.range_floor / scale
        self._period_ns = 1e9 / specs.specs.policy_rate
        self.reset(0)

    def reset(self, now_ns: int) -> None:
        """Forget everything seen; the counts too."""
        self._start_ns = now_ns
        self._stamps: dict[str, tuple[int, int]] = {}  # newest, and when it was first seen
        self._advanced: set[str] = set()
        self._pixels: dict[str, tuple[bytes, int]] = {}
        self._still: tuple[Float, Float, int] | None = None  # measured, command, since when
        self._outside = 0
        self._stale_ns: int | None = None  # since when
        self.counts: Counter[str] = Counter()

    def observed(self, stamped: Mapping[str, Stamped], position: Float, now_ns: int) -> None:
        """At policy instants: what was sensed, and the measured (action_dim,) position.

        Raises:
            FaultError: a sensor stands still, or is out of range; names it.
        """
        for name, spec in self._specs.observation.items():
            kind = STATE_FROZEN if spec.kind == "state" else CAMERA_FROZEN
            self._check_stamp(kind, name, stamped[name].time_ns, now_ns)
            if spec.kind == "image" and self._config.still_periods:
                self._check_pixels(name, stamped[name].value.tobytes(), now_ns)
        self._count(self._far(stamped) or self._beyond(position))

    def moved(self, position: Float, command: Float, now_ns: int) -> None:
        """Each control tick: what is measured, and what was commanded last, each (action_dim,); FaultError
        when only the commands move."""
        patience_ns = self._config.stuck_periods * self._period_ns
        before, self._still = self._still, (position.copy(), command, now_ns)  # drivers reuse buffers
        if not patience_ns or before is None or not np.array_equal(before[0], position):
            return
        self._still = before
        moved, since_ns = float(np.abs(command - before[1]).max()), now_ns - before[2]
        if since_ns > patience_ns and moved > self._config.stuck_distance:
            raise FaultError(
                STATE_FROZEN,
                f"the measured joints stand still to the last bit for {since_ns * 1e-9:.3f} s, while the "
                f"commands moved by {moved:.3f}",
            )

    def filtered(self, reasons: tuple[str, ...], age_s: float, now_ns: int) -> None:
        """Each control tick that follows a reference: what the safety filter said, and the age of the oldest
        observation [s]; FaultError when it has been too old for long."""
        if STALE not in reasons:
            self._stale_ns = None
            return
        self._stale_ns = now_ns if self._stale_ns is None else self._stale_ns
        since_ns, patience_ns = now_ns - self._stale_ns, self._config.stale_periods * self._period_ns
        if patience_ns and since_ns > patience_ns:
            raise FaultError(
                STALE,
                f"observations have been too old to move for {since_ns * 1e-9:.3f} s, now by {age_s:.3f} s",
            )

    def _check_stamp(self, kind: str, name: str, stamp_ns: int, now_ns: int) -> None:
        before = self._stamps.get(name)
        if before is None or stamp_ns > before[0]:
            if before is not None:
                self._advanced.add(name)
            self._stamps[name] = (stamp_ns, now_ns)
            return
        self._stamps[name] = (stamp_ns, before[1])  # a sensor's clock may have been set back once
        patience_ns = self._config.frozen_periods * self._period_ns
        if patience_ns and name not in self._advanced:
            patience_ns = max(patience_ns, self._config.start_s * 1e9)
        since_ns = now_ns - before[1]
        if patience_ns and since_ns > patience_ns:
            raise FaultError(kind, f"{name!r} is frozen: its stamp stands still for {since_ns * 1e-9:.3f} s")

    def _check_pixels(self, name: str, pixels: bytes, now_ns: int) -> None:
        before = self._pixels.get(name)
        if before is None or before[0] != pixels:
            self._pixels[name] = (pixels, now_ns)
        elif now_ns - before[1] > self._config.still_periods * self._period_ns:
            age_s = (now_ns - before[1]) * 1e-9
            raise FaultError(CAMERA_FROZEN, f"{name!r} is frozen: not one pixel changed for {age_s:.3f} s")

    def _count(self, wrong: str) -> None:
        self._outside = self._outside + 1 if wrong else 0
        if not wrong:
            return
        self.counts[OUT_OF_RANGE] += 1
        if 0 < self._config.range_observations <= self._outside:
            raise FaultError(OUT_OF_RANGE, wrong)

    def _far(self, stamped: Mapping[str, Stamped]) -> str:
        """Names the first state far from all that was seen in training; empty when none is."""
        if self._normalisers is None or not self._bounds:
            return ""
        rows = {name: stamped[name].value[None] for name in self._bounds}
        for name, value in self._normalisers.observations(self._states, rows).items():
            if (np.abs(value[0]) > self._bounds[name]).any():
                times = float(np.abs(value).max())
                return f"{name!r} = {rows[name][0].tolist()} is {times:.1f} times its range in training"
        return ""

    def _beyond(self, position: Float) -> str:
        """Names the measured positions outside the limits; empty when none is."""
        limits = self._limits
        if limits is None:
            return ""
        slack = self._config.range_slack * (limits.upper - limits.lower)
        outside = (position < limits.lower - slack) | (position > limits.upper + slack)
        if not outside.any():
            return ""
        where = np.flatnonzero(outside).tolist()
        return f"dimensions {where} are measured at {position[outside].tolist()}, beyond their limits"
