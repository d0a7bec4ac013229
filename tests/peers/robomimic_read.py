"""Read a dataset with robomimic's own SequenceDataset. Run by robomimic's Python, never by ours.

    PYTHON robomimic_read.py FILE.hdf5 OUT.npz IMAGE_KEYS LOW_DIM_KEYS DEPTH_KEYS [FILTER_KEY]

Keys are separated by commas. OUT gets, for every demonstration read, ``demo_N/obs/KEY`` and so on, stacked
from the items the dataset gives one by one.
"""

from __future__ import annotations

import inspect
import sys

import numpy as np
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset

DATASET_KEYS = ("actions", "rewards", "dones")


def main(path: str, out: str, images: str, low_dim: str, depth: str, mask: str = "") -> None:
    keys = {
        kind: [key for key in text.split(",") if key]
        for kind, text in (("rgb", images), ("low_dim", low_dim), ("depth", depth))
    }
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": keys})
    arguments = {
        "hdf5_path": path,
        "obs_keys": [key for part in keys.values() for key in part],
        "dataset_keys": DATASET_KEYS,
        "hdf5_cache_mode": None,
        "filter_by_attribute": mask or None,
        "load_next_obs": True,
        "action_keys": ["actions"],  # this and the next since robomimic 0.4
        "action_config": {"actions": {"normalization": None}},
    }
    known = inspect.signature(SequenceDataset.__init__).parameters
    dataset = SequenceDataset(**{name: value for name, value in arguments.items() if name in known})
    rows: dict[str, list[np.ndarray]] = {}
    for index in range(len(dataset)):
        demo, item = dataset._index_to_demo_id[index], dataset[index]
        for name in DATASET_KEYS:
            rows.setdefault(f"{demo}/{name}", []).append(item[name])
        for group in ("obs", "next_obs"):
            for key, value in item[group].items():
                rows.setdefault(f"{demo}/{group}/{key}", []).append(value)
    np.savez(out, **{name: np.concatenate(values) for name, values in rows.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
