"""Hold a LeRobot dataset's files against its meta folder, by their headers, before anything is copied."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers.lerobot.layout import ROW_KEYS, EpisodePlace, Layout
from robopolicy.datasets.importers.lerobot.mapping import SUCCESS, Plan
from robopolicy.datasets.importers.lerobot.rows import check_file
from robopolicy.datasets.importers.lerobot.video import frame_count
from robopolicy.datasets.importers.source import ImportOptions, Report

DATA = "data"  # stands for the rows where cameras are named


def check_sources(layout: Layout, plan: Plan, options: ImportOptions) -> list[EpisodePlace]:
    """The episodes that can and shall be imported; completes ``plan.report``.

    Raises:
        ImportFormatError: an episode is not there, or lacks a file and may not be skipped; a file is damaged,
            too short or of other types; names file, episodes and key.
    """
    chosen = _chosen(layout, options)
    lacking = _lacking(layout, chosen)
    needed = {DATA, *plan.mapping.sources}
    plan.report.missing += [f"{key}: no file for {_episodes(e)}" for key, e in lacking.items()]
    gone = {index for key, indices in lacking.items() if key in needed for index in indices}
    if gone and not options.skip_missing:
        raise ImportFormatError(
            _ways_out(layout, {k: v for k, v in lacking.items() if k in needed}, len(chosen))
        )
    complete = [episode for episode in chosen if episode.index not in gone]
    if not complete:
        raise ImportFormatError(f"{layout.root}: every one of {len(chosen)} episodes lacks a file: {lacking}")
    used = {*plan.mapping.sources, *plan.extra.values(), *ROW_KEYS, SUCCESS}
    columns = {k: f for k, f in layout.features.items() if k in used and f.dtype != "video"}
    if "timestamp" not in columns:
        raise ImportFormatError(f"{layout.root}: no feature 'timestamp'; it has {sorted(layout.features)}")
    for path, rows in _ends(complete).items():
        check_file(path, rows, columns, exact=layout.version == "v2.1")
    for key in layout.videos:
        if key in needed:
            _check_videos(layout, key, complete, plan.report)
    _describe(layout, plan, complete)
    return complete


def _chosen(layout: Layout, options: ImportOptions) -> list[EpisodePlace]:
    known = {episode.index for episode in layout.episodes}
    wrong = sorted(set(options.episodes) - known)
    if wrong:
        raise ImportFormatError(f"{layout.root} has no episodes {wrong}; it has {_episodes(known)}")
    return [e for e in layout.episodes if not options.episodes or e.index in options.episodes]


def _lacking(layout: Layout, episodes: list[EpisodePlace]) -> dict[str, list[int]]:
    """Cameras (or "data") to the episodes whose file is not there."""
    there: dict[Path, bool] = {}
    lacking: dict[str, list[int]] = {}
    for episode in episodes:
        files = {DATA: episode.path, **{key: clip.path for key, clip in episode.clips.items()}}
        for key, path in files.items():
            if path not in there:
                there[path] = path.is_file()
            if not there[path]:
                lacking.setdefault(key, []).append(episode.index)
    return lacking


def _ways_out(layout: Layout, lacking: dict[str, list[int]], count: int) -> str:
    listing = "; ".join(f"{key} for {_episodes(indices)}" for key, indices in lacking.items())
    complete = count - len({index for indices in lacking.values() for index in indices})
    message = (
        f"{layout.root}: files are missing: {listing}. Either --skip-missing, which imports the "
        f"{complete} of {count} episodes that are complete"
    )
    cameras = [key for key in lacking if key != DATA]
    if cameras and DATA not in lacking:
        message += f", or --without {' '.join(cameras)}, which imports all {count} without that"
    return message


def _ends(episodes: Iterable[EpisodePlace]) -> dict[Path, int]:
    """Rows that every data file must have."""
    ends: dict[Path, int] = {}
    for episode in episodes:
        ends[episode.path] = max(ends.get(episode.path, 0), episode.start + episode.length)
    return ends


def _check_videos(layout: Layout, key: str, episodes: list[EpisodePlace], report: Report) -> None:
    chosen = {episode.clips[key].path for episode in episodes}
    needed: dict[Path, tuple[int, int]] = {}
    for episode in layout.episodes:  # all of them: frames of episodes that are not imported are no surplus
        clip = episode.clips[key]
        end = round(clip.start_s * layout.fps) + episode.length
        if clip.path in chosen:
            needed[clip.path] = max(needed.get(clip.path, (0, 0)), (end, episode.index))
    for path, (end, index) in needed.items():
        found = frame_count(path)
        if 0 < found < end:
            raise ImportFormatError(f"{path} has {found} frames, {key} of episode {index} needs {end}")
        if found > end:
            report.ignored.append(f"{key}: {found - end} frames of {path.name} after the last row")


def _describe(layout: Layout, plan: Plan, episodes: list[EpisodePlace]) -> None:
    report = plan.report
    report.guessed.append(
        "times: LeRobot's timestamps are frame index / fps, not capture times (clock 'frame_index')"
    )
    for key in plan.mapping.sources:
        feature = layout.features[key]
        if feature.dtype == "video":
            codec = layout.info["features"][key].get("info", {}).get("video.codec", "mp4")
            report.converted.append(f"{key}: {codec} video decoded to red, green, blue")
        elif feature.dtype == "float64" and key in {p.source for p in plan.mapping.action.pieces}:
            report.converted.append(f"{key}: float64 to float32")
    if SUCCESS in layout.features:
        report.converted.append(f"{SUCCESS}: true in any frame is the episode's success")
    several = [episode.index for episode in episodes if len(episode.tasks) > 1]
    if several:
        report.converted.append(f"several tasks in {_episodes(several)}: the first row's is the instruction")
    for name in ("stats.json", "episodes_stats.jsonl"):
        if (layout.root / "meta" / name).is_file():
            report.ignored.append(f"meta/{name}: statistics are computed from the store")
    splits = layout.info.get("splits") or {}
    if len(splits) > 1:
        report.ignored.append(f"splits {splits}")


def _episodes(indices: Iterable[int]) -> str:
    """ "episodes 0 to 9, 12"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return "episodes " + ", ".join(f"{a} to {b}" if b > a else f"{a}" for a, b in runs)
