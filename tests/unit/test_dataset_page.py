"""The page of a dataset: one file without outside parts, whose numbers are those of the store."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic import STEP_NS, make_episode, make_specs

from robopolicy.core.errors import StoreError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.show import dimensions, facts, frames, svg
from robopolicy.datasets.show.page import write_page
from robopolicy.datasets.store import EpisodeStore

pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install 'robopolicy[viz]'")
VOID = {"meta", "input", "img", "br", "link", "circle", "rect", "image", "path", "polyline"}


class Page(HTMLParser):
    """Elements, text by table row, and whether every element was closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open, f"unclosed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v is not None]
        self.ids |= {v for k, v in attrs if k == "id" and v is not None}
        if tag not in VOID and "/" not in values:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v is not None]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.strip()


def row_of(page: Page, name: str) -> list[str]:
    return next(row for row in page.rows if row and row[0] == name and len(row) == 6)


def test_it_needs_nothing_from_outside(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    write_page(tiny_store, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.addresses and all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= page.ids
    text = (tmp_path / "page.html").read_text()
    assert "link" not in page.tags and "@import" not in text and "url(" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "tiny.zarr"]


def test_the_numbers_are_those_of_the_store(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    failed = make_episode(tiny_store.specs, 7, 9, success=False, instruction="put it down")
    tiny_store.append(failed)
    write_page(tiny_store, tmp_path / "page.html")
    page, text = Page(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert row_of(page, "000003")[1:4] == ["7", "0.7", "failure"]
    assert row_of(page, "000003")[5] == "put it down"
    assert ["do it", "3", ""] in page.rows and ["put it down", "1", ""] in page.rows
    tiles = re.findall(r"<span>([^<]*)</span><b>([^<]*)</b><span>([^<]*)</span>", text)
    assert ("episodes", "4", "") in tiles and ("steps", "33", "8 per episode") in tiles
    assert ("success", "75 %", "3 of 4 judged") in tiles
    assert tiny_store.digest in text
    rates = {row[0].removesuffix("a, b"): row[5] for row in page.rows if len(row) == 7}
    assert rates["observation/joints"] == "20.00 Hz" and rates["observation/goal"] == "10.00 Hz"
    assert rates["observation/scene"] == "10.00 Hz"


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    store = EpisodeStore.create(tmp_path / "s.zarr", make_specs(), {"who": evil})
    store.append(make_episode(store.specs, instruction=evil))
    finding = Finding("error", "gaps", "000000", "joints", evil)
    write_page(store, tmp_path / "page.html", findings=[finding], stats={evil: {evil: [1.0]}})
    assert evil not in (tmp_path / "page.html").read_text()
    assert Page(tmp_path / "page.html").tags.count("script") == 1


def test_findings_are_listed_and_lead_to_their_episode(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    some = [
        Finding("error", "gaps", "000001", "joints", "0.4 s without a sample"),
        Finding("note", "lengths", "", "", "episodes differ much in length"),
    ]
    write_page(tiny_store, tmp_path / "page.html", findings=some)
    page = Page(tmp_path / "page.html")
    assert ["error", "gaps", "000001", "joints", "0.4 s without a sample"] in page.rows
    assert ["note", "lengths", "", "", "episodes differ much in length"] in page.rows
    assert "#episode-000001" in page.addresses
    write_page(tiny_store, tmp_path / "page.html", findings=[])
    assert "No findings" in (tmp_path / "page.html").read_text()
    write_page(tiny_store, tmp_path / "page.html")
    assert "Data quality" not in (tmp_path / "page.html").read_text()


def test_statistics_take_the_names_of_their_dimensions(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    stats = {"action": {"mean": [1.0, 2.0, 3.0], "std": np.array([0.1, 0.2, 0.3])}}
    write_page(tiny_store, tmp_path / "page.html", stats=stats)
    rows = Page(tmp_path / "page.html").rows
    assert ["", "mean", "std"] in rows and ["grip", "3", "0.3"] in rows


def test_many_episodes_are_thinned_and_counted_in_full(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    write_page(tiny_store, tmp_path / "page.html", max_episodes=2)
    page, text = Page(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert {i for i in page.ids if i.startswith("episode-")} == {"episode-000000", "episode-000002"}
    assert "2 of 3" in text and "<b>26</b>" in text  # steps of all three


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "s.zarr", make_specs(image=True))
    write_page(store, tmp_path / "page.html", findings=[])
    assert Page(tmp_path / "page.html").tags.count("h2") >= 3


def test_a_page_of_two_hundred_episodes_is_light(tmp_path: Path) -> None:
    """Three cameras of noise, which compress worse than any real ones. What grows with the episodes is
    measured between 15 and 30 of them: from 12 on, no more pictures are added."""
    base = make_specs()
    camera = ArraySpec((120, 160, 3), "uint8", kind="image")
    specs = dataclasses.replace(base, observation={**base.observation, "a": camera, "b": camera, "c": camera})
    store = EpisodeStore.create(tmp_path / "s.zarr", specs)
    rng = np.random.default_rng(0)
    noise = Signal(rng.integers(0, 256, (3, *camera.shape)).astype(np.uint8), np.arange(3) * STEP_NS)
    sizes = []
    for seed in range(30):
        episode = make_episode(base, 50, seed, instruction=f"put object number {seed} into the left drawer")
        pictures = {key: noise for key in "abc"}
        store.append(dataclasses.replace(episode, observation={**episode.observation, **pictures}))
        if seed in (14, 29):
            write_page(store, tmp_path / "page.html")
            sizes.append((tmp_path / "page.html").stat().st_size)
    assert 0 < sizes[0] < sizes[1]
    assert sizes[1] + 170 * (sizes[1] - sizes[0]) / 15 < 3_000_000


def test_thumbnails_are_the_first_middle_and_last_frame(tmp_path: Path) -> None:
    from PIL import Image

    specs = Specs({"eye": ArraySpec((40, 60, 3), "uint8", kind="image")}, make_specs().action, 10.0)
    store = EpisodeStore.create(tmp_path / "s.zarr", specs)
    grey = np.linspace(0, 240, 9).astype(np.uint8)
    value = np.broadcast_to(grey[:, None, None, None], (9, 40, 60, 3)).copy()
    episode = make_episode(make_specs(), 9)
    store.append(
        dataclasses.replace(episode, observation={"eye": Signal(value, episode.action.time_ns)}, extra={})
    )
    write_page(store, tmp_path / "page.html")
    address = next(a for a in Page(tmp_path / "page.html").addresses if a.startswith("data:image/jpeg"))
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    gap = (strip.shape[1] - 180) // 2
    seen = [strip[20, start + 30, 0] for start in (0, 60 + gap, 120 + 2 * gap)]
    np.testing.assert_allclose(seen, [0, 120, 240], atol=3)


def test_a_failed_page_leaves_the_old_one(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    data = tmp_path / "tiny.zarr/episodes/000001/action/value/c/0/0"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(StoreError, match="000001"):
        write_page(tiny_store, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "old"
    with pytest.raises(StoreError, match=r"cannot write|damaged|000001"):
        write_page(tiny_store, tmp_path / "absent" / "page.html")


def test_the_longest_gap_is_found(tiny_store: EpisodeStore) -> None:
    episode = make_episode(tiny_store.specs, 6, 4)
    late = episode.observation["scene"].time_ns + np.where(np.arange(6) > 2, STEP_NS * 3, 0)
    scene = Signal(episode.observation["scene"].value, late)
    tiny_store.append(dataclasses.replace(episode, observation={**episode.observation, "scene": scene}))
    rate = facts.gather(tiny_store, 10).rates["observation/scene"]
    assert rate.longest == pytest.approx(0.4) and rate.episode == "000003"
    assert rate.hertz == pytest.approx(10.0)


def test_planes_are_found_by_name_and_unit() -> None:
    pixels = ArraySpec((5,), units=("px",) * 4 + ("rad",), names=("a_x", "a_y", "b_x", "b_y", "turn"))
    pose = ArraySpec((3,), units=("m", "m", "m"))
    joints = ArraySpec((2,), units=("rad", "rad"), names=("x", "y"))
    specs = Specs({"state": pixels, "pose": pose, "joints": joints}, make_specs().action, 10.0)
    found = [(plane.key, plane.columns, plane.title) for plane in dimensions.planes(specs)]
    assert found == [("state", (0, 1), "state: a"), ("state", (2, 3), "state: b"), ("pose", (0, 1), "pose")]


def test_labels_name_every_number_once() -> None:
    assert dimensions.labels(()) == ["value"]
    assert dimensions.labels((2,), ("x", "x")) == ["x_0", "x_1"]
    assert dimensions.labels((2, 2), ("x", "y")) == ["0.x", "0.y", "1.x", "1.y"]
    assert dimensions.units(ArraySpec((2, 2), units=("m", "rad"))) == ["m", "rad", "m", "rad"]


def test_bars_are_as_tall_as_their_counts() -> None:
    heights = [float(h) for h in re.findall(r"v-([\d.]+)h", svg.bars([1, 0, 4, 2], 40, 48))]
    assert heights == [12.0, 48.0, 24.0]


@pytest.mark.parametrize("y_down", [True, False])
def test_marks_lie_where_the_positions_are(y_down: bool) -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    plot = svg.density(points, points[:1], points[2:], y_down=y_down)
    (x0, y0), (x1, y1) = [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', plot)]
    assert (y1 > y0) == y_down
    assert abs(y1 - y0) == pytest.approx(2 * (x1 - x0), abs=0.3)  # one scale for both axes


def test_depth_becomes_grey_with_near_bright_and_holes_black() -> None:
    depth = np.array([0, 500, 1000, 2000], np.uint16).reshape(1, 2, 2, 1)
    hole, near, middle, far = frames.grey_depth(depth).ravel()
    assert hole == 0 and near > middle > far > 0
    assert not frames.grey_depth(np.zeros_like(depth)).any()


def test_spread_keeps_both_ends() -> None:
    names = [str(i) for i in range(10)]
    assert facts.spread(names, 3) == ["0", "4", "9"]
    assert facts.spread(names, 20) == names
    assert facts.spread([], 3) == []
