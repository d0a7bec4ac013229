"""``robopolicy eval --robot``: a person compares policies on an arm, blind."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from robopolicy.core.provenance import create_run, provenance
from robopolicy.evaluation.stored import PolicyRecord, StoppingRule
from robopolicy.evaluation.trials import stopping
from robopolicy.evaluation.trials.arm import check_name, make_arm, starts_for
from robopolicy.evaluation.trials.keys import TerminalKeys
from robopolicy.evaluation.trials.log import TrialLog
from robopolicy.evaluation.trials.page import TrialPage
from robopolicy.evaluation.trials.protocol import LOG_NAME, Protocol, open_log
from robopolicy.evaluation.trials.session import Session, StopRule, View
from robopolicy.evaluation.trials.terminal import TerminalScreen
from robopolicy.evaluation.trials.unblind import unblind
from robopolicy.runtime import Bundle, WorkerClient, WorkerConfig, load_bundle


@dataclass(frozen=True)
class TrialArgs:
    """Which policies to compare on which arm.

    Args:
        robot: an arm of an installed package, or a task that simulates one (``lift``).
        policies: exported bundles, the baseline first.
        output: a new folder, or one in which trials were paused: they go on.
        success: what counts as success, in words; say it before you see anything.
        starts: photographs or a YAML file of initial conditions, for a real arm.
        blocks: starts of a simulated arm; each policy runs once from each.
        repeats: runs of each policy from each start, on a real arm.
        seed: of the order of the policies; first_seed: of the first start.
        duration_s: longest run [s].
        sequential: stop once the policies are told apart, with error control; at most as many as above.
        alpha, margin: of the sequential test.
        end: do not go on; unblind what there is. The report says that it was ended by hand.
        threads: of each policy's inference.
        page: serve the start over the live picture on this machine.
    """

    robot: str
    policies: tuple[Path, ...]
    output: Path
    success: str
    starts: Path | None = None
    blocks: int = 20
    repeats: int = 1
    seed: int = 0
    first_seed: int = 3_000_000
    duration_s: float = 12.0
    sequential: bool = False
    alpha: float = 0.05
    margin: float = 0.0
    end: bool = False
    threads: int = 1
    page: bool = True


def run_trials(args: TrialArgs) -> int:
    """Guide a person through the trials; go on where they were paused."""
    console = Console(highlight=False)
    check_name(args.robot)
    starts = starts_for(args.robot, args.starts, blocks=args.blocks, repeats=args.repeats)
    bundles = [load_bundle(path) for path in args.policies]
    records = tuple(PolicyRecord(str(p), b.digest, b.policy_specs) for p, b in zip(args.policies, bundles))
    protocol = Protocol(
        args.robot, args.success, records, starts, args.repeats, seed=args.seed, first_seed=args.first_seed
    )
    if not (args.output / LOG_NAME).is_file():
        create_run(args.output, args, **protocol.header)
    log = open_log(args.output, protocol)
    rule = stopping.rule(
        len(bundles), len(starts) * args.repeats, args.sequential, alpha=args.alpha, margin=args.margin
    )
    declared, reason = rule.declared, ""
    if args.end:
        text = f"ended by hand; declared had been: {declared.text}"
        declared = StoppingRule("by hand", declared.episodes, text)
    else:
        played = _play(args, protocol, log, rule.stop, bundles, console)
        if played is None:
            console.print("paused; the same command goes on, with --end it unblinds what there is")
            return 0
        reason = played
    page = unblind(
        args.output,
        protocol,
        log,
        stopping=declared,
        command=provenance()["command"],
        alpha=args.alpha,
        margin=args.margin,
    )
    console.print(f"{reason or 'no more trials are due'}; open {page}", soft_wrap=True)
    return 0


def _play(
    args: TrialArgs,
    protocol: Protocol,
    log: TrialLog,
    stop_rule: StopRule,
    bundles: Sequence[Bundle],
    console: Console,
) -> str | None:
    """One sitting at the terminal; every policy is loaded before the first trial, lest loading tells."""
    with ExitStack() as stack:
        pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
        keys = stack.enter_context(TerminalKeys(pressed))
        config = WorkerConfig(threads=args.threads)
        clients = [stack.enter_context(WorkerClient(bundle, config)) for bundle in bundles]
        arm = stack.enter_context(
            make_arm(args.robot, clients, duration_s=args.duration_s, stop=lambda: bool(keys.drain()))
        )
        screens: list[Callable[[View], None]] = [TerminalScreen(console)]
        if args.page:
            page = stack.enter_context(TrialPage(arm, pressed))
            console.print(f"the start, and the same keys: {page.url}", soft_wrap=True)
            screens.append(page.show)
        session = Session(
            protocol,
            log,
            run=arm.run,
            prepare=arm.prepare,
            keys=keys,
            screens=screens,
            stop_rule=stop_rule,
            now=lambda: datetime.now().astimezone().isoformat(timespec="seconds"),
            echo=lambda text: print(text, end="", flush=True),
        )
        return session.play()
