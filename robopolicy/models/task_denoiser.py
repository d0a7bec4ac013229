"""A transformer denoiser whose conditioning carries, besides tokens, the experts that each row goes to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.models.transformer import TransformerDenoiser


class TaskDenoiser(nn.Module):
    """``TransformerDenoiser`` on conditioning that is one vector per row, the routes last.

    Args:
        network: its feed-forward parts take (rows, tokens, dim) and weights (rows, experts).
        dim: features of a conditioning token.
        routes: (layers, experts) of the weights.
    """

    def __init__(self, network: TransformerDenoiser, *, dim: int, routes: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.dim, self.routes = dim, routes

    def forward(self, chunk: Tensor, level: Tensor, conditioning: Tensor) -> Tensor:
        """(rows, horizon, action_dim), for conditioning (rows, tokens * dim + layers * experts)."""
        return self.network(chunk, level, *self.split(conditioning))

    def look_up(self, conditioning: Tensor) -> Tensor:
        """(rows, tokens * dim + layers * experts) -> (rows, n * dim + layers * experts), for ``denoise``."""
        size = self.routes[0] * self.routes[1]
        found = self.network.look_up(self.split(conditioning)[0])
        return torch.cat([found.flatten(1), conditioning[:, -size:]], dim=1)

    def denoise(self, chunk: Tensor, level: Tensor, found: Tensor) -> Tensor:
        """As ``forward``, from what ``look_up`` found."""
        return self.network.denoise(chunk, self.network.modulation_of_level(level), *self.split(found))

    def split(self, conditioning: Tensor) -> tuple[Tensor, list[tuple[Tensor]]]:
        """Tokens (rows, count, dim), and the weights (rows, experts) of each layer."""
        layers, experts = self.routes
        tokens, weight = conditioning.tensor_split([conditioning.shape[1] - layers * experts], dim=1)
        each = weight.unflatten(1, self.routes).unbind(1)
        # a copy: products of a view round by where its rows lie, which the number of experts decides
        return tokens.contiguous().unflatten(1, (-1, self.dim)), [(part,) for part in each]


class TaskFinder(nn.Module):
    """Which task an embedded instruction means: the one whose prototype is nearest by cosine.

    Args:
        tasks: how many there are; one task needs no instruction.
        instruction_dim: of the embeddings; 0 without language.
    """

    prototypes: Tensor

    def __init__(self, tasks: int, instruction_dim: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.register_buffer("prototypes", torch.zeros(tasks, instruction_dim))

    def forward(self, instruction: Tensor | None, rows: Tensor) -> Tensor:
        """(rows, tasks) one-hot.

        Args:
            instruction: (rows, instruction_dim); not looked at where there is one task.
            rows: anything with that many rows, for the count and the device.
        """
        if instruction is None or self.tasks == 1:
            nearest = torch.zeros_like(rows.flatten(1)[:, 0], dtype=torch.int64)
        else:
            nearest = (instruction.float() @ self.prototypes.T).argmax(-1)
        every = torch.arange(self.tasks, device=rows.device)
        return (nearest[:, None] == every).to(rows.dtype)

    def similarity(self, instruction: Tensor) -> Tensor:
        """(rows, tasks) cosines of embeddings (rows, instruction_dim) and prototypes."""
        return nn.functional.normalize(instruction.float(), dim=-1) @ self.prototypes.T

    def learn(self, task: int, phrasings: Tensor) -> None:
        """Set a task's prototype to the mean direction of its phrasings (count, instruction_dim)."""
        mean = nn.functional.normalize(phrasings.float(), dim=-1).mean(0)
        self.prototypes[task] = nn.functional.normalize(mean, dim=-1)
