"""Serve a policy from this machine to robots elsewhere, over a websocket."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from robopolicy.core.errors import ConfigError, RobopolicyError
from robopolicy.core.policy import Policy
from robopolicy.runtime.bundle.directory import load_bundle
from robopolicy.runtime.bundle.policy import BundlePolicy
from robopolicy.runtime.inference.warm_up import warm_up
from robopolicy.runtime.remote.security import check_exposure, read_token
from robopolicy.runtime.remote.server import PolicyServer, ServerConfig


@dataclass(frozen=True)
class Args:
    """What to serve to whom. A token comes from ROBOPOLICY_TOKEN or a file, never from here.

    Args:
        bundle: exported policy.
        policy: training run or saved policy instead; needs torch.
        digest: refuse a bundle unless this is its digest.
        host: address to listen on; one that other machines reach needs a token.
        port: to listen on; 0 takes a free one.
        token_file: file with the token that clients must prove.
        cert: certificate chain in PEM, for wss; with ``key``.
        key: its private key in PEM.
        origins: web pages that may connect, as https://HOST; none by default.
        threads: of the inference on a CPU.
        provider: inference engine of a bundle: auto, cpu, cuda or tensorrt, see ``export``.
        max_candidates: most of one request.
        max_batch: most observations of one request; robots send one, evaluations several.
        max_clients: connections at once.
        warmup: inferences before the first client is let in.
    """

    bundle: Path | None = None
    policy: Path | None = None
    digest: str = ""
    host: str = "127.0.0.1"
    port: int = 8765
    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    origins: tuple[str, ...] = ()
    threads: int = 1
    provider: str = "auto"
    max_candidates: int = 16
    max_batch: int = 16
    max_clients: int = 4
    warmup: int = 5


def run(args: Args) -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False, show_level=False)]
    )
    token = read_token(args.token_file)
    check_exposure(args.host, token)  # before anything slow is loaded
    policy, digest, provider = load(args)
    config = ServerConfig(
        host=args.host,
        port=args.port,
        max_batch=args.max_batch,
        max_candidates=args.max_candidates,
        max_clients=args.max_clients,
        cert=args.cert,
        key=args.key,
        origins=args.origins,
    )
    server = PolicyServer(policy, config, digest=digest, provider=provider, token=token)
    warm_up(policy, args.warmup, (1, args.max_candidates))
    Console().print(f"digest {digest}, executed by {provider}", soft_wrap=True)
    asyncio.run(serve_until_ended(server))
    return 0


def load(args: Args) -> tuple[Policy, str, str]:
    """The policy, its digest and what executes it."""
    if (args.bundle is None) == (args.policy is None):
        raise ConfigError("name either a --bundle or a --policy")
    if args.bundle is not None:
        bundle = load_bundle(args.bundle, digest=args.digest or None)
        rows = args.max_batch * args.max_candidates
        exported = BundlePolicy(bundle, threads=args.threads, provider=args.provider, max_rows=rows)
        return exported, bundle.digest, exported.provider
    from robopolicy.cli.eval import load_any

    assert args.policy is not None
    policy = load_any(args.policy, args.threads)
    digest = str(getattr(policy, "digest", ""))
    if args.digest and digest != args.digest.lower():
        raise RobopolicyError(f"{args.policy} has digest {digest}, but {args.digest} was asked for")
    return policy, digest, f"torch on {getattr(policy, 'device', 'cpu')}"


async def serve_until_ended(server: PolicyServer) -> None:
    """Until SIGTERM or SIGINT, which let an inference end but not its answer; a second one does not wait."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def end() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        stop.set()

    for number in signals:
        loop.add_signal_handler(number, end)
    await server.run(stop)
