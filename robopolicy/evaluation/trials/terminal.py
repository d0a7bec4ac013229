"""What a person reads in the terminal during trials."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from robopolicy.evaluation.trials.session import JUDGE, OVER, RUNNING, SET_UP, View

_WORDS = {SET_UP: "restore the start", RUNNING: "running; any key stops it", JUDGE: "judge", OVER: "done"}


class TerminalScreen:
    """Prints each view in a line or two."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, view: View) -> None:
        if view.phase == SET_UP:
            self._console.rule(f"trial {view.number} of {view.total}")
            places = "; ".join(
                f"{thing} at {', '.join(f'{value:.3f}' for value in place)} m"
                for thing, place in view.start.positions.items()
            )
            self._console.print(f"start [bold]{escape(view.start.name)}[/] {escape(places)}")
        if view.message:
            self._console.print(escape(view.message), style="yellow")
        keys = "   ".join(f"[bold]{escape(key)}[/] {escape(what)}" for key, what in view.keys)
        self._console.print(f"{_WORDS[view.phase]}   {keys}")
