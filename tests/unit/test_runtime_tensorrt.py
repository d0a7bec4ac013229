"""TensorRT up to the engine: cache, profiles, refusals and the loop; the engine itself needs a GPU.

The fakes of ``fake_gpu`` stand in for the packages; ``benchmarks/tensorrt_types.py`` holds the calls against
the real ones, ``benchmarks/gpu_check.py`` runs them.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeTensorRt
from stepping import STEPS, step_graphs, step_specs, write_step_bundle
from test_runtime_support import tiny_graphs, tiny_specs, tiny_window

from robopolicy.core.errors import BundleError, ConfigError, MissingDependencyError, ShapeError
from robopolicy.runtime import BundlePolicy
from robopolicy.runtime.backends import onnxruntime as ort_backend
from robopolicy.runtime.backends.choose import default_cache, load_backend
from robopolicy.runtime.backends.gpu import Gpu, describe_gpu, driver_version
from robopolicy.runtime.backends.onnx_file import GraphSignature, TensorSignature, read_signature
from robopolicy.runtime.backends.onnxruntime import choose_providers, engine_options
from robopolicy.runtime.backends.tensorrt_engine import EngineCache, engine_key, profile_shapes

GPU = Gpu("NVIDIA H200", "9.0", "550.54.15")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeCuda, FakeTensorRt]:
    cuda = FakeCuda()
    tensorrt = FakeTensorRt(cuda)
    for name, module in {"cuda.bindings.runtime": cuda, "tensorrt": tensorrt}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda, tensorrt


def test_an_engine_is_for_one_graph_gpu_driver_and_version() -> None:
    key = engine_key(b"graph", GPU, "11.0", 16)
    others = [
        engine_key(b"Graph", GPU, "11.0", 16),
        engine_key(b"graph", GPU, "11.1", 16),
        engine_key(b"graph", GPU, "11.0", 17),
        *(engine_key(b"graph", dataclasses.replace(GPU, **{field: "1"}), "11.0", 16) for field in vars(GPU)),
    ]
    assert len({key, *others}) == 7 and all(len(k) == 64 for k in others)
    assert key == engine_key(b"graph", Gpu(*dataclasses.astuple(GPU)), "11.0", 16)


def test_profiles_cover_one_row_to_the_most() -> None:
    signature = read_signature("step.onnx", step_graphs(step_specs(prefix=True))["step"])
    assert profile_shapes(signature, 16) == {
        "step_chunk": ((1, 8, 3), (16, 8, 3), (16, 8, 3)),
        "conditioning": ((1, 3), (16, 3), (16, 3)),
        "prefix": ((1, 8, 3), (16, 8, 3), (16, 8, 3)),
        "prefix_weight": ((1, 8), (16, 8), (16, 8)),
    }
    with pytest.raises(ConfigError, match="max_rows"):
        profile_shapes(signature, 0)
    odd = GraphSignature("odd.onnx", {"x": TensorSignature("float32", (None, None))}, {}, 20)
    with pytest.raises(BundleError, match=r"odd\.onnx: 'x'"):
        profile_shapes(odd, 4)


def test_the_onnxruntime_provider_gets_the_same_profile_and_a_cache(tmp_path: Path) -> None:
    options = engine_options(tmp_path, {"x": (None, 8, 3), "row": (2,)}, max_rows=4, fp16=True)
    assert options["trt_profile_min_shapes"] == "x:1x8x3"
    assert options["trt_profile_max_shapes"] == options["trt_profile_opt_shapes"] == "x:4x8x3"
    assert options["trt_fp16_enable"] is True and options["trt_engine_cache_enable"] is True
    assert options["trt_engine_cache_path"] == str(tmp_path)


def test_onnxruntimes_engines_are_never_those_of_other_weights(
    packages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names them after tensors, and two policies of one architecture have the same."""
    given: list[Path] = []

    def backend(model: bytes, *, engine_options: dict[str, Any], **_: Any) -> None:
        assert engine_options["trt_engine_cache_path"] == engine_options["trt_timing_cache_path"]
        given.append(Path(engine_options["trt_engine_cache_path"]))

    monkeypatch.setattr("robopolicy.runtime.backends.choose.OnnxRuntimeBackend", backend)

    def folder(scale: float = 0.1, **options: Any) -> Path:
        model = tiny_graphs(tiny_specs(), scale=scale)["sampler"]
        load_backend("sampler.onnx", model, provider="tensorrt", cache=tmp_path / "engines", **options)
        return given[-1]

    first = folder()
    assert folder() == first and first.stat().st_mode & 0o777 == 0o700
    others = [folder(scale=0.2), folder(max_rows=4), folder(precision="fp16")]
    monkeypatch.setattr(ort_backend._engine(), "__version__", "9.9")
    others.append(folder())
    other = SimpleNamespace(name=b"Other GPU\0", major=9, minor=0)
    monkeypatch.setattr(packages[0], "cudaGetDeviceProperties", lambda device: (0, other))
    others.append(folder())
    assert len({first, *others}) == 6
    for shared in (given[-1], first.parent, tmp_path / "engines"):
        shared.chmod(0o770)
        with pytest.raises(ConfigError, match="alone"):
            folder()
        shared.chmod(0o700)


def test_a_damaged_engine_is_built_again(tmp_path: Path) -> None:
    cache, built = EngineCache(tmp_path / "engines"), []

    def build() -> bytes:
        built.append(1)
        return b"engine"

    assert cache.get("key", build) == cache.get("key", build) == b"engine"
    assert len(built) == 1
    path = tmp_path / "engines" / "key.engine"
    for data in (path.read_bytes()[:-1], b"", b"x" * 80):
        path.write_bytes(data)
        assert cache.get("key", build) == b"engine"
    assert len(built) == 4
    assert [p.name for p in path.parent.iterdir()] == ["key.engine"]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise BundleError("no")

    with pytest.raises(BundleError):
        EngineCache(tmp_path).get("key", fail)
    assert list(tmp_path.iterdir()) == []


def test_engines_that_others_may_write_are_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="alone"):
        EngineCache(tmp_path / "open")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "robopolicy" / "engines"


def test_gpu_and_driver_are_read(packages: Any, tmp_path: Path) -> None:
    gpu = describe_gpu()
    assert (gpu.name, gpu.compute_capability) == ("Fake GPU", "9.0")
    assert set(GPU.key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._")
    file = tmp_path / "version"
    assert driver_version(12040, file) == "cuda12.4"
    file.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12.2.0\n"
    )
    assert driver_version(12040, file) == "550.54.15"


def test_without_a_gpu_the_reason_is_told(packages: Any, tmp_path: Path) -> None:
    packages[0].devices = 0
    with pytest.raises(ConfigError, match=r"no GPU can be used here: .*cudaErrorNoDevice"):
        load_backend(
            "step.onnx", step_graphs(step_specs())["step"], provider="tensorrt-native", cache=tmp_path
        )


@pytest.mark.parametrize("missing", ["tensorrt", "cuda.bindings.runtime"])
def test_a_missing_package_is_named(
    packages: Any, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"robopolicy\[tensorrt\]"):
        load_backend(
            "step.onnx", step_graphs(step_specs())["step"], provider="tensorrt-native", cache=tmp_path
        )


@pytest.mark.parametrize(
    ("trouble", "message"),
    [({"parses": False}, "cannot read .*no such operator"), ({"builds": False}, "cannot build")],
)
def test_a_graph_that_cannot_be_built_is_refused(
    packages: Any, trouble: dict[str, bool], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt(packages[0], **trouble))
    with pytest.raises(BundleError, match=message):
        load_backend(
            "step.onnx", step_graphs(step_specs())["step"], provider="tensorrt-native", cache=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("prefix", "iterations"), [(False, 3), (True, 3), (False, 2), (False, 1)])
def test_the_loop_alternates_buffers_and_repeats_as_a_graph(
    packages: Any, prefix: bool, iterations: int, tmp_path: Path
) -> None:
    """Against ONNX Runtime's own loop; an odd number ends in the other buffer than it began."""
    cuda, tensorrt = packages
    rows = {"steps": STEPS[:iterations], "denoising_steps": iterations}
    bundle = write_step_bundle(tmp_path / "bundle", prefix=prefix, critic=True, **rows)
    native = BundlePolicy(bundle, provider="tensorrt-native", max_rows=6, cache=tmp_path / "cache")
    plain = BundlePolicy(bundle, provider="cpu")
    assert native.provider == "TensorRT" and tensorrt.built == 4
    rng = np.random.default_rng(0)
    for n in (1, 1, 1, 6, 6, 6, 1):
        window = {k: v[None] for k, v in tiny_window(bundle.policy_specs, rng).items()}
        noise = rng.normal(size=(1, n, *bundle.policy_specs.noise_shape)).astype(np.float32)
        chunks = native.sample(window, noise)
        np.testing.assert_allclose(chunks, plain.sample(window, noise), atol=1e-6)
        np.testing.assert_allclose(native.values(window, chunks), plain.values(window, chunks), atol=1e-6)
    # encoders see one row throughout: all but their first call; loop and critic: four of seven
    assert cuda.launches == 2 * 6 + 2 * 4
    with pytest.raises(ShapeError, match=r"1\.\.6 rows"):
        native.sample(window, np.zeros((1, 7, *bundle.policy_specs.noise_shape), np.float32))
    BundlePolicy(bundle, provider="tensorrt-native", max_rows=6, cache=tmp_path / "cache")
    assert tensorrt.built == 4  # from the cache


def test_providers_of_onnxruntime() -> None:
    cpu, cuda, trt = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
    assert choose_providers("tensorrt", [trt, cuda, cpu]) == [trt, cuda, cpu]
    assert choose_providers("auto", [trt, cuda, cpu]) == [cuda, cpu]  # engines take minutes: never unasked
    with pytest.raises(ConfigError, match=r"'tensorrt' is not available; there are \['auto', 'cpu'\]"):
        choose_providers("tensorrt", [cpu])


def test_the_cpu_build_of_onnxruntime_has_no_tensorrt(packages: Any, tmp_path: Path) -> None:
    if "TensorrtExecutionProvider" in ort_backend._engine().get_available_providers():
        pytest.skip("this is a GPU build of ONNX Runtime")
    with pytest.raises(ConfigError, match="'tensorrt' is not available"):
        load_backend("step.onnx", step_graphs(step_specs())["step"], provider="tensorrt", cache=tmp_path)


@pytest.mark.gpu
def test_a_real_engine_gives_what_the_cpu_gives(tmp_path: Path) -> None:
    for name in ("tensorrt", "cuda.bindings"):
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(f"{name} is not installed; everything up to the engine is tested above")
    try:
        describe_gpu()
    except (ConfigError, MissingDependencyError) as error:
        pytest.skip(f"the engine itself needs a GPU: {error}")
    bundle = write_step_bundle(tmp_path / "bundle", prefix=True, critic=True)
    native = BundlePolicy(bundle, provider="tensorrt-native", max_rows=6, cache=tmp_path / "cache")
    plain = BundlePolicy(bundle, provider="cpu")
    rng = np.random.default_rng(0)
    for n in (1, 1, 1, 6, 6):
        window = {k: v[None] for k, v in tiny_window(bundle.policy_specs, rng).items()}
        noise = rng.normal(size=(1, n, *bundle.policy_specs.noise_shape)).astype(np.float32)
        np.testing.assert_allclose(native.sample(window, noise), plain.sample(window, noise), atol=1e-4)
