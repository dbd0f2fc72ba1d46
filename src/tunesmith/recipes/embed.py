"""Embed: a vector for each text, near to those of texts that mean the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Pooling, Precision, Project
from tunesmith.core.errors import Mistake
from tunesmith.core.machine import PeakMemory
from tunesmith.core.progress import say, track
from tunesmith.models.sentences import Sentences, sentences
from tunesmith.recipes import _vectors
from tunesmith.recipes._body import Body, open_body

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.core.records import Encoded

COMPARED = 12
"""Up to so many texts are compared with each other."""


def embed(
    texts: str | Sequence[str],
    *,
    model: str | None = None,
    artifact: str | Path | None = None,
    project: Project | None = None,
    task_name: str | None = None,
    pooling: Pooling | None = None,
    layer: int = -1,
    normalize: bool = True,
    precision: Precision | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """The vectors of texts, `[texts, hidden]` float32 numpy under `vectors`, in the texts' order, and what they cost.

    The states after `layer` (from 1, or back from -1, the last after its norm) are pooled over a text's tokens: as the
    model's own sentence-transformers files say, else the mean, of a decoder the last; then brought to length 1 with
    `normalize` (Sentence-BERT, Reimers and Gurevych 2019, arXiv 1908.10084). `artifact` is a tuned model: the body with
    its adapter, the head left out. A text longer than the model's window is cut, and `cut` says how many were. `output`
    writes the vectors by its suffix: .npy, .safetensors or .jsonl.

    Raises Mistake for an empty text, a layer that is not there, and an output that cannot be written.
    """
    texts = _checked(texts)
    if output is not None:
        _vectors.check_output(Path(output))
    with PeakMemory() as peak:
        body = open_body(model, artifact, project, task_name, precision)
        loaded, prepared = body.model.loaded, body.model.prepared
        asked = sentences(loaded.folder)
        pooling = pooling or asked.pooling(loaded.name) or ("last" if prepared.kind == "decoder" else "mean")
        begun = time.monotonic()
        rows, window, cut = _rows(body, texts, asked)
        vectors = _computed(body, rows, pooling, layer, normalize)
        seconds = time.monotonic() - begun
    told = {
        "model": loaded.name,
        "identity": loaded.identity,
        "artifact": None if artifact is None else str(artifact),
        "method": body.method,
        "texts": len(texts),
        "dimension": vectors.shape[1],
        "pooling": pooling,
        "layer": layer,
        "normalize": normalize,
        "precision": str(prepared.dtype).removeprefix("torch."),
        "tokens": sum(len(row.ids) for row in rows),
        "max_length": window,
        "cut": cut,
        "seconds": seconds,
        "seconds_per_text": seconds / len(texts),
        "peak_memory_mb": peak.mb,
    }
    if output is not None:
        _vectors.write(Path(output), texts, vectors, told)
    compared = _vectors.cosines(vectors) if 1 < len(texts) <= COMPARED else None
    return {
        **told,
        "output": None if output is None else str(output),
        "cosine_similarities": compared,
        "vectors": vectors.numpy(),
    }


def _checked(texts: str | Sequence[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise Mistake('embed: got no text; expected one or more, e.g. tunesmith embed "one text" "another"')
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise Mistake(f"embed: text {number} of {len(texts)} is empty; expected words; leave it out")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Mistake(f"embed: text {number} of {len(texts)} is not UTF-8; expected it; convert it first")
    return texts


def _rows(body: Body, texts: Sequence[str], asked: Sentences) -> tuple[list[Encoded], int, int]:
    """The texts as tokens, how many of these the model sees at most, and how many texts were cut."""
    from tunesmith.models.load import context_length
    from tunesmith.prompts.documents import wholes

    loaded = body.model.loaded
    if asked.left_out:
        say(f"model {loaded.name}: its files put {', '.join(asked.left_out)} behind the pooling; left out here")
    windows = (loaded.tokenizer.model_max_length, context_length(loaded.model.config), asked.max_length)
    window = min(length for length in windows if length) - len(body.prefix)
    rows, cut = wholes(loaded.tokenizer, texts, max_length=window)
    for number, row in enumerate(rows, start=1):
        if not row.ids:
            raise Mistake(f"embed: text {number} of {len(rows)} has no tokens; expected words; leave it out")
    return rows, window, cut


def _computed(body: Body, rows: Sequence[Encoded], pooling: Pooling, layer: int, normalize: bool) -> Tensor:
    """Raises Mistake where a vector is not finite: it would be near to nothing, and is never handed out."""
    import torch

    from tunesmith.engine.pooling import embeddings

    with track(len(rows), "texts", "embedding") as bar:
        found = embeddings(
            body.model.prepared, rows, pooling=pooling, layer=layer, prefix=body.prefix, on_rows=bar.advance
        )
    if not torch.isfinite(found).all():
        raise Mistake("embed: got numbers that are not finite; expected finite ones; type --precision float32")
    return torch.nn.functional.normalize(found, dim=1) if normalize else found
