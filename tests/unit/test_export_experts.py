"""Expert caching in ONNX: what a step picks by its number becomes a constant, stored once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from synthetic import make_policy_specs

from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.export.unroll import unroll
from robopolicy.models.edm import EdmConfig
from robopolicy.policies.mode import Config, MixtureOfDenoisingExperts, build

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(dim=16, layers=2, heads=2, expert_hidden=12, schedule=EdmConfig(denoising_steps=4))
NAMES = {"carried": "step_chunk", "constant": "step_parameters", "output": "step_output"}


@pytest.fixture(scope="module")
def policy() -> MixtureOfDenoisingExperts:
    torch.manual_seed(0)
    module = build(TINY, make_policy_specs()).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        token = module.denoiser.noise_token(module.steps[:, 9])
        for block in module.denoiser.blocks:  # routes that differ from step to step
            *_, last = block.router.network
            last.weight.mul_(3)
            last.bias.sub_(block.router.network(token).mean(0))
    return module


@pytest.fixture(scope="module")
def step(policy) -> bytes:
    return export_graphs(policy, form="step")["step"]


@pytest.fixture(scope="module")
def unrolled(policy, step) -> bytes:
    loop = unroll(onnx.load_model_from_string(step), step_rows(policy), **NAMES, first="noise", last="chunk")
    return loop.SerializeToString()


def run(model: bytes, feeds) -> np.ndarray:
    (result,) = onnxruntime.InferenceSession(model).run(None, dict(feeds))
    return result


@pytest.mark.parametrize("rows", [1, 5])
def test_cached_in_onnx_is_uncached_in_torch(policy, step, unrolled, rows):
    rng = np.random.default_rng(rows)
    shape = (rows, *policy.policy_specs.chunk_shape)
    given = {
        "conditioning": rng.normal(size=(rows, 2, TINY.dim)).astype(np.float32),
        "noise": rng.normal(size=shape).astype(np.float32),
        "prefix": rng.uniform(-1, 1, shape).astype(np.float32),
        "prefix_weight": rng.uniform(0, 1, shape[:2]).astype(np.float32),
    }
    with torch.inference_mode():
        expected = policy.sample(*map(torch.from_numpy, given.values())).numpy()
    np.testing.assert_allclose(run(unrolled, given), expected, rtol=0, atol=1e-5)
    chunk = given.pop("noise")
    for row in step_rows(policy):
        chunk = run(step, {**given, "step_chunk": chunk, "step_parameters": row})
    np.testing.assert_allclose(chunk, expected, rtol=0, atol=1e-5)


def products(model: bytes) -> list[onnx.NodeProto]:
    return [n for n in onnx.load_from_string(model).graph.node if n.op_type in ("MatMul", "Gemm")]


def test_unrolled_every_product_but_attentions_is_with_a_constant(policy, unrolled):
    constants = {tensor.name for tensor in onnx.load_from_string(unrolled).graph.initializer}
    others = [n for n in products(unrolled) if n.input[1] not in constants]
    steps, layers = TINY.schedule.denoising_steps, TINY.layers
    assert len(others) == 2 * steps * layers  # scores, and the values they weigh


def test_each_set_of_experts_is_stored_once(policy, unrolled):
    shape = (TINY.dim, TINY.active_experts * TINY.expert_hidden)
    stored = [t for t in onnx.load_from_string(unrolled).graph.initializer if tuple(t.dims) == shape]
    sets = [block.experts.sets for block in policy.inference_form().denoiser.blocks]
    assert len(stored) == 2 * sum(len(set(found)) for found in sets)  # gate and value
    assert max(len(set(found)) for found in sets) > 1


def test_no_router_is_left(policy, step, unrolled):
    for model in (step, unrolled):
        assert not {"TopK", "Sin", "Cos"} & {n.op_type for n in onnx.load_from_string(model).graph.node}


def picking_step() -> onnx.ModelProto:
    """y = x * bank[row[0]]."""
    nodes = [
        helper.make_node("Cast", ["row"], ["number"], to=TensorProto.INT64),
        helper.make_node("Gather", ["bank", "number"], ["picked"], axis=0),
        helper.make_node("Mul", ["x", "picked"], ["y"]),
    ]
    bank = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 2]), ("row", [1]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(bank, "bank")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_what_no_step_picks_is_not_stored():
    rows = np.array([[2], [0], [2]], np.float32)
    model = unroll(picking_step(), rows, carried="x", constant="row", output="y", first="noise", last="chunk")
    found = run(model.SerializeToString(), {"noise": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[25.0, 72.0]])
    assert {n.op_type for n in model.graph.node} == {"Mul"}
    stored = sorted(numpy_helper.to_array(t).ravel().tolist() for t in model.graph.initializer)
    assert stored == [[1.0, 2.0], [5.0, 6.0]]
