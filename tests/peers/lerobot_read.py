"""Open a dataset with LeRobot itself and save what it sees. Runs under a Python that has lerobot 0.4.4.

Usage: python lerobot_read.py DATASET OUTPUT.npz
Arrays by feature, rows in order; cameras as uint8 (rows, height, width, 3); "task" as text; "statistics",
the shapes of those that LeRobot loaded, as JSON.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, output: str) -> None:
    dataset = LeRobotDataset("local/peer-check", root=root)
    columns: dict[str, list] = {}
    for index in range(len(dataset)):
        for key, value in dataset[index].items():
            columns.setdefault(key, []).append(value if isinstance(value, str) else value.numpy())
    found = {key: np.stack(values) if key != "task" else np.array(values) for key, values in columns.items()}
    for key in dataset.meta.camera_keys:
        found[key] = np.round(found[key].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    shapes = {
        key: {name: np.shape(v) for name, v in stats.items()} for key, stats in dataset.meta.stats.items()
    }
    found["statistics"] = np.array(json.dumps(shapes))
    found["episodes"] = np.array(dataset.num_episodes)
    windows = LeRobotDataset(
        "local/peer-check", root=root, delta_timestamps={"action": [0.0, 1 / dataset.fps]}
    )
    found["next_action"] = np.stack([windows[i]["action"].numpy()[1] for i in range(len(windows))])
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
