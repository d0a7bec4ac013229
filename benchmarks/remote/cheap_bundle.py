"""A bundle that costs next to nothing to run, so that what is left is the way there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import Bundle, Producer, write_bundle

OPSET, JOINTS = 17, 8


def cheap_specs(cameras: int) -> PolicySpecs:
    """A seven-joint arm with a gripper, and cameras of 240 x 320."""
    names = (*(f"joint{i}" for i in range(1, JOINTS)), "gripper")
    observation = {"joints": ArraySpec((JOINTS,), units=("rad",) * JOINTS, names=names)}
    for i in range(cameras):
        observation[f"camera{i}"] = ArraySpec((240, 320, 3), "uint8", kind="image")
    action = ActionSpec((ActionPart("joint_position", names),))
    return PolicySpecs(Specs(observation, action, policy_rate=10.0), Horizons(2, 16, 8), (16, JOINTS))


def write_cheap_bundle(folder: Path, cameras: int) -> Bundle:
    """Conditioning is the sum of all states and of one pixel of each camera; the chunk is noise plus that."""
    specs = cheap_specs(cameras)
    return write_bundle(
        folder,
        policy_specs=specs,
        normalisers=Normalisers(
            {"joints": Affine((0.0,) * JOINTS, (1.0,) * JOINTS)}, Affine((0.0,) * JOINTS, (1.0,) * JOINTS)
        ),
        graphs={"encoder": _encoder(specs), "sampler": _sampler(specs)},
        policy="cheap",
        denoising_steps=1,
        producer=Producer("benchmark", "", {"onnx": onnx.__version__}),
    )


def _encoder(specs: PolicySpecs) -> bytes:
    inputs, nodes, sums = [], [], []
    constants = [_constant("begin", [0]), _constant("end", [1]), _constant("axis", [1])]
    for name, spec in specs.specs.observation.items():
        kind = TensorProto.UINT8 if spec.kind == "image" else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(name, kind, ["batch", 2, *spec.shape]))
        nodes += [
            helper.make_node("Flatten", [name], [f"{name}_flat"]),
            helper.make_node("Slice", [f"{name}_flat", "begin", "end", "axis"], [f"{name}_one"]),
            helper.make_node("Cast", [f"{name}_one"], [f"{name}_sum"], to=TensorProto.FLOAT),
        ]
        sums.append(f"{name}_sum")
    nodes.append(helper.make_node("Sum", sums, ["conditioning"]))
    output = helper.make_tensor_value_info("conditioning", TensorProto.FLOAT, ["batch", 1])
    return _bytes(helper.make_graph(nodes, "encoder", inputs, [output], constants))


def _sampler(specs: PolicySpecs) -> bytes:
    shape = ["rows", *specs.chunk_shape]
    nodes = [
        helper.make_node("Unsqueeze", ["conditioning", "last"], ["row"]),
        helper.make_node("Add", ["row", "noise"], ["chunk"]),
    ]
    inputs = [
        helper.make_tensor_value_info("conditioning", TensorProto.FLOAT, ["rows", 1]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, shape),
    ]
    output = helper.make_tensor_value_info("chunk", TensorProto.FLOAT, shape)
    return _bytes(helper.make_graph(nodes, "sampler", inputs, [output], [_constant("last", [2])]))


def _constant(name: str, value: list[int]) -> Any:
    return numpy_helper.from_array(np.array(value, dtype=np.int64), name)


def _bytes(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
