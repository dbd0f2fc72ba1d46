"""The model cut crosswise: the blocks that repeat, from the input to the output, and what lies under and over them."""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.core.errors import Mistake


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The model's repeated layers by their path, the one nearest to the input first; an encoder's before a decoder's.

    Raises Mistake for a model that is not made of such layers.
    """
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    lengths = {getattr(text, key, None) for key in ("num_hidden_layers", "num_layers", "num_decoder_layers")}
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{block}.") for block in found)
        if isinstance(module, nn.ModuleList) and len(module) in lengths and not inside:
            found |= {f"{path}.{number}": block for number, block in enumerate(module)}
    if not found:
        raise Mistake(f"method: {type(model).__name__} is not made of repeated layers; expected a transformer")
    return found


def parameters_by_block(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Names of all parameters as inputs pass them: ``("", embeddings)``, each block by its path, ``("", norm, head)``.

    A tied head is its embedding, and counts there. What stands between an encoder's blocks and a decoder's counts to
    the block before it.
    """
    places = list(blocks(model))
    parts: list[tuple[str, list[str]]] = [("", []), *((place, []) for place in places), ("", [])]
    where = 0
    for name, _ in model.named_parameters():
        inside = next((number for number, place in enumerate(places, 1) if name.startswith(f"{place}.")), None)
        where = inside or (len(parts) - 1 if where == len(places) else where)
        parts[where][1].append(name)
    return parts
