"""The on-robot path: bundle, inference worker, chunk scheduler, safety filter, control loop.

Needs numpy, an inference engine and ruckig; names load on first use, so importing this is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robopolicy.runtime.bundle.directory import Bundle, bundle_digest, load_bundle, write_bundle
    from robopolicy.runtime.bundle.manifest import Manifest, Producer
    from robopolicy.runtime.bundle.policy import BundlePolicy
    from robopolicy.runtime.control.faults import FAULTS, FaultError
    from robopolicy.runtime.control.monitors import MonitorConfig, Monitors
    from robopolicy.runtime.control.realtime import RealtimeConfig
    from robopolicy.runtime.control.run_log import RunResult, percentile_ms
    from robopolicy.runtime.control.runner import RunConfig, run_realtime
    from robopolicy.runtime.inference.client import InferenceClient, LocalClient, Request, Response
    from robopolicy.runtime.inference.supervisor import RestartConfig, SupervisedClient
    from robopolicy.runtime.inference.worker_client import WorkerClient, WorkerConfig
    from robopolicy.runtime.reranking.build import build_reranker
    from robopolicy.runtime.reranking.callables import CallablePolicy
    from robopolicy.runtime.reranking.choice import Choice
    from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig
    from robopolicy.runtime.reranking.policy import RerankedPolicy
    from robopolicy.runtime.reranking.reranker import Reranker
    from robopolicy.runtime.safety.config import SafetyConfig
    from robopolicy.runtime.safety.deadman import Deadman
    from robopolicy.runtime.safety.filter import SafetyFilter
    from robopolicy.runtime.scheduling.scheduler import ChunkScheduler, Join, SchedulerConfig
    from robopolicy.runtime.scheduling.smoothness import Smoothness, smoothness

_MODULES = {
    "bundle.directory": ("Bundle", "bundle_digest", "load_bundle", "write_bundle"),
    "bundle.manifest": ("Manifest", "Producer"),
    "bundle.policy": ("BundlePolicy",),
    "control.faults": ("FAULTS", "FaultError"),
    "control.monitors": ("MonitorConfig", "Monitors"),
    "control.realtime": ("RealtimeConfig",),
    "control.run_log": ("RunResult", "percentile_ms"),
    "control.runner": ("RunConfig", "run_realtime"),
    "inference.client": ("InferenceClient", "LocalClient", "Request", "Response"),
    "inference.supervisor": ("RestartConfig", "SupervisedClient"),
    "inference.worker_client": ("WorkerClient", "WorkerConfig"),
    "reranking.build": ("build_reranker",),
    "reranking.callables": ("CallablePolicy",),
    "reranking.choice": ("Choice",),
    "reranking.config": ("RerankConfig", "ScoreConfig"),
    "reranking.policy": ("RerankedPolicy",),
    "reranking.reranker": ("Reranker",),
    "safety.config": ("SafetyConfig",),
    "safety.deadman": ("Deadman",),
    "safety.filter": ("SafetyFilter",),
    "scheduling.scheduler": ("ChunkScheduler", "Join", "SchedulerConfig"),
    "scheduling.smoothness": ("Smoothness", "smoothness"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Bundle",
    "BundlePolicy",
    "CallablePolicy",
    "Choice",
    "ChunkScheduler",
    "Deadman",
    "FAULTS",
    "FaultError",
    "InferenceClient",
    "Join",
    "LocalClient",
    "Manifest",
    "MonitorConfig",
    "Monitors",
    "Producer",
    "RealtimeConfig",
    "Request",
    "RerankConfig",
    "RerankedPolicy",
    "Reranker",
    "Response",
    "RestartConfig",
    "RunConfig",
    "RunResult",
    "SafetyConfig",
    "SafetyFilter",
    "SchedulerConfig",
    "ScoreConfig",
    "Smoothness",
    "SupervisedClient",
    "WorkerClient",
    "WorkerConfig",
    "build_reranker",
    "bundle_digest",
    "load_bundle",
    "percentile_ms",
    "run_realtime",
    "smoothness",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
