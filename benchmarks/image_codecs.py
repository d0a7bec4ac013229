"""Bytes per frame and time to encode and decode one, for every image codec, on real and rendered pictures.

    python benchmarks/image_codecs.py [--quick] [--json FILE]

Frames: a real robot's head camera (640x480, and area-resized to 320x240 and 96x96) where the shared data are
there, and renders of the `lift` task. One thread, warm, median over frames; the write and read path of a
store, CRC included. Peak signal-to-noise ratio against the frame that went in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from robopolicy.core.specs import ArraySpec
from robopolicy.datasets.codecs import FrameCodec, checked, decoder
from robopolicy.evaluation.environments import make_env

SHARED = Path(__file__).parents[2] / "shared" / "data"
VIDEO = SHARED / "g1_inspire_teleop/videos/chunk-000/observation.images.cam_high/episode_000010.mp4"
CODECS = [
    ("lossless", {}),
    ("lossless", {"compressor": "lz4", "level": 5}),
    ("lossless", {"compressor": "zstd", "level": 3}),
    ("png", {}),
    ("jpeg", {"quality": 95}),
    ("jpeg", {"quality": 90}),
]


def real_frames(count: int) -> list[np.ndarray]:
    """RGB frames of the G1's head camera, spread over an episode."""
    video, frames = cv2.VideoCapture(str(VIDEO)), []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    picks = np.linspace(0, len(frames) - 1, count).astype(int)
    return [np.ascontiguousarray(frames[i]) for i in picks]


def rendered_frames(count: int) -> list[np.ndarray]:
    """Frames of the `lift` task's first camera at its own size."""
    env = make_env("lift", observation_mode="image")
    key = next(name for name, spec in env.specs.observation.items() if spec.kind == "image")
    frames = [env.reset(seed=seed)[0][key] for seed in range(count)]
    env.close()
    return frames


def depth_frames(count: int) -> list[np.ndarray]:
    """A tilted plane with a sensor's noise, 16 bit millimetres, 320x240."""
    rng = np.random.default_rng(0)
    plane = np.add.outer(np.linspace(500, 1500, 240), np.linspace(0, 300, 320))
    return [
        (plane + rng.normal(0, 2, plane.shape)).round().astype(np.uint16)[..., None] for _ in range(count)
    ]


def measure(frames: list[np.ndarray], name: str, settings: dict[str, object]) -> dict[str, float]:
    """Median bytes and milliseconds of one frame, and the worst PSNR [dB]."""
    kind = "depth" if frames[0].dtype == np.uint16 else "image"
    spec = ArraySpec(frames[0].shape, frames[0].dtype.name, ("mm",) if kind == "depth" else (), kind=kind)
    codec = FrameCodec(name, spec, **settings)
    decode = decoder(codec.chain, "benchmark")
    out = np.empty_like(frames[0])
    sizes, encoding, decoding, errors = [], [], [], []
    for frame in frames:
        started = time.perf_counter()
        data = codec.encode(frame)
        encoding.append(time.perf_counter() - started)
        started = time.perf_counter()
        decode(checked(data, "benchmark"), out)
        decoding.append(time.perf_counter() - started)
        sizes.append(len(data))
        errors.append(float(np.mean((out.astype(float) - frame) ** 2)))
    return {
        "bytes_per_frame": statistics.median(sizes),
        "encode_ms": statistics.median(encoding[1:]) * 1e3,
        "decode_ms": statistics.median(decoding[1:]) * 1e3,
        "psnr_db": float("inf") if max(errors) == 0 else 10 * np.log10(255**2 / max(errors)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 frames of each instead of 100")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    count, console = (16 if args.quick else 100), Console()
    sets = {"lift 96x96": rendered_frames(count), "depth 320x240": depth_frames(count)}
    if VIDEO.is_file():
        real = real_frames(count)
        for width, height in ((96, 96), (320, 240)):
            small = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in real]
            sets[f"real {width}x{height}"] = small
        sets["real 640x480"] = real
    else:
        console.print("no shared data: the real camera is not measured")
    rows = []
    for label, frames in sets.items():
        for name, settings in CODECS:
            if frames[0].dtype == np.uint16 and name == "jpeg":
                continue
            rows.append({"frames": label, "codec": name, **settings, **measure(frames, name, settings)})
    table = Table("frames", "codec", "bytes/frame", "of raw", "encode ms", "decode ms", "PSNR dB")
    for row in rows:
        raw = sets[str(row["frames"])][0].nbytes
        settings = " ".join(str(row[key]) for key in ("compressor", "level", "quality") if key in row)
        psnr = "equal" if np.isinf(row["psnr_db"]) else f"{row['psnr_db']:.1f}"
        cells = (f"{row['bytes_per_frame']:.0f}", f"{row['bytes_per_frame'] / raw:.2f}")
        times = (f"{row['encode_ms']:.3f}", f"{row['decode_ms']:.3f}")
        table.add_row(str(row["frames"]), f"{row['codec']} {settings}", *cells, *times, psnr)
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
