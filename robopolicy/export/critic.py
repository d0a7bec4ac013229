"""A critic as two ONNX graphs: its encoder, run once per observation, and the values of one chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.core.errors import SpecError
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.specs import PolicySpecs
from robopolicy.export.onnx import OPSET, to_onnx
from robopolicy.models.critic_module import CriticModule, TorchCritic
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.runtime.bundle.contract import CHUNK, CRITIC_CONDITIONING, VALUE
from robopolicy.runtime.reranking.pairing import check_pairing


def critic_inputs(specs: PolicySpecs) -> tuple[str, ...]:
    """What a critic looks at, in order: observations, and the instruction where it heeds one."""
    return (*specs.specs.observation, *((INSTRUCTION,) if specs.instruction_dim else ()))


def check_critic(policy: TorchPolicy, critic: TorchCritic) -> None:
    """Whether they may go into one bundle.

    Raises:
        SpecError: they do not fit (``runtime.reranking.pairing``), or understand instructions differently.
    """
    check_pairing(
        policy.policy_specs,
        critic.critic_specs,
        normalisers=policy.normalisers,
        critic_normalisers=critic.critic_normalisers,
    )
    if not critic.critic_specs.instruction_dim:
        return
    ours, its = policy.text_encoder, critic.text_encoder
    if ours is None or its is None or ours.digest != its.digest:
        told = [f"{e.name!r} ({e.digest[:12]})" if e is not None else "none" for e in (ours, its)]
        raise SpecError(
            f"a bundle has one text encoder: the policy's is {told[0]}, the critic's {told[1]}; train the "
            "critic with --policy, or with the same --instruction"
        )


class _Encoder(nn.Module):
    """Positional inputs, in the specs' order, the instruction last."""

    def __init__(self, critic: CriticModule) -> None:
        super().__init__()
        self.critic = critic
        self.names = critic_inputs(critic.policy_specs)

    def forward(self, *arrays: Tensor) -> Tensor:
        return self.critic.encode(dict(zip(self.names, arrays)))


class _Value(nn.Module):
    def __init__(self, critic: CriticModule) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, conditioning: Tensor, chunk: Tensor) -> Tensor:
        return self.critic.value(conditioning, chunk)


def export_critic(critic: CriticModule, *, opset: int = OPSET) -> dict[str, bytes]:
    """ONNX graphs "critic_encoder" and "critic", first axes dynamic, as ``runtime.bundle`` asks for them."""
    critic = critic.cpu().eval()
    rows = {0: torch.export.Dim("rows", min=1)}
    specs = critic.policy_specs
    inputs = {
        name: torch.zeros((2, specs.horizons.observation, *spec.shape), dtype=torch.uint8)
        if spec.kind == "image"
        else torch.zeros((2, specs.horizons.observation, spec.num_features))
        for name, spec in specs.specs.observation.items()
    }
    if specs.instruction_dim:
        inputs[INSTRUCTION] = torch.zeros((2, specs.instruction_dim))
    with torch.inference_mode():
        conditioning = critic.encode(inputs).clone()
    encoder = to_onnx(
        _Encoder(critic),
        tuple(inputs.values()),
        (tuple(rows for _ in inputs),),
        list(inputs),
        CRITIC_CONDITIONING,
        opset,
    )
    value = to_onnx(
        _Value(critic),
        (torch.zeros(conditioning.shape), torch.zeros(2, *critic.policy_specs.chunk_shape)),
        (rows, rows),
        [CRITIC_CONDITIONING, CHUNK],
        VALUE,
        opset,
    )
    return {"critic_encoder": encoder.SerializeToString(), "critic": value.SerializeToString()}
