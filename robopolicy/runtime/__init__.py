"""The on-robot path: bundle, inference worker, chunk scheduler, safety filter, control loop.

Needs numpy, an inference engine and ruckig; names load on first use, so importing this is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robopolicy.runtime.bundle import Bundle, bundle_digest, load_bundle, write_bundle
    from robopolicy.runtime.client import InferenceClient, LocalClient, Request, Response
    from robopolicy.runtime.manifest import Manifest, Producer
    from robopolicy.runtime.policy import BundlePolicy
    from robopolicy.runtime.run_log import RunResult, percentile_ms
    from robopolicy.runtime.runner import RunConfig, run_realtime
    from robopolicy.runtime.safety import SafetyConfig, SafetyFilter
    from robopolicy.runtime.scheduler import ChunkScheduler, SchedulerConfig
    from robopolicy.runtime.worker_client import WorkerClient, WorkerConfig

_MODULES = {
    "bundle": ("Bundle", "bundle_digest", "load_bundle", "write_bundle"),
    "client": ("InferenceClient", "LocalClient", "Request", "Response"),
    "manifest": ("Manifest", "Producer"),
    "policy": ("BundlePolicy",),
    "run_log": ("RunResult", "percentile_ms"),
    "runner": ("RunConfig", "run_realtime"),
    "safety": ("SafetyConfig", "SafetyFilter"),
    "scheduler": ("ChunkScheduler", "SchedulerConfig"),
    "worker_client": ("WorkerClient", "WorkerConfig"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Bundle",
    "BundlePolicy",
    "ChunkScheduler",
    "InferenceClient",
    "LocalClient",
    "Manifest",
    "Producer",
    "Request",
    "Response",
    "RunConfig",
    "RunResult",
    "SafetyConfig",
    "SafetyFilter",
    "SchedulerConfig",
    "WorkerClient",
    "WorkerConfig",
    "bundle_digest",
    "load_bundle",
    "percentile_ms",
    "run_realtime",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
