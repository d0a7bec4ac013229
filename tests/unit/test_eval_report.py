"""The page people look at: self-contained, honest about uncertainty, failures first, readable."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import make_policy_specs

from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.evaluation import eval_sections, plots, varied
from robopolicy.evaluation.comparison import compare
from robopolicy.evaluation.eval_films import choose_films
from robopolicy.evaluation.eval_report import Entry, load_entries, short_labels, write_evaluation_report
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.start_states import start_planes
from robopolicy.evaluation.stored import (
    EnvironmentRecord,
    Evaluation,
    PolicyRecord,
    StoppingRule,
    Timing,
    write_evaluation,
)


def make_episode(seed: int, success: bool, **facts: Any) -> EpisodeResult:
    base = EpisodeResult(
        seed=seed,
        success=success,
        total_reward=1.0,
        max_reward=1.0 if success else 0.01 * (seed % 50),
        steps=20,
        seconds=2.0 + 0.1 * (seed % 10) if success else 10.0,
    )
    return dataclasses.replace(base, **facts)


def make_evaluation(episodes: list[EpisodeResult], label: str = "runs/a", **facts: Any) -> Evaluation:
    base = Evaluation(
        environment=EnvironmentRecord("lift"),
        policy=PolicyRecord(label, "cd" * 32, make_policy_specs()),
        noise_seed=0,
        command=("robopolicy", "eval", "--policy", label, "--output", "with a space"),
        success_predicate="the cube is 5 cm up for one second",
        stopping=StoppingRule.fixed(len(episodes)),
        started="2025-01-02T03:04:05+00:00",
        ended="2025-01-02T03:05:05+00:00",
        episodes=tuple(episodes),
        versions={"numpy": "2.0"},
        git_revision="f00",
    )
    return dataclasses.replace(base, **facts)


def varied_episodes(count: int = 60, seed: int = 0) -> list[EpisodeResult]:
    """Success is decided by the load and the delay; the colour has nothing to do with it."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        load, delay, colour = rng.uniform(0, 1), rng.uniform(0, 100), str(rng.choice(["red", "blue"]))
        x, y = rng.uniform(-0.2, 0.2, 2)
        found.append(
            make_episode(
                1000 + i,
                bool(load < 0.5 or delay < 30),
                conditions={"load": load, "delay_ms": delay, "colour": colour, "unvaried": 3.0},
                start={"goal": [x, y], "joints": [0.0, 0.0]},
            )
        )
    return found


def write(folder: Path, evaluations: list[Evaluation], **options: Any) -> str:
    entries = [Entry(e.policy.label, folder, e) for e in evaluations]
    return write_evaluation_report(folder / "report.html", entries, **options).read_text()


class Page(HTMLParser):
    """Counts tags and checks that they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


# What the page says.


def test_the_page_is_self_contained_and_declares_before_it_shows(tmp_path: Path) -> None:
    timing = Timing(9.0, 120.5, 0.5, 0.1, 0.1, 0.3, (10.0, 12.0, 11.0, 40.0), 16)
    text = write(tmp_path, [make_evaluation(varied_episodes(), timing=timing)])
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "<link" not in text
    assert all(v.startswith("data:") for t, a in page.tags for k, v in a.items() if k == "src" and v)
    words = " ".join(page.words)
    declared = words.index("the cube is 5 cm up for one second")
    assert declared < words.index("exactly 60 episodes, decided beforehand") < words.index("Wilson")
    won = sum(e.success for e in varied_episodes())
    assert f"{won}/60 = {won / 60:.3f}" in words
    for part in ("Where episodes began", "p50 11.5 ms", "120 steps/s", "physics 50%"):
        assert part in words, part
    for foot in ("f00", "numpy 2.0", "cd" * 32, "robopolicy eval --policy runs/a --output 'with a space'"):
        assert foot in words, foot
    assert page.all("button")[0]["data-copy"] == page.all("pre")[0]["id"] == "command-1"
    assert "<h3>load and delay_ms</h3>" in text or "<h3>delay_ms and load</h3>" in text
    assert "<h3>unvaried" not in text and " and unvaried<" not in text
    assert not [a for a in page.all("div") if a.get("role") == "img" and not a.get("aria-label")]
    drawn = sum(tag == "svg" for tag, _ in page.tags)
    assert drawn == 3 == sum((a.get("class") or "") == "plot" for a in page.all("figure"))


def test_what_others_wrote_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>&\"'$x$"
    episodes = [
        make_episode(i, i % 2 == 0, conditions={evil: i % 3, "t": evil}, maxima={evil: 1.0 + i})
        for i in range(30)
    ]
    both = [
        make_evaluation(
            episodes,
            f"{evil}{i}",
            success_predicate=evil,
            environment=EnvironmentRecord(evil, {evil: evil}),
            command=(evil,),
            notes={"1": evil},
            versions={evil: evil},
            timing=Timing(1.0, 1.0, inference_ms=(1.0, 2.0)),
        )
        for i in range(2)
    ]
    text = write(tmp_path, both)
    assert "<script>alert" not in text
    assert len(Page(text).all("script")) == 1


def test_a_comparison_pairs_seeds_and_warns_of_what_differs(tmp_path: Path) -> None:
    first = [make_episode(i, i < 8) for i in range(20)]
    second = [make_episode(i, i < 16, unstable=i == 19, restarts=int(i == 3)) for i in range(20)]
    text = write(tmp_path, [make_evaluation(first, "a"), make_evaluation(second, "b")])
    words = " ".join(Page(text).words)
    assert (
        "Comparison: lift" in words and "+0.400" in words and "exact McNemar" in words and "0.0078" in words
    )
    assert "1 of 40 episodes (b 1) ended because physics broke down" in words
    assert "1 of 40 episodes (b 1) began anew" in words
    assert "not comparable" not in words and "different seeds" not in words
    other = make_evaluation(second[5:], "b", environment=EnvironmentRecord("place"), success_predicate="x")
    words = " ".join(Page(write(tmp_path, [make_evaluation(first, "a"), other])).words)
    assert words.count("not comparable") == 2 and "ran on different seeds" in words
    apart = make_evaluation([make_episode(900, True), make_episode(901, False)], "c")
    assert "McNemar" not in write(tmp_path, [make_evaluation(first, "a"), apart])


def test_a_given_comparison_is_shown_as_it_is(tmp_path: Path) -> None:
    results = {
        "a": [make_episode(i, i < 8) for i in range(20)],
        "b": [make_episode(i, True) for i in range(50, 70)],
    }
    report = compare(results, paired=False)
    evaluations = [make_evaluation(episodes, name) for name, episodes in results.items()]
    text = write(tmp_path, evaluations, comparison=report)
    assert "Boschloo" in text and "The same seeds on both sides" not in text


@pytest.mark.parametrize("successes", [0, 1, 3])
def test_few_and_uniform_episodes_make_a_page_too(tmp_path: Path, successes: int) -> None:
    episodes = [make_episode(i, i < successes) for i in range(3)]
    for chosen in (episodes, episodes[:1]):
        words = " ".join(Page(write(tmp_path, [make_evaluation(chosen)])).words)
        assert "Success by condition" not in words and "Where episodes began" not in words
    two = [make_evaluation(episodes, "a"), make_evaluation(episodes[:1], "b")]
    Page(write(tmp_path, two))


def test_many_episodes_are_not_drawn_one_by_one() -> None:
    few, many = ([make_episode(i, True) for i in range(n)] for n in (400, 401))
    assert len(eval_sections.strips([Entry("a", Path(), make_evaluation(few))])[0]["marks"]) == 400
    assert eval_sections.strips([Entry("a", Path(), make_evaluation(many))]) == []


def test_the_worst_come_first() -> None:
    episodes = [
        make_episode(1, True, seconds=3.0),
        make_episode(2, False, max_reward=0.5),
        make_episode(3, True, seconds=9.0),
        make_episode(4, False, max_reward=0.9, unstable=True),
        make_episode(5, False, max_reward=0.1, restarts=2),
    ]
    entries = [Entry("a", Path(), make_evaluation(episodes))]
    rows = eval_sections.worst(entries, choose_films(entries, 1.0))
    assert [row["seed"] for row in rows] == [4, 5, 2, 3, 1]
    assert [row["outcome"] for row in rows[:2]] == ["unstable physics", "failure, 2 restarts"]


# Films.


def test_failure_films_come_first_and_those_that_do_not_fit_are_named(tmp_path: Path) -> None:
    episodes = []
    for seed in range(6):
        (tmp_path / f"seed_{seed}.mp4").write_bytes(bytes([seed]) * 1000)
        episodes.append(make_episode(seed, seed % 2 == 0, video=f"seed_{seed}.mp4", unstable=seed == 5))
    episodes.append(make_episode(6, False, video="gone.mp4"))
    entries = [Entry("a", tmp_path, make_evaluation(episodes))]
    films = choose_films(entries, 1.0)
    assert [film.anchor for film in films.shown] == [f"film-0-{seed}" for seed in (5, 1, 3, 0, 2, 4)]
    assert base64.b64decode(films.shown[0].data) == bytes([5]) * 1000 and films.left_out == ""
    films = choose_films(entries, 0.0025)
    assert [film.anchor for film in films.shown] == ["film-0-5", "film-0-1"]
    assert films.left_out == "4 more films beside eval.json."
    page = Page(write(tmp_path, [make_evaluation(episodes)]))
    assert len(page.all("video")) == 6
    links = {a["href"] for a in page.all("a")}
    assert {f"#film-0-{seed}" for seed in (5, 1, 3)} <= links
    assert links <= {f"#{a['id']}" for a in page.all("figure") if "id" in a}


def test_policies_take_turns_in_films(tmp_path: Path) -> None:
    (tmp_path / "f.mp4").write_bytes(b"x")
    entries = [
        Entry(
            name, tmp_path, make_evaluation([make_episode(s, s > 2, video="f.mp4") for s in range(5)], name)
        )
        for name in ("a", "b")
    ]
    shown = [film.anchor for film in choose_films(entries, 1.0).shown]
    assert shown[:4] == ["film-0-0", "film-1-0", "film-0-1", "film-1-1"]
    assert shown[6:] == ["film-0-3", "film-1-3", "film-0-4", "film-1-4"]


# Conditions.


def test_the_conditions_that_decide_are_chosen() -> None:
    maps, bars = varied.choose(varied_episodes(200))
    assert {maps[0].down.name, maps[0].across.name} == {"load", "delay_ms"}
    assert [axis.name for axis in bars] == ["colour"]
    assert varied.choose(varied_episodes(200), in_map=20)[0] == []  # too few in a cell
    few, single = varied.choose(varied_episodes(12))
    assert few == [] and {axis.name for axis in single} == {"load", "delay_ms", "colour"}
    assert varied.choose([]) == ([], [])


def test_counts_are_what_a_plain_loop_counts() -> None:
    episodes = varied_episodes(200)
    (chosen, *_), _ = varied.choose(episodes)
    table = varied.counts(episodes, chosen.down, chosen.across)
    assert table[..., 1].sum() == 200 and table[..., 0].sum() == sum(e.success for e in episodes)
    assert table[..., 1].sum(axis=1).tolist() == [200 / len(chosen.down.labels)] * len(chosen.down.labels)
    low = [e for e in episodes if e.conditions[chosen.down.name] < chosen.down.edges[0]]
    low = [e for e in low if e.conditions[chosen.across.name] < chosen.across.edges[0]]
    assert table[0, 0].tolist() == [sum(e.success for e in low), len(low)]


def test_axes_keep_few_values_as_they_are() -> None:
    episodes = [
        make_episode(i, True, conditions={"n": i % 3, "flag": i % 2 == 0, "name": f"n{i}", "x": 1.0})
        for i in range(20)
    ]
    episodes.append(make_episode(99, True))  # lacks them all
    axes = {axis.name: axis for axis in varied.axes_of(episodes)}
    assert sorted(axes) == ["flag", "n"]  # 20 names are no category, a constant varies nothing
    assert axes["n"].labels == ("0", "1", "2") and axes["flag"].labels == ("False", "True")
    assert axes["n"].bins_of(episodes)[-1] == -1 and varied.counts(episodes, axes["n"])[..., 1].sum() == 20


def test_epsilon_squared_is_one_for_a_cause_and_nothing_for_chance(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(5), 20)
    assert varied.epsilon_squared(groups > 2, groups) == pytest.approx(1.0)
    chance = [varied.epsilon_squared(rng.random(100) < 0.5, groups) for _ in range(400)]
    assert abs(float(np.mean(chance))) < 0.01  # unlike the plain correlation ratio, 4/99 = 0.04
    assert varied.epsilon_squared(np.ones(100, bool), groups) == 0.0
    assert varied.epsilon_squared(groups > 2, np.full(100, -1)) == 0.0


# Starts.


def specs_of(**observation: ArraySpec) -> Specs:
    return Specs(observation, ActionSpec((ActionPart("joint_position", ("a",)),)), 10.0)


def test_the_objects_place_is_drawn_not_the_arms_jitter(rng: np.random.Generator) -> None:
    pose = ArraySpec((3,), units=("m", "m", "rad"), names=("x", "y", "angle"))
    starts = [
        {
            "arm_pose": [0.4 + 0.005 * v, 0.0, 0.0],
            "cube_pose": [0.5 + v, v * v, 1.0],
            "cube_pose_in_tool": [2 * v, v, 0.0],
            "still_pose": [1, 1, 1],
        }
        for v in rng.uniform(-0.2, 0.2, 30)
    ]
    episodes = [make_episode(i, i % 2 == 0, start=s) for i, s in enumerate(starts)]
    keys = ["arm_pose", "cube_pose", "cube_pose_in_tool", "still_pose"]
    (plane,) = start_planes(specs_of(**dict.fromkeys(keys, pose)), episodes)
    assert plane.title == "cube_pose" and plane.seen_from == "above" and plane.labels == ("x [m]", "y [m]")
    np.testing.assert_array_equal(plane.points, [s["cube_pose"][:2] for s in starts])


def test_without_positions_the_widest_pair_is_drawn(rng: np.random.Generator) -> None:
    spec = ArraySpec((3,), units=("rad", "rad", "1"), names=("a", "b", "c"))
    starts = [{"q": [v, 10 * w, 3 * v]} for v, w in rng.uniform(-1, 1, (30, 2))]
    episodes = [make_episode(i, True, start=s) for i, s in enumerate(starts)]
    (plane,) = start_planes(specs_of(q=spec), episodes)
    assert plane.labels == ("q b [rad]", "q c [1]") and plane.seen_from == ""
    assert start_planes(specs_of(q=spec), [*episodes, make_episode(99, True)]) == []  # one has no start
    assert start_planes(specs_of(q=spec), [episodes[0]]) == []
    placed = [make_episode(i, True, start={"cup": [0.1 * i, 0.2]}) for i in range(3)]
    assert start_planes(specs_of(q=spec), placed)[0].title == "cup"  # by hand, in no spec


# Drawings.


def test_drawings_take_the_pages_colours_and_clash_with_none(rng: np.random.Generator) -> None:
    points, success = rng.normal(size=(20, 2)), rng.random(20) < 0.5
    drawings = [
        plots.outcomes(points, success, ("x", "y"), same_unit=True, seen_from="above"),
        plots.outcomes(points, ~success, ("x", "y"), same_unit=True, seen_from="image"),
        plots.success_over_time([("a", [1.0, 2.0], 5), ("b$", [], 5)]),
        plots.histogram(rng.gamma(5, 2, 800), "inference [ms]", 5.0),
        plots.rates([("a", 3, 5, (0.2, 0.8))]),
        plots.loss_curve([1, 2, 3], [1.0, 0.5, 0.1]),
        plots.commands(
            np.arange(9) * 10**7, rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), ["a", "b", "c"]
        ),
    ]
    ids = [name for drawing in drawings for name in set(re.findall(r'\bid="([^"]+)"', drawing))]
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        assert drawing.startswith('<svg viewBox="') and "http" not in drawing and "<style" not in drawing
        assert not re.findall(r"#[0-9a-f]{6}\b", drawing)  # no colour of its own
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)
        assert set(used) <= set(re.findall(r'\bid="([^"]+)"', drawing))
    assert drawings[0] == plots.outcomes(points, success, ("x", "y"), same_unit=True, seen_from="above")


def luminance(colour: tuple[float, ...]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_can_be_read_in_light_and_dark() -> None:
    """WCAG 2.2, level AA: 4.5 for text, also in each cell of a heat-map, and 3 for drawn lines."""
    style = (Path(plots.__file__).parent / "templates" / "base.html").read_text()
    themes = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        names = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]+);", theme))
        long = {k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:]) for k, v in names.items()}
        rgb = {k: tuple(int(v[i : i + 2], 16) for i in (1, 3, 5)) for k, v in long.items()}
        for text in ("ink", "soft", "good", "bad", "warn", "accent"):
            assert contrast(rgb[text], rgb["paper"]) >= 4.5, text
        assert contrast(rgb["soft"], rgb["fill"]) >= 4.5
        for line in (f"series-{i}" for i in range(6)):
            assert contrast(rgb[line], rgb["paper"]) >= 3, line
        for share in np.linspace(0, 1, 201):
            part = eval_sections.mix(float(share)) / 100
            cell = tuple(part * h + (1 - part) * f for h, f in zip(rgb["heat"], rgb["fill"]))
            ink = rgb["on-heat"] if share > eval_sections.HIGH else rgb["ink"]
            assert contrast(ink, cell) >= 4.5, share


# Names and the command.


def test_labels_are_the_shortest_that_differ() -> None:
    assert short_labels(["runs/a/train", "runs/b/train"], ["x", "y"]) == ["a/train", "b/train"]
    assert short_labels(["runs/a/train", "other"], ["x", "y"]) == ["train", "other"]
    assert short_labels(["a", "a"], ["x", "y"]) == ["a (x)", "a (y)"]
    assert short_labels(["a", "a"], ["x", "x"]) == ["1: a (x)", "2: a (x)"]
    assert short_labels(["a/b", "b"], ["x", "y"]) == ["a/b", "b"]


def test_the_command_draws_the_page_of_stored_evaluations(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_evaluation(tmp_path / name, make_evaluation(varied_episodes(20), f"runs/{name}"))
    assert main(["report", str(tmp_path / "one")]) == 0
    assert "Evaluation: lift" in (tmp_path / "one" / "report.html").read_text()
    assert (
        main(["report", str(tmp_path), "--labels", "old", "new", "--output", str(tmp_path / "both.html")])
        == 0
    )
    both = (tmp_path / "both.html").read_text()
    assert "Comparison: lift" in both and ">old<" in both and ">new<" in both
    capfd.readouterr()
    assert main(["report", str(tmp_path / "one"), "--labels", "a", "b"]) == 2
    assert "need 1 different labels" in capfd.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "no eval.json in" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="at least one"):
        load_entries([])
