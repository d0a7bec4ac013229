"""Every codec and kind of camera: frames come back, damage is noticed, zarr-python reads and writes them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from synthetic import STEP_NS, make_specs

from robopolicy.core.errors import SpecError, StoreError, UnknownNameError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import codecs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.reader import decode_frame
from robopolicy.datasets.store import EpisodeStore

pytest.importorskip("cv2", reason="JPEG and PNG need OpenCV")

HEIGHT, WIDTH = 12, 18
KINDS = {
    "image": ArraySpec((HEIGHT, WIDTH, 3), "uint8", kind="image"),
    "depth": ArraySpec((HEIGHT, WIDTH, 1), "uint16", ("mm",), kind="depth"),
}
REFUSED = {("jpeg", "depth")}
PAIRS = [(name, kind) for name in codecs.names() for kind in KINDS if (name, kind) not in REFUSED]
#: Codecs that lose something, and the peak signal-to-noise ratio [dB] that a smooth picture keeps.
LOSSY = {"jpeg": 40.0}
GOOD = {
    "jpeg": [{"quality": 1}, {"quality": 100}],
    "png": [{"level": 0}, {"level": 9}],
    "lossless": [{"compressor": c, "level": n} for c in ("lz4", "lz4hc", "zstd") for n in (1, 9)],
}
BAD = {
    "jpeg": [{"quality": 0}, {"quality": 101}, {"quality": 95.0}, {"quality": "high"}, {"level": 1}],
    "png": [{"level": -1}, {"level": 10}, {"level": True}, {"quality": 95}],
    "lossless": [{"level": 0}, {"level": 10}, {"compressor": "gzip"}, {"compressor": 1}, {"quality": 95}],
}
WITH_SETTINGS = [(n, k, s) for n, k in PAIRS for s in [{}, *GOOD.get(n, [])]]


def resized(kind: str, height: int, width: int) -> ArraySpec:
    spec = KINDS[kind]
    return ArraySpec((height, width, spec.shape[-1]), spec.dtype, spec.units, kind=kind)


def smooth(spec: ArraySpec, frame: int = 0) -> np.ndarray:
    """A picture as cameras see them: slow changes over the whole range, differently in every channel."""
    rows, columns, channels = np.ogrid[: spec.shape[0], : spec.shape[1], : spec.shape[2]]
    waves = np.sin((rows + 2 * columns) / 15 + channels + frame)
    return ((waves + 1) / 2 * np.iinfo(spec.dtype).max).astype(spec.dtype)


def noise(spec: ArraySpec, seed: int = 0) -> np.ndarray:
    top = np.iinfo(spec.dtype).max
    return np.random.default_rng(seed).integers(0, top, spec.shape, spec.dtype, endpoint=True)


def decoded(codec: codecs.FrameCodec, data: bytes) -> np.ndarray:
    out = np.empty(codec.spec.shape, codec.spec.dtype)
    decode_frame(codecs.decoder(codec.chain, "here"), data, out, "here, frame 7")
    return out


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(np.inf if error == 0 else 10 * np.log10(np.iinfo(first.dtype).max ** 2 / error))


def test_every_codec_is_held_against_this_suite():
    assert set(GOOD) == set(BAD) == set(codecs.names())
    assert {name for name, _ in PAIRS} == set(codecs.names())


@pytest.mark.parametrize(("name", "kind", "settings"), WITH_SETTINGS)
@pytest.mark.parametrize("picture", [smooth, noise])
def test_a_frame_comes_back(name, kind, settings, picture):
    codec = codecs.FrameCodec(name, KINDS[kind], **settings)
    assert codec.tree == {"name": name, **codec.tree, **settings}
    frame = picture(codec.spec)
    back = decoded(codec, codec.encode(frame))
    if name not in LOSSY:
        np.testing.assert_array_equal(back, frame)
    elif not settings and picture is smooth:
        assert psnr(back, frame) > LOSSY[name]


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_red_green_and_blue_keep_their_places(name):
    codec = codecs.FrameCodec(name, KINDS["image"])
    for channel in range(3):
        frame = np.zeros(codec.spec.shape, np.uint8)
        frame[..., channel] = 200
        back = decoded(codec, codec.encode(frame)).reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(back, frame[0, 0], atol=6)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 5))
def test_any_size_comes_back(name, kind, height, width, seed):
    codec = codecs.FrameCodec(name, resized(kind, height, width))
    frame = noise(codec.spec, seed)
    back = decoded(codec, codec.encode(frame))
    assert back.shape == frame.shape
    if name not in LOSSY:
        np.testing.assert_array_equal(back, frame)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_frames_that_are_views_of_something_larger_come_back(name, kind):
    codec = codecs.FrameCodec(name, KINDS[kind])
    frame = smooth(resized(kind, 2 * HEIGHT, 3 * WIDTH))[::-2, ::3]
    np.testing.assert_array_equal(
        decoded(codec, codec.encode(frame)), decoded(codec, codec.encode(frame.copy()))
    )


@pytest.mark.parametrize("name", [n for n, k in PAIRS if k == "depth"])
@pytest.mark.parametrize("value", [0, 1, 255, 256, 65535])
def test_the_whole_range_of_depth_is_kept(name, value):
    codec = codecs.FrameCodec(name, KINDS["depth"])
    frame = np.full(codec.spec.shape, value, np.uint16)
    np.testing.assert_array_equal(decoded(codec, codec.encode(frame)), frame)


@pytest.mark.parametrize(("name", "settings"), [(n, s) for n, many in BAD.items() for s in many])
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(SpecError, match=next(iter(settings))):
        codecs.FrameCodec(name, KINDS["image"], **settings)


@pytest.mark.parametrize(
    ("name", "spec"),
    [*((n, KINDS[k]) for n, k in REFUSED), ("jpeg", ArraySpec((3,))), ("png", ArraySpec((3,)))],
)
def test_what_a_codec_cannot_store_is_refused_by_kind(name, spec):
    with pytest.raises(SpecError, match=f"{spec.kind} {spec.dtype}"):
        codecs.FrameCodec(name, spec)


def test_an_unknown_codec_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="unknown codec 'mp3'; known: jpeg, lossless, png"):
        codecs.FrameCodec("mp3", KINDS["image"])
    with pytest.raises(UnknownNameError):
        codecs.load("plugins")  # a module of the package, but no codec


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_any_flipped_bit_and_any_cut_is_noticed(name, kind):
    codec = codecs.FrameCodec(name, resized(kind, 3, 2))
    data = codec.encode(noise(codec.spec))
    assert codecs.checked(data, "here").nbytes == len(data) - 4
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError, match="here: checksum"):
            codecs.checked(bytes(flipped), "here")
    for size in range(len(data)):
        with pytest.raises(StoreError, match=r"here: (checksum|\d bytes are no chunk)"):
            codecs.checked(data[:size], "here")


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("by", [(-1, 0), (0, -1), (1, 0), (0, 1)])
def test_a_sound_frame_of_another_size_is_refused(name, kind, by):
    """Its checksum fits; only the codec can tell."""
    codec = codecs.FrameCodec(name, KINDS[kind])
    other = codecs.FrameCodec(name, resized(kind, HEIGHT + by[0], WIDTH + by[1]))
    with pytest.raises(StoreError, match="here, frame 7: cannot be decoded"):
        decoded(codec, other.encode(noise(other.spec)))


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@given(payload=st.binary(max_size=40))
def test_nonsense_with_a_fitting_checksum_is_refused(name, kind, payload):
    codec = codecs.FrameCodec(name, KINDS[kind])
    with pytest.raises(StoreError, match="here, frame 7: cannot be decoded"):
        decoded(codec, sealed(payload))


def sealed(payload: bytes) -> bytes:
    return payload + codecs.google_crc32c.value(payload).to_bytes(4, "little")


@pytest.mark.parametrize(
    "chain", [[], [{"name": "crc32c"}], [{"name": "gzip"}, {"name": "crc32c"}], [{"name": "blosc"}]]
)
def test_a_chain_that_no_codec_writes_is_refused(chain):
    with pytest.raises(StoreError, match="here: unknown codecs"):
        codecs.decoder(chain, "here")


# -- zarr-python -------------------------------------------------------------------------------------------


def with_camera(tmp_path, kind: str, count: int = 5, **create):
    """A store of one episode whose camera looks at noise, and an empty frame."""
    states = make_specs()
    specs = Specs({"camera": KINDS[kind]}, states.action, states.policy_rate)
    times = np.arange(count, dtype=np.int64) * STEP_NS
    frames = np.stack([smooth(KINDS[kind], frame) for frame in range(count)])
    frames[1] = 0
    action = Signal(np.zeros((count, specs.action.dim), np.float32), times)
    store = EpisodeStore.create(tmp_path / "s.zarr", specs, **create)
    store.append(Episode({"camera": Signal(frames, times)}, action))
    return store, frames


@pytest.mark.parametrize(("name", "kind", "settings"), WITH_SETTINGS)
def test_zarr_reads_what_we_write(tmp_path, name, kind, settings):
    store, frames = with_camera(tmp_path, kind, image_codec={"camera": name}, codec_settings=settings)
    array = zarr.open_array(store.path / "episodes/000000/observation/camera/value", mode="r")
    theirs, ours = array[:], store.read("000000").observation["camera"].value
    np.testing.assert_array_equal(theirs, ours)
    np.testing.assert_array_equal(array[3], ours[3])
    assert array.chunks == (1, *KINDS[kind].shape) and array.attrs["kind"] == kind
    if name not in LOSSY:
        np.testing.assert_array_equal(theirs, frames)


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_we_read_what_zarr_writes(tmp_path, name, kind):
    store, frames = with_camera(tmp_path, kind, image_codec={"camera": name})
    expected = store.read("000000").observation["camera"].value
    serializer, *compressors = store.codec("camera").chain
    episode = zarr.open_group(store.path / "episodes/000000", mode="r+", use_consolidated=False)
    array = episode["observation/camera"].create_array(
        "value",
        shape=frames.shape,
        dtype=frames.dtype,
        chunks=(1, *frames.shape[1:]),
        shards=frames.shape,
        serializer=serializer,
        compressors=compressors,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    array[:] = frames
    zarr.consolidate_metadata(episode.store)
    back = EpisodeStore.open(store.path).read("000000").observation["camera"].value
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("name", [n for n, _ in PAIRS if codecs.load(n).ZARR_NAME.startswith("robopolicy.")])
@pytest.mark.parametrize(
    ("chunk", "dtype"), [((2, 4, 4, 3), "uint8"), ((1, 4, 4, 3), "float32"), ((4,), "uint8")]
)
def test_zarr_cannot_lose_data_through_our_codecs(tmp_path, name, chunk, dtype):
    """A chunk of two frames would keep one of them; a dtype that the file cannot hold would be cast."""
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=chunk,
        chunks=chunk,
        dtype=dtype,
        serializer={"name": codecs.load(name).ZARR_NAME, "configuration": {}},
        compressors=None,
    )
    with pytest.raises(SpecError, match=r"takes chunks of \(1, height, width|is uint8 \(height"):
        array[:] = np.ones(chunk, dtype)


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "image"), ("png", "depth")])
def test_zarr_finds_our_codecs_by_itself(tmp_path, name, kind):
    """In a process of its own, which never imports robopolicy."""
    found = {point.name for point in importlib.metadata.entry_points(group="zarr.codecs")}
    assert codecs.load(name).ZARR_NAME in found, "install robopolicy again: its entry points are older"
    store, _ = with_camera(tmp_path, kind, image_codec={"camera": name})
    path = store.path / "episodes/000000/observation/camera/value"
    code = "import sys, zarr; print(zarr.open_array(sys.argv[1], mode='r')[:].sum(dtype='int64'))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == store.read("000000").observation["camera"].value.sum(dtype=np.int64)
