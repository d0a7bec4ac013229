"""Does the exported bundle do what the torch policy does?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import Arrays, Context, Policy, Prefix, draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows
from robopolicy.models.critic_module import TorchCritic
from robopolicy.runtime.bundle.policy import BundlePolicy

TOLERANCE = 1e-4
CANDIDATES = (1, 16)
#: Rounding makes a policy that picks among experts pick another in fewer than this share of chunks.
FEW = 0.1
#: What a policy that follows instructions is asked to do, in turn; any text must give the same on both sides.
INSTRUCTIONS = ("lift the cube", "put the red block into the left bin", "Öffne die 2. Schublade")


def asked(specs: PolicySpecs, index: int) -> tuple[str, ...]:
    """The instruction of the window at this index; none for a policy without language."""
    return (INSTRUCTIONS[index % len(INSTRUCTIONS)],) if specs.instruction_dim else ()


class ParityError(RobopolicyError):
    """The bundle's action chunks differ from torch's by more than the tolerance."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences over all compared chunks.

    Args:
        max_abs: in normalised action units, where 1 is half the range seen in the data [-].
        max_abs_physical: in the action spec's units.
        chunks: how many were compared.
        cases: ``max_abs`` of each case alone: "k16", and "k16.prefix" with a prefix to agree with.
    """

    max_abs: float
    max_abs_physical: float
    chunks: int
    cases: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def worst(cls, parts: Mapping[str, Parity]) -> Parity:
        """All of them together; their cases under the names of the parts."""
        return cls(
            max(part.max_abs for part in parts.values()),
            max(part.max_abs_physical for part in parts.values()),
            sum(part.chunks for part in parts.values()),
            {f"{name}.{case}": value for name, part in parts.items() for case, value in part.cases.items()},
        )


def compare(
    reference: Policy,
    exported: Policy,
    observations: Sequence[Arrays],
    action_scale: NDArray[np.float64],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    candidates: Sequence[int] = CANDIDATES,
) -> Parity:
    """Same observations, noise and instructions through both; where a prefix is heeded, with and without.

    Args:
        observations: windows, each (observation_horizon, *shape).
        action_scale: (action_dim,) of the action normaliser.
        candidates: how many at once.
    Raises:
        ParityError: beyond the tolerance, or not a number.
    """
    specs = reference.policy_specs
    physical, chunks = 0.0, list[float]()
    cases: dict[str, float] = {}
    for index, observation in enumerate(observations):
        batch = {name: value[None] for name, value in observation.items()}
        told = Context(asked(specs, index))
        contexts = {"": told}
        if specs.takes_prefix:
            # Another sample, bound at the start and free at the end, as a chunk in execution is.
            earlier = reference.sample(batch, draw_noise(specs, 1, keyed_rng(seed, index))[None], told)[:, 0]
            weight = np.linspace(1, 0, specs.horizons.prediction, dtype=np.float32)[None]
            contexts[".prefix"] = Context(told.instruction, Prefix(earlier, weight))
        for count, (suffix, context) in itertools.product(candidates, contexts.items()):
            noise = draw_noise(specs, count, keyed_rng(seed, index, count))[None]
            difference = np.abs(
                reference.sample(batch, noise, context) - exported.sample(batch, noise, context)
            )
            # np.maximum keeps NaN, which max() would drop
            largest = (difference / action_scale).max(axis=(0, 2, 3))
            case = f"k{count}{suffix}"
            cases[case] = float(np.maximum(cases.get(case, 0.0), largest.max()))
            physical = float(np.maximum(physical, difference.max()))
            chunks.extend(largest.tolist())
    worst = float(np.max(chunks))
    if not worst <= tolerance:
        raise ParityError(
            f"the exported graphs differ from torch by {worst:.2e}, more than {tolerance:.0e}"
            f"{_few(np.array(chunks), tolerance)}"
        )
    return Parity(worst, physical, len(chunks), cases)


def _few(largest: NDArray[np.float64], tolerance: float) -> str:
    """What to make of it where only a few chunks (n,) differ; nothing otherwise."""
    beyond = ~(largest <= tolerance)
    if not np.isfinite(largest).all() or beyond.mean() > FEW:
        return ""
    return (
        f"; {beyond.sum()} of {len(largest)} chunks do, the others by at most {largest[~beyond].max():.2e}: "
        "a policy that picks among experts (gmm) picks another one where rounding moves the boundary between "
        "two; export it in fp32"
    )


def compare_values(
    reference: TorchCritic,
    exported: BundlePolicy,
    observations: Sequence[Arrays],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    candidates: Sequence[int] = CANDIDATES,
) -> float:
    """Largest difference between the critics' values, relative to the spread of the reference's [-].

    Candidates are samples of the exported policy, which is what a critic will see.

    Raises:
        ParityError: beyond the tolerance, or not a number.
    """
    found, expected = [], []
    for index, observation in enumerate(observations):
        batch = {name: value[None] for name, value in observation.items()}
        told = Context(asked(exported.policy_specs, index))
        for count in candidates:
            noise = draw_noise(exported.policy_specs, count, keyed_rng(seed, index, count))[None]
            chunks = exported.sample(batch, noise, told)
            found.append(exported.values(batch, chunks, told).ravel())
            expected.append(reference.values(batch, chunks, told).ravel())
    values, known = np.concatenate(found), np.concatenate(expected)
    worst = float(np.abs(values - known).max() / max(float(known.std()), 1e-3))
    if not worst <= tolerance:
        raise ParityError(
            f"the exported critic differs from torch by {worst:.2e} of its values' spread, more than "
            f"{tolerance:.0e}"
        )
    return worst


def random_observations(
    specs: PolicySpecs, normalisers: Normalisers, count: int, seed: int = 0
) -> list[dict[str, NDArray[Any]]]:
    """Windows drawn uniformly over the training range and 20 % beyond; images of random pixels."""
    rng = keyed_rng(seed, count)
    horizon = specs.horizons.observation
    windows = []
    for _ in range(count):
        window: dict[str, NDArray[Any]] = {}
        for name, spec in specs.specs.observation.items():
            if spec.kind == "image":
                window[name] = rng.integers(0, 256, (horizon, *spec.shape), dtype=np.uint8)
                continue
            affine = normalisers.observation[name]
            flat = affine.inverse(rng.uniform(-1.2, 1.2, (horizon, len(affine.offset))))
            rows = flat.reshape(horizon, *spec.shape[:-1], -1)
            window[name] = rows[..., : spec.shape[-1]].astype(spec.dtype)  # without the angles' sines
        windows.append(window)
    return windows


def recorded_observations(
    store: EpisodeStore, specs: PolicySpecs, count: int
) -> list[dict[str, NDArray[Any]]]:
    """Windows spread evenly over the first episodes of a store."""
    horizons = Horizons(specs.horizons.observation, specs.horizons.observation, 1)
    windows = Windows(store, horizons, tuple(specs.specs.observation), store.names[:4])
    picks = np.linspace(0, len(windows) - 1, count).astype(np.int64)
    batch = windows.batch(picks).observation
    return [{name: value[i] for name, value in batch.items()} for i in range(count)]
