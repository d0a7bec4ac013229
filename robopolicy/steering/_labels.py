"""Rewards over the episodes of a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robopolicy.core.errors import NonFiniteValueError, RobopolicyError, ShapeError, StoreError
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.transitions import Label
from robopolicy.steering.rewards import Reward
from robopolicy.steering.rewards._needs import needed


def label_episodes(store: EpisodeStore, names: Sequence[str], reward: Reward) -> list[Label]:
    """What each episode was worth, for ``Transitions``.

    The reward gets the episode with the signals that it needs, and as facts those of ``EpisodeStore.facts``
    with "store", "name" and "policy_rate" [Hz].

    Raises:
        StoreError: an episode lacks a signal that the reward needs.
        ShapeError, NonFiniteValueError: the reward gave another number of steps, or NaN.
        RobopolicyError: the reward raised something else. All of them, and whatever RobopolicyError the
            reward raises, name the episode.
    """
    return [_label(store, name, reward) for name in names]


def _label(store: EpisodeStore, name: str, reward: Reward) -> Label:
    where = f"{store.where}, episode {name}"
    told = getattr(reward, "__module__", "").rpartition(".")[2] or "reward"
    reader = store.reader(name)
    observations, extras = needed(reward)
    wanted = [f"observation/{key}" for key in observations] + [f"extra/{key}" for key in extras]
    if missing := [signal for signal in wanted if signal not in reader.signals]:
        raise StoreError(f"{where}: reward {told!r} needs {missing}; there are {sorted(reader.signals)}")
    episode = reader.episode(observations, extras)
    facts = {**store.facts(name), "store": store.where, "name": name}
    facts["policy_rate"] = store.specs.policy_rate
    try:
        values = np.asarray(reward(episode, facts), np.float64)
    except RobopolicyError as error:
        error.args = (f"{where}: {error}",)  # of its own type, whatever that is made from
        raise
    except Exception as error:  # a user's code
        raise RobopolicyError(f"{where}: reward {told!r} raised {type(error).__name__}: {error}") from error
    if values.shape != (len(episode),):
        raise ShapeError(f"{where}: reward {told!r} gave {values.shape} for {len(episode)} steps")
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NonFiniteValueError(f"{where}: reward {told!r} of step {step} is {values[step]}")
    return Label(values, bool(episode.success))
