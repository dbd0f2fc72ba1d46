"""A .gguf file becomes a folder in transformers' format: weights de-quantized to bfloat16, the tokenizer rebuilt.

De-quantizing at every start would cost ten seconds and could not be trained on; once is enough, so the result is kept.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import Mistake
from tunesmith.models.quiet import quiet
from tunesmith.models.save import write_model

_DIGITS_ALONE = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
"""Vocabularies (`tokenizer.ggml.pre`) whose merges were learned with every digit split off first, as llama.cpp does it.

transformers takes plain GPT-2 splitting for them, which cuts runs of spaces before a digit differently.
"""


_PRE_KEY, _STRING = b"tokenizer.ggml.pre", (8).to_bytes(4, "little")


def convert(file: Path, folder: Path) -> None:
    """Write the model of `file` into `folder` as transformers reads it, weights in bfloat16, chat template included.

    Raises Mistake when the file is no GGUF, is cut short, or holds an architecture transformers cannot read.
    """
    if _magic(file) != b"GGUF":
        raise Mistake(f"{file}: got a file that does not start with GGUF; expected a .gguf model; fetch it again")
    with quiet(), contextlib.redirect_stderr(io.StringIO()), _readable(file):  # its bars come from tqdm itself
        tokenizer = _tokenizer(file)
        model = _model(file)
    write_model(model, tokenizer, folder)


def _magic(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(4)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What transformers and gguf raise on files they cannot take, told as a Mistake with their reason."""
    try:
        yield
    except (ValueError, NotImplementedError, KeyError, IndexError, struct.error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Mistake(
            f"{file}: cannot be read ({reason}); expected a whole .gguf of an architecture that transformers knows; "
            "fetch it again, or use the model's original folder"
        ) from error


def _model(file: Path) -> Any:
    """The model as an ordinary dense one; left packed, as transformers prefers, it could be neither tuned nor saved."""
    from transformers import AutoModelForCausalLM, GgufConfig

    automatic: Any = AutoModelForCausalLM
    model = automatic.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )
    model.config.name_or_path = file.stem
    return model


def _tokenizer(file: Path) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    automatic: Any = AutoTokenizer
    tokenizer = automatic.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    if _pre_tokenizer(file) in _DIGITS_ALONE:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def _pre_tokenizer(file: Path) -> str:
    """The value of `tokenizer.ggml.pre`, or "": a 32-bit 8 for "string", a 64-bit length, the text.

    Looked up in place; gguf's own reader takes seconds to go through the vocabulary.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_PRE_KEY + _STRING) + len(_PRE_KEY + _STRING)
        if start < len(_PRE_KEY + _STRING):
            return ""
        length = int.from_bytes(content[start : start + 8], "little")
        return content[start + 8 : start + 8 + length].decode()
