"""Tiny bundles for the runtime's tests, built with onnx.helper: no torch, no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto, helper

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import Bundle, Producer, write_bundle
from robopolicy.runtime.backends.onnx_file import TensorSignature, read_signature

OPSET = 17
CONDITIONING_DIM = 3


def tiny_specs(*, image: bool = False) -> PolicySpecs:
    """Two joints and a gripper at 10 Hz; one of the states is an angle."""
    observation = {
        "joints": ArraySpec((3,), units=("rad", "rad", "m")),
        "goal": ArraySpec((2,), units=("m", "rad"), angles=(1,)),
    }
    if image:
        observation["scene"] = ArraySpec((4, 4, 3), "uint8", kind="image")
    action = ActionSpec((ActionPart("joint_position", ("a", "b")), ActionPart("gripper_opening", ("grip",))))
    return PolicySpecs(Specs(observation, action, policy_rate=10.0), Horizons(2, 8, 4), noise_shape=(8, 3))


def tiny_normalisers(specs: PolicySpecs) -> Normalisers:
    maps = {
        name: Affine((0.1,) * spec.num_features, (2.0,) * spec.num_features)
        for name, spec in specs.specs.observation.items()
        if spec.kind == "state"
    }
    return Normalisers(maps, Affine((0.0, 0.1, 0.04), (0.5, 0.5, 0.04)))


def tiny_graphs(
    specs: PolicySpecs,
    *,
    scale: float = 0.1,
    conditioning_shape: tuple[Any, ...] = (CONDITIONING_DIM,),
    opset: int = OPSET,
) -> dict[str, bytes]:
    """encoder: weighted sums of every observation; sampler: conditioning through a matrix, plus noise."""
    rng = np.random.default_rng(0)
    horizon = specs.horizons.observation
    inputs, nodes, constants = [], [], []
    for name, spec in specs.specs.observation.items():
        state = spec.kind == "state"
        shape = (spec.num_features,) if state else spec.shape
        kind = TensorProto.FLOAT if state else TensorProto.UINT8
        inputs.append(helper.make_tensor_value_info(name, kind, ["batch", horizon, *shape]))
        nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Flatten", [f"{name}_float"], [f"{name}_flat"]))
        size = horizon * int(np.prod(shape))
        constants.append(
            _weights(f"{name}_w", rng.normal(size=(size, CONDITIONING_DIM)) / (1 if state else 1e3))
        )
        nodes.append(helper.make_node("MatMul", [f"{name}_flat", f"{name}_w"], [f"{name}_c"]))
    nodes.append(helper.make_node("Sum", [f"{name}_c" for name in specs.specs.observation], ["sum"]))
    sizes = [-1 if isinstance(size, str) else size for size in conditioning_shape]
    constants.append(onnx.numpy_helper.from_array(np.array([0, *sizes]), "sizes"))
    nodes.append(helper.make_node("Reshape", ["sum", "sizes"], ["conditioning"]))
    conditioning = helper.make_tensor_value_info(*_float("conditioning", ["batch", *conditioning_shape]))
    encoder = helper.make_graph(nodes, "encoder", inputs, [conditioning], constants)

    horizon_out, dim = specs.chunk_shape
    shape = onnx.numpy_helper.from_array(np.array([-1, horizon_out, dim]), "shape")
    sampler = helper.make_graph(
        [
            helper.make_node("Flatten", ["conditioning"], ["row"]),
            helper.make_node("MatMul", ["row", "w"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["mean"]),
            helper.make_node("Mul", ["noise", "scale"], ["spread"]),
            helper.make_node("Add", ["mean", "spread"], ["chunk"]),
        ],
        "sampler",
        [
            helper.make_tensor_value_info(*_float("conditioning", ["rows", *conditioning_shape])),
            helper.make_tensor_value_info(*_float("noise", ["rows", *specs.noise_shape])),
        ],
        [helper.make_tensor_value_info(*_float("chunk", ["rows", horizon_out, dim]))],
        [
            _weights("w", rng.normal(size=(CONDITIONING_DIM, horizon_out * dim)) * 0.1),
            _weights("scale", np.array(scale)),
            shape,
        ],
    )
    return {"encoder": model_bytes(encoder, OPSET), "sampler": model_bytes(sampler, opset)}


def model_bytes(graph: Any, opset: int) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_tiny_bundle(
    directory: Path, *, image: bool = False, graphs: dict[str, bytes] | None = None
) -> Bundle:
    specs = tiny_specs(image=image)
    return write_bundle(
        directory,
        policy_specs=specs,
        normalisers=tiny_normalisers(specs),
        graphs=graphs or tiny_graphs(specs),
        policy="tiny",
        denoising_steps=1,
        producer=Producer("test", "0" * 40, {"onnx": onnx.__version__}),
    )


def tiny_window(specs: PolicySpecs, rng: np.random.Generator) -> dict[str, Any]:
    """One observation window, each (observation_horizon, *shape)."""
    return {
        name: rng.normal(size=(specs.horizons.observation, *spec.shape)).astype(spec.dtype)
        if spec.kind == "state"
        else rng.integers(0, 256, (specs.horizons.observation, *spec.shape)).astype(np.uint8)
        for name, spec in specs.specs.observation.items()
    }


def _weights(name: str, value: Any) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)


def _float(name: str, shape: list[Any]) -> tuple[str, int, list[Any]]:
    return name, TensorProto.FLOAT, shape


def test_signature_is_read_from_the_bytes_alone() -> None:
    specs = tiny_specs(image=True)
    signature = read_signature("encoder.onnx", tiny_graphs(specs)["encoder"])
    assert signature.opset == OPSET
    assert signature.inputs == {
        "joints": TensorSignature("float32", (None, 2, 3)),
        "goal": TensorSignature("float32", (None, 2, 3)),
        "scene": TensorSignature("uint8", (None, 2, 4, 4, 3)),
    }
    assert signature.outputs == {"conditioning": TensorSignature("float32", (None, CONDITIONING_DIM))}
