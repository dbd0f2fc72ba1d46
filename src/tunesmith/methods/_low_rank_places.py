"""LoRA where there is no linear layer: on embeddings, and on stacks of matrices such as the experts of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tunesmith.core.errors import Mistake
from tunesmith.methods._low_rank import Ranks, start
from tunesmith.methods._wrappers import Wrapper


class LoraEmbedding(Wrapper):
    """An embedding whose rows get ``s Aᵀ Bᵀ`` added: `A [r, rows]` zero at the start, `B [width, r]` normal.

    As in PEFT: an embedding that scales its rows (Gemma) scales the update too, and there is no dropout.
    """

    def __init__(self, base: nn.Module, config: Ranks, path: str) -> None:
        super().__init__(base)
        rows, width = self.weight.shape
        rank, device = config.rank(path), self.weight.device
        self.scaling = config.scaling(path)
        self.lora_embedding_A = nn.Parameter(torch.zeros(rank, rows, device=device))
        self.lora_embedding_B = nn.Parameter(torch.randn(width, rank).to(device))

    def learned(self) -> dict[str, Tensor]:
        """A and B."""
        return {"lora_embedding_A": self.lora_embedding_A, "lora_embedding_B": self.lora_embedding_B}

    def merged(self) -> dict[str, Tensor]:
        """The rows plus the update."""
        return {"weight": self.weight.float() + self.scaling * (self.lora_embedding_B @ self.lora_embedding_A).T}

    def forward(self, ids: Tensor) -> Tensor:
        """Map `ids [...]` to `[..., width]`, in the type the base returns."""
        base: Any = self.base
        output: Tensor = base(ids)
        low = functional.embedding(ids, self.lora_embedding_A.T, padding_idx=base.padding_idx)
        delta = self.scaling * functional.linear(low, self.lora_embedding_B) * getattr(base, "embed_scale", 1.0)
        return (output + delta).to(output.dtype)


class LoraExperts(Wrapper):
    """A module whose parameters `names`, stacks of E matrices or single ones, each get ``s B_e A_e`` added.

    As in PEFT's `target_parameters`: `A [E r, in]` and `B [out, r E]` hold those of all experts, and the update is made
    whole before every pass, since a router sends each token to matrices of its own. Raises Mistake for quantized ones.
    """

    def __init__(self, base: nn.Module, names: Sequence[str], config: Any, path: str) -> None:
        super().__init__(base, names)
        self.scalings = {name: config.scaling(f"{path}.{name}") for name in names}
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        for name in names:
            parameter: Tensor = getattr(base, name)
            if not parameter.is_floating_point():
                raise Mistake(f"method.target_parameters: {path}.{name} is quantized; load the base unquantized")
            experts, width_out, width_in = self._shape(parameter)
            rank = config.rank(f"{path}.{name}")
            drawn = torch.cat([start(config.init, rank, width_in) for _ in range(experts)])
            self.lora_A[name] = nn.Parameter(drawn.to(parameter.device))
            self.lora_B[name] = nn.Parameter(torch.zeros(width_out, experts * rank, device=parameter.device))

    def learned(self) -> dict[str, Tensor]:
        """A and B of each parameter; PEFT nests its wrappers, the one of the last parameter outermost."""
        found: dict[str, Tensor] = {}
        for depth, name in enumerate(reversed(self.changes)):
            inner = "base_layer." * depth
            found[f"{inner}lora_A.weight"], found[f"{inner}lora_B.weight"] = self.lora_A[name], self.lora_B[name]
        return found

    def merged(self) -> dict[str, Tensor]:
        """Every parameter plus its update."""
        return {name: getattr(self.base, name).float() + self._delta(name) for name in self.changes}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives, with the updates in its parameters."""
        changed = {name: tensor.to(getattr(self.base, name).dtype) for name, tensor in self.merged().items()}
        return functional_call(self.base, changed, args, kwargs)

    def _delta(self, name: str) -> Tensor:
        parameter: Tensor = getattr(self.base, name)
        experts, width_out, width_in = self._shape(parameter)
        a, b = self.lora_A[name].view(experts, -1, width_in), self.lora_B[name].view(width_out, -1, experts)
        delta = self.scalings[name] * torch.einsum("ore,eri->eoi", b, a)
        own: Tensor = (delta.transpose(1, 2) if self._is_transposed(parameter) else delta).reshape(parameter.shape)
        return own

    def _shape(self, parameter: Tensor) -> tuple[int, int, int]:
        """Matrices in the stack, and the outputs and inputs of each."""
        experts, first, second = (1, *parameter.shape) if parameter.dim() == 2 else parameter.shape
        return (experts, second, first) if self._is_transposed(parameter) else (experts, first, second)

    def _is_transposed(self, parameter: Tensor) -> bool:
        """Whether matrices lie as `[in, out]`; transformers says so of the stacks of a module."""
        return parameter.dim() == 3 and bool(getattr(self.base, "is_transposed", False))
