"""Let LeRobot write a tiny v3.0 dataset: the fixture tests/data/lerobot_v3. Runs under lerobot 0.4.4.

Usage: python lerobot_write.py DATASET
Every number is a formula of episode e and frame i, which tests/unit/test_import_lerobot.py repeats.
"""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

LENGTHS, SIZE, FPS = (4, 3, 5), 64, 10
TASKS = ("pick the cube", "pick the cube", "place the cube")
JOINTS = ["shoulder", "gripper"]
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": JOINTS},
    "observation.images.front": {
        "dtype": "video",
        "shape": (SIZE, SIZE, 3),
        "names": ["height", "width", "channels"],
    },
    "action": {"dtype": "float32", "shape": (2,), "names": JOINTS},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
}


def main(root: str) -> None:
    dataset = LeRobotDataset.create("local/tiny", FPS, FEATURES, root=root, robot_type="so100")
    for e, length in enumerate(LENGTHS):
        for i in range(length):
            image = np.empty((SIZE, SIZE, 3), np.uint8)
            image[...] = (40 + 60 * e, 20 * i, 200)
            dataset.add_frame(
                {
                    "observation.state": np.array([e, i / 3], np.float32),
                    "observation.images.front": image,
                    "action": np.array([e + 0.1, i / 7], np.float32),
                    "next.reward": np.array([i / 9], np.float32),
                    "next.success": np.array([e != 1 and i == length - 1]),
                    "task": TASKS[e],
                }
            )
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
