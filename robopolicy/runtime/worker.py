"""The inference process: ``python -m robopolicy.runtime.worker``, started by ``WorkerClient``.

It sleeps on its standard input. A byte there means a new request; its end means the parent is gone, and
so is the reason to live.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np

from robopolicy import __version__
from robopolicy.core.errors import WorkerError
from robopolicy.core.policy import Policy
from robopolicy.runtime.bundle import load_bundle
from robopolicy.runtime.channel import READY, STARTING, Channel, Layout
from robopolicy.runtime.client import Request, Response, answer
from robopolicy.runtime.policy import BundlePolicy
from robopolicy.runtime.shared_memory import attach

HEARTBEAT_S = 0.02
_WAKE_BYTES = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Inference process of a control loop; not for use by hand.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--segment", required=True)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--max-candidates", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--warmup", type=int, default=5)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent brakes first, then ends us

    bundle = load_bundle(given.bundle, digest=given.digest)
    layout = Layout(bundle.policy_specs, given.max_candidates)
    if layout.fingerprint != given.layout:
        raise WorkerError(
            f"the control loop lays out its messages differently (fingerprint {given.layout[:12]}, here "
            f"{layout.fingerprint[:12]}): it is another release of robopolicy than {__version__} in "
            f"{sys.executable}; install the same in both"
        )
    segment = attach(given.segment, layout.size)
    try:
        channel = Channel(segment, layout)
        channel.beat(1, STARTING)
        policy = BundlePolicy(bundle, threads=given.threads, provider=given.provider)
        warm_up(policy, given.warmup, given.max_candidates)
        serve(policy, channel, sys.stdin.fileno())
    finally:
        segment.close()
    return 0


def warm_up(policy: Policy, repeats: int, max_candidates: int) -> None:
    """Run on zeros, so that no first request pays for lazy set-up; both sizes a run may ask for."""
    specs = policy.policy_specs
    zeros = {
        name: np.zeros((specs.horizons.observation, *spec.shape), dtype=spec.dtype)
        for name, spec in specs.specs.observation.items()
    }
    for _ in range(repeats):
        for count in sorted({1, max_candidates}):
            answer(policy, Request(zeros, 0, (0, 0, 0), count))


def serve(policy: Policy, channel: Channel, wake_fd: int) -> None:
    """Answer until the wake pipe ends. Only computing holds up the heartbeat, so it shows a hang."""
    count = 2
    while True:
        channel.beat(count, READY)
        count += 1
        readable, _, _ = select.select([wake_fd], [], [], HEARTBEAT_S)
        if readable and not os.read(wake_fd, _WAKE_BYTES):
            return
        received = channel.receive_request()
        if received is None:
            continue
        request_id, request = received
        started_ns = time.monotonic_ns()
        candidates, error = answer(policy, request)
        elapsed_ns = time.monotonic_ns() - started_ns
        channel.send_response(
            Response(request_id, request.observation_time_ns, candidates, elapsed_ns, error)
        )


if __name__ == "__main__":
    sys.exit(main())
