"""The guided trials: restore the start, run, judge by one key, again; blind until the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.serial import to_tree
from robopolicy.evaluation.trials.keys import ENTER, Keys, read_line
from robopolicy.evaluation.trials.log import (
    BEST_SCORE,
    FAILURE,
    PARTIAL,
    REDO,
    SUCCESS,
    TAKEN_BACK,
    Line,
    TrialLog,
)
from robopolicy.evaluation.trials.plan import Trial
from robopolicy.evaluation.trials.protocol import Measured, Protocol
from robopolicy.evaluation.trials.sealing import seal
from robopolicy.evaluation.trials.starts import Start

SET_UP, RUNNING, JUDGE, OVER = "set up", "running", "judge", "over"
START_KEYS = (("space", "start"), ("u", "take back the last judgement"), ("q", "pause"))
JUDGE_KEYS = (("s", "success"), ("f", "failure"), ("p", "partial"), ("n", "note"), ("r", "redo"))
SCORE_KEYS = tuple((str(score), f"{score} of {BEST_SCORE}") for score in range(BEST_SCORE + 1))
OVER_KEYS = (("enter", "end and unblind"), ("u", "take back the last judgement"), ("q", "pause"))

#: Successes of the finished blocks, (blocks, policies) as indices; a text ends the trials with it as reason.
StopRule = Callable[[Sequence[tuple[bool, ...]]], str]


@dataclass(frozen=True)
class View:
    """What the person sees; it must fit every policy alike.

    Args:
        number, total: of the trial.
        keys: (key, what it does).
    """

    phase: str
    number: int
    total: int
    start: Start
    keys: tuple[tuple[str, str], ...] = ()
    message: str = ""


class Session:
    """One sitting; trials that the log already holds are not run again.

    Args:
        run: (index of the policy, seed) to what was measured; blocks until the arm rests.
        keys: of the person.
        screens: each is shown every ``View``.
        prepare: brings the arm to where every trial begins, the same for all policies.
        stop_rule: asked after every finished block; never shown to the person.
        now: ISO 8601 time of a judgement.
        echo: shows a note while it is typed.
    """

    def __init__(
        self,
        protocol: Protocol,
        log: TrialLog,
        *,
        run: Callable[[int, int], Measured],
        keys: Keys,
        screens: Sequence[Callable[[View], None]],
        now: Callable[[], str],
        prepare: Callable[[int], None] = lambda seed: None,
        stop_rule: StopRule = lambda blocks: "",
        echo: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._protocol, self._log = protocol, log
        self._run, self._prepare, self._stop_rule = run, prepare, stop_rule
        self._keys, self._screens, self._echo, self._now = keys, screens, echo, now

    def play(self) -> str | None:
        """Go on until the last trial is judged or the rule says stop.

        Returns:
            why it ended, empty for the full number; None when the person paused.
        Raises:
            KeyboardInterrupt: at most the trial under way is lost.
        """
        try:
            while True:
                judged = self._log.judged()
                due = [trial for trial in self._protocol.plan if trial.number not in judged]
                blocks = self._protocol.blocks(judged)
                between = not due or self._untouched(due[0].block, judged)
                reason = self._stop_rule(blocks) if blocks and between else ""
                if due and not reason:
                    if not self._trial(due[0]):
                        return None
                    continue
                answer = self._confirm_end()
                if answer != "u":
                    return reason if answer in ENTER else None
        except EOFError:
            return None

    def _untouched(self, block: int, judged: Mapping[int, Line]) -> bool:
        """Whether none of its trials is judged, so that stopping now leaves whole blocks."""
        return not any(trial.number in judged for trial in self._protocol.plan if trial.block == block)

    def _show(self, trial: Trial, phase: str, keys: tuple[tuple[str, str], ...], message: str = "") -> None:
        start = self._protocol.starts[trial.condition]
        view = View(phase, trial.number, len(self._protocol.plan), start, keys, message)
        for screen in self._screens:
            screen(view)

    def _trial(self, trial: Trial) -> bool:
        """Set up, run, judge; False when the person pauses."""
        self._prepare(trial.seed)
        self._show(trial, SET_UP, START_KEYS)
        answer = self._ask(" uq" + "".join(ENTER))
        if answer == "q":
            return False
        if answer == "u":
            self._take_back()
            return True
        self._show(trial, RUNNING, ())
        measured, message = self._measure(trial)
        self._judge(trial, measured, message)
        return True

    def _measure(self, trial: Trial) -> tuple[Measured, str]:
        """A fault of the policy is an outcome to be judged; what it says must not name the policy."""
        try:
            measured = self._run(trial.policy, trial.seed)
        except RobopolicyError as error:
            measured = Measured(reason=str(error), fault=True)
        if not measured.fault:
            return measured, ""
        return measured, f"the run ended by a fault: {self._anonymous(measured.reason)}"

    def _anonymous(self, text: str) -> str:
        names = {part for p in self._protocol.policies for part in (p.label, p.digest, Path(p.label).name)}
        for name in sorted(filter(None, names), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "POLICY", text)
        return text

    def _judge(self, trial: Trial, measured: Measured, message: str) -> None:
        note, outcome, score = "", "", 0
        while not outcome:
            self._show(trial, JUDGE, JUDGE_KEYS, message)
            key = self._ask("sfpnr")
            if key == "n":
                self._show(trial, JUDGE, (("enter", "end of the note"),), "type a note")
                note = read_line(self._keys, self._echo)
                message = f"noted: {note}"
            elif key == "p":
                self._show(trial, JUDGE, SCORE_KEYS, "how far did it get?")
                score = int(self._ask("".join(key for key, _ in SCORE_KEYS)))
                outcome = SUCCESS if score == BEST_SCORE else PARTIAL
            else:
                outcome = {"s": SUCCESS, "f": FAILURE, "r": REDO}[key]
                score = BEST_SCORE if key == "s" else 0
        sealed = seal(to_tree(measured), self._protocol.key(trial.number))
        self._log.append(Line(trial.number, outcome, score, note, self._now(), sealed))

    def _take_back(self) -> None:
        judged = self._log.judged()
        if judged:
            last = list(judged)[-1]
            self._log.append(Line(last, TAKEN_BACK, 0, "", self._now(), ""))

    def _confirm_end(self) -> str:
        self._show(self._protocol.plan[-1], OVER, OVER_KEYS, "no more trials are due")
        answer = self._ask("uq" + "".join(ENTER))
        if answer == "u":
            self._take_back()
        return answer

    def _ask(self, allowed: str) -> str:
        """The next key that means something here; what was typed before the question does not count."""
        self._keys.drain()
        while (key := next(self._keys).lower()) not in allowed:
            continue
        return key
