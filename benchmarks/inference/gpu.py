"""The same bundle on a GPU, beside what the card could do at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
import onnxruntime
import torch

from inference.networks import Network
from inference.rounds import Way, measure, of_policy
from robopolicy.runtime import Bundle, BundlePolicy

#: Of a kernel that does nothing, as the issue of this benchmark takes it [ms].
LAUNCH_MS = 2e-3
#: Operators that move no data, or whose inputs are known when the graph is loaded.
FREE = {"Reshape", "Squeeze", "Unsqueeze", "Slice", "Cast", "Identity", "Constant"}


@dataclass(frozen=True)
class Card:
    """Measured through torch: float32 products (TF32 as the engines use it) and copies."""

    name: str
    flops_per_ms: float
    bytes_per_ms: float


def missing() -> str:
    """Why nothing is measured on a GPU; empty when it is."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "onnxruntime has no CUDA provider here"
    return "" if torch.cuda.is_available() else "torch finds no GPU"


def describe() -> Card:
    torch.backends.cuda.matmul.allow_tf32 = True
    left = torch.randn(8192, 8192, device="cuda")
    source = torch.empty(2**28, device="cuda")
    product_ms = _milliseconds(lambda: left @ left)
    copy_ms = _milliseconds(lambda: source.clone())
    name = torch.cuda.get_device_name()
    return Card(name, 2 * 8192**3 / product_ms, 2 * source.nbytes / copy_ms)


def compare(
    network: Network, bundle: Bundle, flops: int, candidates: tuple[int, ...], rounds: int, most: int
) -> tuple[list[Way], dict[str, object]]:
    """Chunks on the card, each brought back to the host, and the published figures.

    ``bound_ms`` is max(FLOPs / peak, bytes / bandwidth) + 2 us a kernel, of a chunk of one candidate.
    """
    policy = BundlePolicy(bundle, provider="cuda")
    ways = [of_policy(network, "bundle, CUDA", policy, count, 1) for count in candidates]
    measure(ways, rounds, most)
    card, model = describe(), onnx.load_from_string(bundle.graphs["step"])
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    kernels = sum(node.op_type not in FREE for node in model.graph.node)
    work = max(flops * min(candidates) / card.flops_per_ms, weights / card.bytes_per_ms)
    one, many = ways[0].percentile(50), ways[-1].percentile(50)
    figures = {
        "gpu": card.name,
        "gpu_ms_p50": one,
        "k16_over_k1": many / one,
        "bound_ms": len(bundle.manifest.steps) * (work + LAUNCH_MS * kernels),
        "kernels_per_step": kernels,
    }
    return ways, figures


def _milliseconds(work: Callable[[], torch.Tensor]) -> float:
    work()
    best = float("inf")
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end))
    return best
