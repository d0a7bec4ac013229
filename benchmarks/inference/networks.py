"""The networks that are timed, untrained (weights do not change the time), each in the forms compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import Arrays, Float32, draw_noise, keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.models.ddim import ddim_update
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.policies.diffusion_unet import Config, DiffusionUNet
from robopolicy.runtime import Bundle, Producer, write_bundle


@dataclass(frozen=True)
class Network:
    """A diffusion U-Net over 16 actions with 2 observations of one state.

    Args:
        config: ours; LeRobot's is built with the same sizes.
        state: dimensions of one observation.
        joints: of the action.
    """

    name: str
    config: Config
    state: int
    joints: int

    @property
    def specs(self) -> PolicySpecs:
        names = tuple(f"joint{i}" for i in range(self.joints))
        action = ActionSpec((ActionPart("joint_position", names),))
        return PolicySpecs(Specs({"state": ArraySpec((self.state,))}, action, 10.0), Horizons(2, 16, 8))

    def build(self) -> TorchPolicy:
        torch.manual_seed(0)
        rng, specs = keyed_rng(0), self.specs
        states, actions = rng.uniform(-1, 1, (64, self.state)), rng.uniform(-1, 1, (64, self.joints))
        normalisers = Normalisers.fit(specs.specs, {"state": states.astype(np.float32)}, actions, "min_max")
        return TorchPolicy(DiffusionUNet(self.config, specs), normalisers)

    def inputs(self, candidates: int) -> tuple[Arrays, Float32]:
        """One observation window and the noise of its candidates, as ``Policy.sample`` takes them."""
        window = keyed_rng(1).uniform(-1, 1, (1, 2, self.state)).astype(np.float32)
        specs = dataclasses.replace(self.specs, noise_shape=self.specs.chunk_shape)
        return {"state": window}, draw_noise(specs, candidates, keyed_rng(2))[None]

    def peer_job(self) -> dict[str, object]:
        """What LeRobot's side is to build."""
        sizes = {"down_dims": self.config.channels, "step_embedding": self.config.step_embedding}
        schedule = self.config.schedule
        steps = {"denoising_steps": schedule.denoising_steps, "training_steps": schedule.training_steps}
        return {"name": self.name, "state": self.state, "action": self.joints, **sizes, **steps}


#: The policy that `robopolicy train` gives for states: lift on an FR3.
DEFAULT = Network("default state policy", Config(), state=35, joints=8)
#: LeRobot's default U-Net behind its default image encoder (a state of 2, 64 features of one camera).
LARGE = Network(
    "LeRobot's default", Config(channels=(512, 1024, 2048), step_embedding=128), state=66, joints=2
)


class PlainForm(DiffusionUNet):
    """The network as it is trained, exported without a thought: what ``torch.onnx.export`` makes of it."""

    def __init__(self, policy: DiffusionUNet) -> None:
        super().__init__(policy.config, policy.policy_specs)
        self.load_state_dict(policy.state_dict())

    def prepare(self, conditioning: Tensor) -> Tensor:
        return conditioning

    def inference_form(self) -> PolicyModule:
        return self

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        predicted = self.denoiser(chunk, parameters[:1], conditioning)
        return ddim_update(chunk, predicted, parameters, prefix, prefix_weight)


def bundle_of(policy: TorchPolicy, module: PolicyModule, folder: Path, form: str = "step") -> Bundle:
    """``module`` with the policy's specs and normalisers, as the robot would load it."""
    return write_bundle(
        folder,
        policy_specs=module.policy_specs,
        normalisers=policy.normalisers,
        graphs=export_graphs(module, form=form),
        steps=tuple(map(tuple, step_rows(module).tolist())) if form == "step" else (),
        policy="diffusion_unet",
        denoising_steps=len(module.steps),
        producer=Producer("benchmark", "", {}, {}),
    )


def parameters(policy: TorchPolicy) -> int:
    """Of the denoiser, as LeRobot counts those of its U-Net."""
    assert isinstance(policy.module, DiffusionUNet)
    return sum(p.numel() for p in policy.module.denoiser.parameters())


def step_flops(policy: TorchPolicy) -> int:
    """Of one denoising step of one candidate, in the trained form: matrix products and convolutions."""
    module = policy.module
    assert isinstance(module, DiffusionUNet)
    specs = module.policy_specs
    features = specs.specs.observation["state"].num_features
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        conditioning = module.encode({"state": torch.zeros(1, 2, features)})
        module.denoiser(torch.zeros(1, *specs.chunk_shape), module.steps[0, :1], conditioning)
    return counter.get_total_flops()
