"""The exported graphs: both forms, with and without a prefix, in operators that every engine has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from synthetic import make_policy_specs

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.policy_module import PolicyModule
from robopolicy.policies.diffusion_unet import Config, DiffusionUNet, build

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(
    channels=(16, 32), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=3)
)
LOWEST_OPSET = 18
#: Slow or missing in some engine, and not needed.
AVOIDED = {"Conv", "ConvTranspose", "Softplus", "Mish", "If", "Loop"}


@pytest.fixture(scope="module")
def policy() -> PolicyModule:
    torch.manual_seed(0)
    module = build(TINY, make_policy_specs())
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return module.eval()


@pytest.fixture(scope="module")
def step(policy: PolicyModule) -> dict[str, bytes]:
    return export_graphs(policy, form="step", opset=LOWEST_OPSET)


@pytest.fixture(scope="module")
def unrolled(policy: PolicyModule) -> dict[str, bytes]:
    return export_graphs(policy)


def run(model: bytes, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    (result,) = onnxruntime.InferenceSession(model).run(None, dict(feeds))
    return result


def inputs(policy: PolicyModule, rows: int, *, bound: bool = True) -> dict[str, torch.Tensor]:
    """What ``sample`` takes: prepared conditioning, noise and a prefix; ``bound`` False frees the chunk."""
    generator = torch.Generator().manual_seed(rows)
    shape = policy.policy_specs.chunk_shape
    names = policy.policy_specs.specs.observation.items()
    observation = {n: torch.randn(rows, 2, s.num_features, generator=generator) for n, s in names}
    with torch.inference_mode():
        conditioning = policy.prepare(policy.encode(observation))
    return {
        "conditioning": conditioning,
        "noise": torch.randn(rows, *shape, generator=generator),
        "prefix": torch.rand(rows, *shape, generator=generator),
        "prefix_weight": torch.rand(rows, shape[0], generator=generator) * bound,
    }


def driven(policy: PolicyModule, step: bytes, given: Mapping[str, torch.Tensor]) -> np.ndarray:
    """The step graph, once per row of parameters, as a runtime does it."""
    feeds = {name: value.numpy() for name, value in given.items()}
    chunk = feeds.pop("noise")
    for row in step_rows(policy):
        chunk = run(step, {**feeds, "step_chunk": chunk, "step_parameters": row})
    return chunk


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("bound", [False, True])
def test_both_forms_give_torchs_chunks_bound_to_a_prefix_or_free(policy, step, unrolled, rows, bound):
    given = inputs(policy, rows, bound=bound)
    with torch.inference_mode():
        expected = policy.sample(*given.values())
        free = policy.sample(given["conditioning"], given["noise"])
    assert torch.equal(expected, free) is not bound  # weight 0 is no prefix at all
    found = run(unrolled["sampler"], {name: value.numpy() for name, value in given.items()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(driven(policy, step["step"], given), expected, rtol=0, atol=1e-5)


def test_the_encoder_gives_prepared_conditioning(policy, step):
    names = policy.policy_specs.specs.observation.items()
    observation = {name: torch.randn(3, 2, spec.num_features) for name, spec in names}
    with torch.inference_mode():
        expected = policy.prepare(policy.encode(observation)).numpy()
    found = run(step["encoder"], {name: value.numpy() for name, value in observation.items()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_graphs_keep_to_plain_operators_of_the_opset_asked_for(step, unrolled):
    for graphs, opset in ((step, LOWEST_OPSET), (unrolled, 20)):
        for role, data in graphs.items():
            model = onnx.load_from_string(data)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)], role
            assert not AVOIDED & {node.op_type for node in model.graph.node}, role


def test_every_product_is_with_a_constant(step):
    """Engines pack constants once; a product with anything else is packed at every call."""
    graph = onnx.load_from_string(step["step"]).graph
    constants = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(products) >= 20
    assert all(node.input[1] in constants for node in products)


def test_unrolling_stores_weights_once(step, unrolled):
    assert len(unrolled["sampler"]) < 1.5 * len(step["step"])


def test_an_unknown_form_is_refused(policy):
    with pytest.raises(ConfigError, match=r"'loop' is not one of \('unrolled', 'step'\)"):
        export_graphs(policy, form="loop")


class Plain(DiffusionUNet):
    """Another family: no inference form, tokens for conditioning, no prefix."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__(config, specs)
        self.policy_specs = dataclasses.replace(self.policy_specs, takes_prefix=False)

    def prepare(self, conditioning: torch.Tensor) -> torch.Tensor:
        return torch.stack([super().prepare(conditioning)] * 2, dim=1)

    def inference_form(self) -> PolicyModule:
        return self

    def denoise(self, chunk, conditioning, parameters, prefix=None, prefix_weight=None):
        return super().denoise(chunk, conditioning.mean(1), parameters, prefix, prefix_weight)


def test_a_family_without_a_form_of_its_own_is_exported_as_it_is():
    torch.manual_seed(0)
    plain = Plain(TINY, make_policy_specs()).eval()
    graphs = export_graphs(plain, form="step")
    given = inputs(plain, 3)
    del given["prefix"], given["prefix_weight"]
    with torch.inference_mode():
        expected = plain.sample(**given)
    np.testing.assert_array_equal(step_rows(plain), plain.steps)
    np.testing.assert_allclose(driven(plain, graphs["step"], given), expected, rtol=0, atol=1e-5)


class OneShot(Plain):
    """A policy that does not iterate."""

    iterates = False

    def sample(self, conditioning, noise, prefix=None, prefix_weight=None):
        return noise + conditioning.mean((1, 2))[:, None, None]


def test_a_policy_that_samples_in_its_own_way_has_no_step():
    plain = OneShot(TINY, make_policy_specs()).eval()
    with pytest.raises(ConfigError, match="OneShot samples in its own way"):
        export_graphs(plain, form="step")
