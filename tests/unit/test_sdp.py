"""Tasks find their experts from their instructions, pay for those alone, and are told apart by the loss."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows

from robopolicy.core.errors import ConfigError
from robopolicy.core.language import CLEAN_INSTRUCTION, INSTRUCTION
from robopolicy.export.onnx import export_graphs
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.sdp_experts import FusedExperts, PresentExperts, StagedExperts
from robopolicy.models.task_denoiser import TaskFinder
from robopolicy.models.task_routing import TaskRouters, mutual_information
from robopolicy.policies import sdp

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = ("push", "pull", "lift")
WORDS = torch.eye(6)
TINY = sdp.Config(
    dim=32, layers=2, heads=2, expert_hidden=16, tasks=TASKS,
    schedule=ScheduleConfig(training_steps=20, denoising_steps=3),
)  # fmt: skip
SPECS = dataclasses.replace(make_policy_specs(), instruction_dim=6)


def make_module(config: sdp.Config = TINY, seed: int = 0) -> sdp.SparseDiffusion:
    torch.manual_seed(seed)
    module = sdp.build(config, SPECS)
    with torch.no_grad():  # gates that start at zero would hide the experts
        module.denoiser.network.modulation.weight.normal_(0, 0.1)
    module.set_instructions([WORDS[i : i + 1] for i in range(len(config.tasks))])
    return module


def inputs(tasks: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    windows = make_windows(SPECS, len(tasks), seed)
    seen = make_normalisers(SPECS).observations(SPECS.specs, windows)
    return {**{k: torch.from_numpy(v) for k, v in seen.items()}, INSTRUCTION: WORDS[tasks]}


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, *SPECS.chunk_shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(module: sdp.SparseDiffusion, observation: dict[str, torch.Tensor], seed: int = 0) -> torch.Tensor:
    start = noise(len(observation[INSTRUCTION]), seed)
    return module.sample(module.prepare(module.encode(observation)), start)


def test_every_task_has_its_active_experts_and_knows_no_later_ones():
    routers = TaskRouters(3, (4, 4, 6), 2)
    routes = routers.routes()
    assert routes.shape == (3, 3, 6)
    assert ((routes > 0).sum(-1) == 2).all()
    torch.testing.assert_close(routes.sum(-1), torch.ones(3, 3))
    assert (routes[:2, :, 4:] == 0).all() and (routers.probabilities()[:2, :, 4:] == 0).all()
    assert torch.equal(routers(torch.eye(3)[[2, 0, 2]]), routes[[2, 0, 2]])


def test_routes_are_drawn_in_training_and_fixed_otherwise():
    routers = TaskRouters(1, (8,), 2, noise=1.0)
    one = torch.ones(400, 1)
    first, again, other = (routers(one, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    often = (first > 0).float().mean(0)[0]
    best = routers.logits[0][0].argmax()
    assert (often > 0).all() and often.argmax() == best and often[best] < 1
    assert torch.equal(routers(one)[0], routers(one)[-1])


def test_mutual_information_is_that_of_the_joint_distribution():
    same = torch.full((3, 2, 6), 1 / 6)
    apart = torch.eye(6)[[0, 2, 4]][:, None].repeat(1, 2, 1)
    assert mutual_information(same).item() == pytest.approx(0, abs=1e-6)
    assert mutual_information(apart).item() == pytest.approx(math.log(3), rel=1e-5)
    given = torch.rand(3, 1, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    joint = given[:, 0].numpy() / 3
    expected = (joint * np.log(joint / (joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)))).sum()
    assert mutual_information(given).item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_pulls_tasks_apart():
    module = make_module(dataclasses.replace(TINY, information=1.0))
    condition, generator = module.encode(inputs([0, 1, 2])), torch.Generator().manual_seed(0)
    action, mask = torch.zeros(3, *SPECS.chunk_shape), torch.ones(3, 8, dtype=torch.bool)
    before = mutual_information(module.routers.probabilities()).item()
    optimiser = torch.optim.SGD(module.routers.parameters(), 1.0)
    for _ in range(20):
        optimiser.zero_grad()
        module.loss(condition.detach(), action, mask, generator).backward()
        optimiser.step()
    assert module.metrics()["mutual_information"] > before + 0.05
    assert all(logits.isfinite().all() for logits in module.routers.logits)


def staged() -> tuple[StagedExperts, torch.Tensor]:
    """Experts in stages of three and two, and routes for four rows."""
    torch.manual_seed(0)
    weight = torch.tensor([[0.3, 0.7, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0.4, 0.6], [0, 0.2, 0, 0, 0.8]])
    return StagedExperts((3, 2), 8, 6), weight


def test_experts_sum_what_each_of_them_gives():
    experts, weight = staged()
    x = torch.randn(4, 5, 8)
    expected = torch.zeros_like(x)
    for row in range(4):
        for expert in range(5):
            stage, place = (experts.stages[0], expert) if expert < 3 else (experts.stages[1], expert - 3)
            hidden = torch.nn.functional.gelu(x[row] @ stage.inward[place].T)
            expected[row] += weight[row, expert] * (hidden @ stage.outward[place].T)
    torch.testing.assert_close(experts(x, weight), expected)
    torch.testing.assert_close(PresentExperts(experts)(x, weight), expected)
    same = weight[3:].repeat(4, 1)
    torch.testing.assert_close(FusedExperts(experts, weight[3])(x, same), experts(x, same))


def test_experts_without_rows_are_not_paid_for():
    experts, weight = staged()
    experts(torch.randn(2, 5, 8), weight[:2]).sum().backward()
    first, second = experts.stages
    assert (first.inward.grad[2] == 0).all() and (first.inward.grad[:2] != 0).any()
    assert second.inward.grad is None


def test_a_stage_of_no_experts_adds_none():
    assert len(StagedExperts((3, 0), 8, 6).stages) == 1


def test_instructions_find_the_nearest_task():
    finder = TaskFinder(2, 3)
    finder.learn(0, torch.tensor([[2.0, 0, 0], [0, 1, 0]]))
    finder.learn(1, torch.tensor([[0, 0, 5.0]]))
    said = torch.tensor([[1.0, 0.2, 0.3], [0.1, 0.2, 4.0], [0, 3, 1]])
    assert finder(said, said).argmax(-1).tolist() == [0, 1, 0]
    torch.testing.assert_close(finder.prototypes.norm(dim=-1), torch.ones(2))


def test_another_instruction_gives_another_chunk_and_a_paraphrase_the_same_experts():
    module = make_module()
    chunks = [sample(module, inputs([task])) for task in range(3)]
    assert not torch.equal(chunks[0], chunks[1]) and not torch.equal(chunks[1], chunks[2])
    observation = inputs([1])
    observation[INSTRUCTION] = observation[INSTRUCTION] + 0.3 * WORDS[4:5]
    routes = module.prepare(module.encode(observation))[:, -module.routers.routes()[0].numel() :]
    assert torch.equal(routes[0], module.routers.routes()[1].flatten())


def test_instructions_that_cannot_be_told_apart_are_refused_by_name():
    module = make_module()
    with pytest.raises(ConfigError, match="phrasing 1 of 'lift': 'push'"):
        module.set_instructions([WORDS[:1], WORDS[1:2], torch.stack([WORDS[2], 2 * WORDS[0], WORDS[2]])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"active_experts": 9}, "experts 8 are fewer than active_experts 9"),
        ({"active_experts": 0}, "active_experts must be >= 1"),
        ({"expert_hidden": 0}, "expert_hidden must be >= 1"),
        ({"dim": 30, "heads": 4}, "dim 30"),
        ({"dropout": 1.0}, "dropout"),
        ({"dim": 2, "heads": 1}, "dim 2"),
        ({"router_noise": -1.0}, "router_noise"),
        ({"router_noise": math.nan}, "router_noise must be >= 0 and finite"),
        ({"information": math.nan}, "information must be >= 0 and finite"),
        ({"tasks": ("a", "a")}, "tasks must differ"),
        ({"tasks": ("a",), "added": (2,)}, "more than the 1 added"),
        ({"added": (-1,)}, "added must be >= 0"),
    ],
)
def test_impossible_options_are_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)


def test_metrics_tell_the_usage_of_every_expert():
    module = make_module()
    found = module.metrics()
    for layer, usage in enumerate(module.expert_usage().mean(1)):
        assert [found[f"usage.layer{layer}.expert{i}"] for i in range(8)] == pytest.approx(usage.tolist())
        assert usage.sum().item() == pytest.approx(1)


def test_several_tasks_need_language():
    with pytest.raises(ConfigError, match="without language there is one task, not 3"):
        sdp.build(TINY, make_policy_specs())


def test_tasks_come_from_the_instructions():
    assert sdp.with_tasks(sdp.Config(), ["b", "a", "b"]).tasks == ("b", "a")
    grown = sdp.with_added(sdp.with_added(TINY, ["roll"], 2), ["spin"], 0)
    assert grown.tasks == (*TASKS, "roll", "spin") and grown.visible == (8, 8, 8, 10, 10)
    with pytest.raises(ConfigError, match=r"already knows the tasks \['lift'\]"):
        sdp.with_added(TINY, ["lift"], 2)


@pytest.fixture(scope="module")
def exported():
    import onnxruntime

    module = make_module().eval()
    graphs = export_graphs(module, form="unrolled")
    return module, {role: onnxruntime.InferenceSession(graph) for role, graph in graphs.items()}


@pytest.mark.parametrize("tasks", [[0, 1, 2, 1, 0], [2], [1, 1, 1]], ids=str)
def test_exported_rows_of_mixed_tasks_go_to_their_own_experts(exported, tasks):
    module, sessions = exported
    observation = inputs(tasks)
    condition = sessions["encoder"].run(None, {k: v.numpy() for k, v in observation.items()})[0]
    start = noise(len(tasks)).numpy()
    bound = {"prefix": np.zeros_like(start), "prefix_weight": np.zeros(start.shape[:2], np.float32)}
    chunk = sessions["sampler"].run(None, {"noise": start, "conditioning": condition, **bound})[0]
    np.testing.assert_allclose(chunk, sample(module, observation).numpy(), rtol=0, atol=1e-5)


def test_noise_on_an_instruction_in_training_leaves_the_task_as_it_is():
    module = make_module()
    seen = inputs([0, 1, 2])
    clean = seen[INSTRUCTION]
    noisy = {**seen, INSTRUCTION: clean.roll(1, 0), CLEAN_INSTRUCTION: clean}
    count = len(TASKS)
    assert torch.equal(module.encode(noisy)[:, -count:], module.encode(seen)[:, -count:])
    assert not torch.equal(module.encode(noisy)[:, :-count], module.encode(seen)[:, :-count])
