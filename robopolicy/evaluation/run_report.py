"""The page of a real-time run, from the files of ``robopolicy run``; ``run_files`` says what they hold.

For whoever writes them: that module's text is the layout, ``run_files.episode_file(k)`` the name of an
episode's arrays, and ``write_run_report(folder)`` is to be called when all files are there.
"""

from __future__ import annotations

from pathlib import Path

from robopolicy.evaluation import run_choices, run_sections, run_smoothness
from robopolicy.evaluation.report import render, write_page
from robopolicy.evaluation.run_files import read_run


def write_run_report(folder: Path, *, store: Path | None = None, output: Path | None = None) -> Path:
    """Render ``report.html`` in a run's folder; an older one is replaced when the new one is whole.

    Args:
        folder: of ``robopolicy run``.
        store: demonstrations whose smoothness to show beside the run's.
        output: another place for the page.
    Returns:
        where the page lies.
    Raises:
        RobopolicyError: a file is missing or damaged, or the store's actions are others.
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    run = read_run(folder)
    figures, percentiles = run_sections.timing(run)
    numbers = run_sections.drawn(run)
    page = render(
        "run.html",
        title=f"Real-time run: {run.summary['task']}",
        lead=run_sections.lead(run),
        notices=run_sections.notices(run),
        tiles=run_sections.tiles(run),
        columns=run_sections.EPISODE_COLUMNS,
        rows=run_sections.episode_rows(run),
        figures=figures,
        percentiles=percentiles,
        interventions=run_sections.interventions(run),
        choices=run_choices.choices(run),
        smoothness=run_smoothness.compare(run, store),
        episodes=[
            {**run_sections.episode_pictures(run, number), "choices": run_choices.pictures(run, number)}
            for number in numbers
        ],
        left_out=len(run.episodes) - len(numbers),
        command=run_sections.command(run),
        configuration=run_sections.configuration(run),
        provenance=run_sections.provenance(run),
    )
    path = output or folder / "report.html"
    write_page(path, page)
    return path
