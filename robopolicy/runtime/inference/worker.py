"""The inference process: ``python -m robopolicy.runtime.inference.worker``, started by ``WorkerClient``.

It sleeps on its standard input. A byte there means a new request; its end means the parent is gone, and
so is the reason to live. A thread beats meanwhile, also while the engine computes, which lets go of the
interpreter. Another watches for the parent's end, since neither building an engine nor an inference that
hangs looks at the standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from robopolicy import __version__
from robopolicy.core.errors import WorkerError
from robopolicy.core.policy import Policy
from robopolicy.core.serial import from_tree
from robopolicy.runtime.bundle.directory import Bundle, load_bundle
from robopolicy.runtime.bundle.policy import BundlePolicy
from robopolicy.runtime.inference.channel import READY, STARTING, Channel, Layout
from robopolicy.runtime.inference.client import respond
from robopolicy.runtime.inference.shared_memory import attach
from robopolicy.runtime.inference.warm_up import warm_up, warm_up_reranker
from robopolicy.runtime.reranking.build import build_reranker
from robopolicy.runtime.reranking.config import RerankConfig
from robopolicy.runtime.reranking.reranker import Reranker

_WAKE_BYTES = 4096
_ORPHAN_S = 0.2
_PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SWITCH_S = 0.001  # how long the serving thread may keep the interpreter from the beating one


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parse(arguments)
    for number in _PARENTS_SIGNALS:  # sent to the whole group: the parent brakes first, then ends us
        signal.signal(number, signal.SIG_IGN)
    end_with(os.getppid())
    sys.setswitchinterval(_SWITCH_S)
    if given.nice:
        os.nice(given.nice)
    policy, reranker = _policy(given)
    layout = Layout(policy.policy_specs, given.max_candidates)
    if layout.fingerprint != given.layout:
        raise WorkerError(
            f"the control loop lays out its messages differently (fingerprint {given.layout[:12]}, here "
            f"{layout.fingerprint[:12]}): it is another release of robopolicy than {__version__} in "
            f"{sys.executable}; install the same in both"
        )
    segment = attach(given.segment, layout.size)
    channel = Channel(segment, layout)
    try:
        with heart(channel, given.heartbeat_s, lost=lambda: str(getattr(policy, "lost", ""))):
            channel.report(state=STARTING, progress=0, answered=0, warm_ns=0)
            if reranker is None:
                warm_ns = warm_up(policy, given.warmup, (1, given.max_candidates))
            else:
                warm_ns = warm_up_reranker(reranker, given.warmup, reranker.config.num_candidates)
            serve(policy, channel, sys.stdin.fileno(), warm_ns=warm_ns, reranker=reranker)
    finally:
        segment.close()
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Inference process of a control loop; not for use by hand.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bundle")
    where.add_argument("--connect", metavar="URL", help="the token comes from ROBOPOLICY_TOKEN")
    parser.add_argument("--digest", required=True)
    parser.add_argument("--segment", required=True)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--max-candidates", type=int, required=True)
    parser.add_argument("--heartbeat-s", type=float, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--request-timeout-s", type=float, required=True, help="of a server's answer")
    parser.add_argument("--reranking", default="", help="a RerankConfig as JSON")
    parser.add_argument("--critic", default="", help="bundle of the critic; else the policy's own")
    parser.add_argument("--critic-digest", default="")
    return parser.parse_args(arguments)


def _policy(given: argparse.Namespace) -> tuple[Policy, Reranker | None]:
    """The policy, and what chooses among its candidates where that is asked for."""
    config = from_tree(RerankConfig, json.loads(given.reranking)) if given.reranking else None
    judged = config is not None and config.needs_critic
    own = judged and not given.critic  # the critic is the one in the policy's bundle
    policy = _endpoint(given, with_critic=own)
    if config is None:
        return policy, None
    critic = policy if own and isinstance(policy, BundlePolicy) and policy.has_critic else None
    if judged and given.critic:
        critic = _from_bundle(given, load_bundle(given.critic, digest=given.critic_digest), "critic")
    return policy, build_reranker(policy, config, critic=critic)


def _endpoint(given: argparse.Namespace, *, with_critic: bool) -> Policy:
    if given.bundle is not None:
        bundle = load_bundle(given.bundle, digest=given.digest)
        return _from_bundle(given, bundle, "" if with_critic else "policy")
    from robopolicy.runtime.remote import RemotePolicy, read_token  # needs the extra "remote"

    return RemotePolicy(
        given.connect,
        token=read_token(),
        expect_digest=given.digest,
        request_timeout_s=given.request_timeout_s,
        max_candidates=given.max_candidates,
    )


def _from_bundle(
    given: argparse.Namespace, bundle: Bundle, only: Literal["", "policy", "critic"]
) -> BundlePolicy:
    return BundlePolicy(
        bundle, threads=given.threads, provider=given.provider, max_rows=given.max_candidates, only=only
    )


def end_with(parent: int) -> None:
    """End this process, whatever it does, within ``_ORPHAN_S`` of the end of its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, name="orphan", daemon=True).start()


@contextlib.contextmanager
def heart(channel: Channel, interval_s: float, lost: Callable[[], str] = str) -> Iterator[None]:
    """Beat from a thread of its own, ahead of the computing where the system permits.

    A worker whose server is ``lost`` ends with the reason, so that the parent learns of it within a tick and
    not at the next request.
    """
    stop = threading.Event()

    def beat() -> None:
        count = 0
        if hasattr(os, "sched_setscheduler"):
            with contextlib.suppress(OSError):  # without the privilege a busy machine may delay a beat
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # 0 is the calling thread
        while True:
            count += 1
            channel.beat(count)
            if reason := lost():
                print(reason, file=sys.stderr, flush=True)
                os._exit(1)
            if stop.wait(interval_s):
                return

    thread = threading.Thread(target=beat, name="heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def serve(
    policy: Policy, channel: Channel, wake_fd: int, *, warm_ns: int = 0, reranker: Reranker | None = None
) -> None:
    """Answer until the wake pipe ends, and show each beginning and end of an inference."""
    progress = answered = 0
    channel.report(state=READY, progress=progress, answered=answered, warm_ns=warm_ns)
    while os.read(wake_fd, _WAKE_BYTES):
        received = channel.receive_request()
        if received is None:
            continue
        request_id, request = received
        progress += 1
        channel.report(state=READY, progress=progress, answered=answered, warm_ns=warm_ns)
        channel.send_response(respond(policy, request_id, request, reranker=reranker))
        progress, answered = progress + 1, request_id
        channel.report(state=READY, progress=progress, answered=answered, warm_ns=warm_ns)


if __name__ == "__main__":
    sys.exit(main())
