"""Fixtures for every test. Nothing here reads a home folder, the network or the clock."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from synthetic import make_episode, make_specs

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("deterministic")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file of the shared data folder beside the checkout, or skips the test by its name."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"shared data absent: {path}")
        return path

    return find


@pytest.fixture
def tiny_store(tmp_path: Path):
    """Three short episodes of states, an image and extra signals."""
    from robopolicy.datasets.store import EpisodeStore

    specs = make_specs(image=True)
    store = EpisodeStore.create(tmp_path / "tiny.zarr", specs, {"made": "by a test"})
    for seed, length in enumerate((9, 12, 5)):
        store.append(make_episode(specs, length, seed))
    return store


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit-equal torch results need one thread count; gives back the old one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hang_up_not_ignored() -> Iterator[None]:
    """As in a terminal; under nohup it is ignored, by us and by what we start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
