"""Ways to get a chunk out of each network: torch, and ONNX Runtime in both forms of the denoising loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from inference.rounds import Way
from numpy.typing import NDArray

from experts.networks import Size, inputs, uncached
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.export.unroll import unroll
from robopolicy.models.policy_module import SamplingModule
from robopolicy.policies.mode import MixtureOfDenoisingExperts
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend
from robopolicy.runtime.backends.protocol import Loop
from robopolicy.runtime.bundle.contract import CHUNK, NOISE, STEP_CHUNK, STEP_OUTPUT, STEP_PARAMETERS

Sample = Callable[[int], NDArray[np.float32]]


def ways(
    size: Size, rows: tuple[int, ...], threads: tuple[int, ...], loads: dict[str, dict[str, float]]
) -> Iterator[tuple[Way, Sample]]:
    """Every way with what it samples for a number of rows.

    Args:
        loads: filled with megabytes of the graph files, by network and form.
    """
    for name, policy in size.build().items():
        kinds = {"cached": policy, "uncached": uncached(policy)} if name == "mode" else {name: policy}
        for kind, module in kinds.items():
            samples = {"torch": {1: _of_torch(size, module.inference_form().eval())}}
            samples.update(_of_onnx(size, module, threads, loads.setdefault(kind, {})))
            for engine, by_threads in samples.items():
                for used, sample in by_threads.items():
                    for count in rows:
                        yield Way(kind, engine, count, used, _taken(sample, count)), sample


def _of_torch(size: Size, module: SamplingModule) -> Sample:
    def sample(rows: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module.sample(*inputs(size, rows)).numpy()
        return found

    return sample


def _of_onnx(
    size: Size, policy: MixtureOfDenoisingExperts, threads: tuple[int, ...], megabytes: dict[str, float]
) -> dict[str, dict[int, Sample]]:
    step, table = export_graphs(policy, form="step")["step"], step_rows(policy)
    ends = {"first": NOISE, "last": CHUNK}
    names = {"carried": STEP_CHUNK, "constant": STEP_PARAMETERS, "output": STEP_OUTPUT}
    unrolled = unroll(onnx.load_model_from_string(step), table, **names, **ends).SerializeToString()
    megabytes.update(step=len(step) / 1e6, unrolled=len(unrolled) / 1e6)
    loop = Loop(
        carried=STEP_CHUNK,
        varying=STEP_PARAMETERS,
        output=STEP_OUTPUT,
        rows=tuple(map(tuple, table.tolist())),
    )
    found: dict[str, dict[int, Sample]] = {"onnxruntime step": {}, "onnxruntime unrolled": {}}
    for used in threads:
        options: dict[str, Any] = {"threads": used, "provider": "cpu"}
        repeated = OnnxRuntimeBackend(step, loop=loop, **options)
        whole = OnnxRuntimeBackend(unrolled, **options)
        found["onnxruntime step"][used] = lambda rows, b=repeated: b.iterate(_feeds(size, rows, STEP_CHUNK))
        found["onnxruntime unrolled"][used] = lambda rows, b=whole: b.run(_feeds(size, rows, NOISE))[CHUNK]
    return found


@functools.cache
def _feeds(size: Size, rows: int, start: str) -> dict[str, NDArray[np.float32]]:
    conditioning, noise = (tensor.numpy() for tensor in inputs(size, rows))
    free = {"prefix": np.zeros_like(noise), "prefix_weight": np.zeros(noise.shape[:2], np.float32)}
    return {"conditioning": conditioning, start: noise, **free}


def _taken(sample: Sample, rows: int) -> Callable[[int], list[float]]:
    def take(count: int) -> list[float]:
        times = []
        for _ in range(count + (count > 1)):
            started = time.perf_counter_ns()
            sample(rows)
            times.append((time.perf_counter_ns() - started) / 1e6)
        return times[-count:]

    return take
