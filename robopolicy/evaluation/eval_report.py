"""The page of one or several evaluations: self-contained, failures first, uncertainty everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation import eval_films, eval_sections, eval_time
from robopolicy.evaluation.comparison import Report
from robopolicy.evaluation.eval_pairs import compare_entries, comparison_view
from robopolicy.evaluation.eval_sections import Entry
from robopolicy.evaluation.report import render, write_page
from robopolicy.evaluation.stored import read_evaluation


def load_entries(files: Sequence[Path], labels: Sequence[str] = ()) -> list[Entry]:
    """Evaluations with names for people.

    Args:
        files: each an ``eval.json``; films lie beside it.
        labels: one per file; by default what tells the policies' paths apart.
    Raises:
        EvaluationFileError: one is damaged; ConfigError: no files, or labels that do not fit.
    """
    if not files:
        raise ConfigError("a report needs at least one eval.json")
    if labels and (len(labels) != len(files) or len(set(labels)) != len(labels)):
        raise ConfigError(f"need {len(files)} different labels, got {list(labels)}")
    evaluations = [read_evaluation(file) for file in files]
    names = list(labels) or short_labels(
        [e.policy.label for e in evaluations], [file.resolve().parent.name for file in files]
    )
    return [Entry(name, file.parent, e) for name, file, e in zip(names, files, evaluations)]


def short_labels(paths: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The shortest ends of paths that differ; where paths are equal, with the folder of the result."""
    split = [[part for part in path.replace("\\", "/").split("/") if part] or [path] for path in paths]
    for length in range(1, max(map(len, split)) + 1):
        names = ["/".join(parts[-length:]) for parts in split]
        if len(set(names)) == len(names):
            return names
    names = [f"{parts[-1]} ({folder})" for parts, folder in zip(split, folders)]
    return names if len(set(names)) == len(names) else [f"{i + 1}: {name}" for i, name in enumerate(names)]


def write_evaluation_report(
    path: Path,
    entries: Sequence[Entry],
    *,
    comparison: Report | None = None,
    film_megabytes: float = eval_films.MEGABYTES,
) -> Path:
    """Render the page; an older one is replaced when the new one is whole.

    Args:
        entries: one per policy, the baseline first.
        comparison: of a sequential or unpaired test; by default McNemar's on the seeds that are shared.
        film_megabytes: of films to take into the page [MB]; the others stay files beside ``eval.json``.
    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    films = eval_films.choose_films(entries, film_megabytes)
    environments = list(dict.fromkeys(entry.evaluation.environment.name for entry in entries))
    several = len(entries) > 1
    page = render(
        "evaluation.html",
        title=f"{'Comparison' if several else 'Evaluation'}: {', '.join(environments)}",
        lead=eval_sections.lead(entries),
        notices=eval_sections.notices(entries),
        declared=eval_sections.declared(entries),
        rates=eval_sections.rates(entries),
        strips=eval_sections.strips(entries),
        results=eval_sections.results(entries),
        comparison=comparison_view(comparison or compare_entries(entries)) if several else None,
        films=films,
        **eval_sections.conditions(entries),
        starts=eval_sections.starts(entries),
        times=eval_time.plots_of_time(entries),
        shares=eval_time.shares(entries),
        worst=eval_sections.worst(entries, films),
        remarks=eval_sections.remarks(entries),
        commands=eval_sections.commands(entries),
        provenance=eval_sections.provenance(entries),
    )
    write_page(path, page)
    return path
