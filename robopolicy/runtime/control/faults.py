"""What can go wrong in a run, by kind; each ends it at rest, unless the run was told to go on."""

from __future__ import annotations

from robopolicy.core.errors import RobopolicyError

#: Kind to what it means; callers may have kinds of their own.
FAULTS = {
    "worker": "the inference process died, hangs, or could not be started again",
    "inference": "NaN, infinity, a wrong shape or an error instead of a chunk, too often in a row",
    "late_chunk": "no chunk when the last one had ended",
    "camera_frozen": "an image's stamp stands still, or its pixels do where that is asked",
    "joint_state_frozen": "a state's stamp stands still, or the measured joints do while commands move",
    "clock_jump": "the loop's clock went back, or ahead by more than a bound",
    "out_of_range": "an observation far from all the policy was trained on, or beyond the joint limits",
    "observation": "an observation breaks its spec, or is stamped in the future",
    "stale_observation": "observations too old for the safety filter, for several policy periods",
    "latched": "the safety filter was tripped: deadman, emergency stop, or a caller",
    "not_at_rest": "braking did not end in time",
}


class FaultError(RobopolicyError):
    """A fault of a run; ``kind`` is a key of ``FAULTS``, or the caller's own."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
