"""What is left of each episode's plan when the next chunk is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.policy import Prefix
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.scheduling.prefix import soft_weights


def committed(plans: Sequence[NDArray[np.float32] | None], specs: PolicySpecs) -> Prefix:
    """The chunks before, moved on by the actions that were executed of them, as the next ones' prefix.

    Weights are those of the control loop for a policy that answers at once: 1 for the steps that have begun,
    the current one among them where commands are reached at the "start", then falling to 0 where the chunk
    before ends.

    Args:
        plans: (prediction_horizon, action_dim) of each row; None, weight 0, where its episode begins, or the
            chunk was not finite.
    """
    horizons = specs.horizons
    left = horizons.prediction - horizons.action
    begun = horizons.action_start + (specs.specs.action.reached == "start")
    action = np.zeros((len(plans), *specs.chunk_shape), np.float32)
    weight = np.zeros(action.shape[:2], np.float32)
    for row, plan in enumerate(plans):
        if plan is not None and np.isfinite(plan).all():
            action[row, :left] = plan[horizons.action :]
            weight[row] = soft_weights(horizons.prediction, frozen=min(begun, left), overlap=left)
    return Prefix(action, weight)
