"""Our kernels compute what torch computes, at both precisions and odd sizes, and nothing depends on them."""

from __future__ import annotations

import os
import platform
import random
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core import machine
from tunesmith.engine import attention, eighth, elementwise, few, native
from tunesmith.engine.packing import Segment
from tunesmith.engine.tiles import Context, spans

pytestmark = pytest.mark.skipif(native.kernels(torch.float32) is None, reason="there is no compiler")
# Products are rounded to 8 bits of fraction in bfloat16; in float32 sums differ by their order alone.
TOLERANCES = {torch.bfloat16: {"rtol": 2**-7, "atol": 2**-7}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}
each_type = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call a function with our kernels out of reach."""

    def call(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(native, "kernels", lambda dtype: None)
            return function(*given, **named)

    return call


def _like(found: Any, expected: Any, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found, expected, **TOLERANCES[dtype], equal_nan=True)


@each_type
@pytest.mark.parametrize("shape", [(1, 8), (5, 33), (300, 130)])
def test_norm(shape: tuple[int, int], dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    x, weight, grad = torch.randn(shape), torch.rand(shape[1]), torch.randn(shape).to(dtype)
    found, scale = elementwise.norm(x, weight, 1e-5, dtype)
    _like((found, scale), by_torch(elementwise.norm, x, weight, 1e-5, dtype), dtype)
    expected = by_torch(elementwise.norm_back, x, weight, scale, grad, True)
    _like(elementwise.norm_back(x, weight, scale, grad, True), expected, torch.float32)
    assert elementwise.norm_back(x, weight, scale, grad, False)[1] is None
    beside = torch.randn(shape)
    found = elementwise.norm_back(x, weight, scale, grad, False, beside)[0]
    _like(found, by_torch(elementwise.norm_back, x, weight, scale, grad, False, beside)[0], torch.float32)
    _like(found, expected[0] + beside, torch.float32)


@each_type
@pytest.mark.parametrize("given", ["", "delta", "bias", "residual", "delta bias residual"])
def test_total(given: str, dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    product, every = torch.randn(70, 300).to(dtype), given.split()
    beside = {"bias": torch.randn(300), "residual": torch.randn(70, 300)}
    delta = torch.randn(70, 300).to(dtype) if "delta" in every else None
    beside = {name: one for name, one in beside.items() if name in every}
    found = elementwise.total(product, delta, **beside)
    assert found.dtype == torch.float32
    _like(found, by_torch(elementwise.total, product, delta, **beside), torch.float32)


@each_type
@pytest.mark.parametrize(("heads", "of", "size"), [(1, 1, 2), (3, 5, 6), (12, 15, 64)])
def test_turn(heads: int, of: int, size: int, dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    joined, angle = torch.randn(90, of * size), torch.rand(90, size // 2).repeat(1, 2) * 6
    for back in (False, True):
        given = joined, angle.cos(), angle.sin(), heads, dtype
        found = elementwise.turn(*given, back=back)
        _like(found, by_torch(elementwise.turn, *given, back=back), torch.float32)
        assert torch.equal(found[:, heads * size :], joined[:, heads * size :])
    forth = elementwise.turn(joined, angle.cos(), angle.sin(), heads, dtype)
    _like(elementwise.turn(forth, angle.cos(), angle.sin(), heads, dtype, back=True), joined, torch.float32)


@each_type
@pytest.mark.parametrize("width", [1, 40, 257])
@pytest.mark.parametrize("with_delta", [False, True])
def test_gated(with_delta: bool, width: int, dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    both, grad = (torch.randn(150, 2 * width) * 8).to(dtype), torch.randn(150, width).to(dtype)
    delta = torch.randn(150, 2 * width).to(dtype) if with_delta else None
    kept, expected_kept = both.clone(), both.clone()
    found, expected = elementwise.gated(kept, delta), by_torch(elementwise.gated, expected_kept, delta)
    _like(found, expected, dtype)
    assert torch.equal(kept, expected_kept)
    assert torch.equal(kept, both) == (delta is None)
    wide = kept.float().requires_grad_()
    gate, up = wide.chunk(2, dim=1)
    (torch.nn.functional.silu(gate) * up).backward(grad.float())
    assert wide.grad is not None
    _like(elementwise.gated_back(kept, grad).float(), wide.grad, dtype)


@each_type
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("rows", [3, 300])
def test_what_adapters_add(rows: int, residual: bool, dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    """Of three layers of odd widths side by side the second has no adapter, and the ranks of the others are odd."""
    widths, ranks = ((0, 333), (420, 700)), ((0, 5), (5, 8))
    low, up = torch.randn(rows, 8).to(dtype), torch.zeros(700, 8).to(dtype)
    for (start, stop), (first, last) in zip(widths, ranks, strict=True):
        up[start:stop, first:last] = torch.randn(stop - start, last - first)
    pieces = torch.tensor([[*columns, *of] for columns, of in zip(widths, ranks, strict=True)])
    delta, twice_rounded = elementwise.Adapted(low, up, pieces), {"rtol": 2**-6, "atol": 2**-4}
    product, beside = torch.randn(rows, 700).to(dtype), torch.randn(rows, 700) if residual else None
    exact = product.float() + low.float() @ up.float().T + (0 if beside is None else beside)
    found = elementwise.total(product, delta, residual=beside)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_torch(elementwise.total, product, delta, residual=beside), exact, **twice_rounded)
    mine, theirs = product.clone(), product.clone()
    opened, expected = elementwise.gated(mine, delta), by_torch(elementwise.gated, theirs, delta)
    gate, other = (exact if beside is None else exact - beside).chunk(2, dim=1)
    _like(mine.float(), torch.cat([gate, other], dim=1), dtype)
    _like(opened.float(), torch.nn.functional.silu(gate) * other, dtype)
    torch.testing.assert_close(theirs, mine, **twice_rounded)
    torch.testing.assert_close(expected, opened, rtol=2**-5, atol=2**-3)


@each_type
@pytest.mark.parametrize("width", [1, 50, 3001])
def test_likelihoods(width: int, dtype: torch.dtype, by_torch: Callable[..., Any]) -> None:
    scores = (torch.randn(9, width) * 5).to(dtype)
    for shares in (False, True):
        mine, theirs = scores.clone(), scores.clone()
        normaliser, likeliest = elementwise.likelihoods(mine, shares)
        expected, place = by_torch(elementwise.likelihoods, theirs, shares)
        _like(normaliser, expected, torch.float32)
        assert torch.equal(scores.gather(1, likeliest[:, None]), scores.gather(1, place[:, None]))
        assert torch.equal(mine, scores) != shares
        _like(mine, theirs, dtype)


def _segments(seed: int) -> tuple[Segment, ...]:
    """Trees of segments: some stand alone, some go on from one before."""
    generator, made, at = random.Random(seed), [], 0
    for place in range(6):
        length = generator.choice((1, 2, 7, 40, 130, 200))
        made.append(Segment(at, length, generator.randrange(-1, place) if place else -1))
        at += length
    return tuple(made)


def _context(segments: tuple[Segment, ...], dtype: torch.dtype) -> Context:
    total = segments[-1].start + segments[-1].length
    return Context(spans(segments), total + -total % 64, dtype, CPU)


def _by_hand(joined: Tensor, heads: int, segments: tuple[Segment, ...], window: int | None) -> Tensor:
    """Each token's attention over its own way through the tree, in plain operations."""
    groups = (joined.shape[1] - heads) // 2
    query, key, value = torch.split(joined, [heads, groups, groups], dim=1)
    rows: list[Tensor] = []
    for segment in segments:
        way: list[int] = []
        above = segment.parent
        while above >= 0:
            way = [*range(segments[above].start, segments[above].start + segments[above].length), *way]
            above = segments[above].parent
        for token in range(segment.start, segment.start + segment.length):
            way.append(token)
            seen = torch.tensor(way[-window:] if window else way)
            keys, values = (side[seen].repeat_interleave(heads // groups, dim=1) for side in (key, value))
            shares = torch.softmax(torch.einsum("hd,khd->hk", query[token], keys) * 0.3, dim=-1)
            rows.append(torch.einsum("hk,khd->hd", shares, values))
    return torch.stack(rows)


@each_type
@pytest.mark.parametrize("window", [None, 11])
@pytest.mark.parametrize(("heads", "groups", "size"), [(1, 1, 4), (6, 2, 24), (60, 1, 8)])
def test_attention(heads: int, groups: int, size: int, window: int | None, dtype: torch.dtype) -> None:
    segments = _segments(heads)
    packed = _context(segments, dtype)
    joined = torch.randn(packed.total, heads + 2 * groups, size, requires_grad=True)
    found = attention.attention(joined, heads, packed, layer=0, scale=0.3, window=window)
    covered = segments[-1].start + segments[-1].length
    expected = _by_hand(joined, heads, segments, window)
    _like(found[:covered].float(), expected, dtype)
    assert not found[covered:].any()
    upper = torch.randn(found.shape).to(dtype)
    (given,) = torch.autograd.grad(found, joined, upper)
    (wanted,) = torch.autograd.grad(expected, joined, upper[:covered].float())
    if dtype == torch.float32:
        _like(given, wanted, dtype)
    else:  # sums of products of rounded numbers: a few are off by more than a rounding, all together by less
        assert (given - wanted).norm() < 2**-8 * wanted.norm()
        torch.testing.assert_close(given, wanted, rtol=2**-6, atol=2**-4)


@each_type
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (64, 8), (103, 13), (576, 50), (1536, 33)])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 9, 13, 32, 100])
def test_a_product_of_few_rows(rows: int, inner: int, outer: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(rows, inner).to(dtype), torch.randn(outer, inner).to(dtype)
    expected = x.float() @ weight.float().T
    tolerance = {"rtol": 2**-8, "atol": 2**-8} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(few.multiply(x, weight).float(), expected, **tolerance)
    steps, scales = eighth.rounded(weight, dtype)
    expected = x.float() @ (steps.float() * scales.float().unsqueeze(1)).T
    torch.testing.assert_close(eighth.multiply(x, steps, scales).float(), expected, **tolerance)


def test_attention_over_more_keys_than_a_tile_keeps(by_torch: Callable[..., Any]) -> None:
    packed = _context((Segment(0, 700), Segment(700, 300, 0)), torch.float32)
    joined = torch.randn(packed.total, 4, 16, requires_grad=True)
    upper = torch.randn(packed.total, 2, 16)

    def both() -> tuple[Tensor, Tensor]:
        out = attention.attention(joined, 2, packed, layer=0, scale=0.25)
        return out.detach()[:1000], torch.autograd.grad(out[:1000], joined, upper[:1000])[0]

    _like(both(), by_torch(both), torch.float32)


def test_the_same_threads_give_the_same_bits() -> None:
    packed = _context(_segments(3), torch.bfloat16)
    joined = torch.randn(packed.total, 6, 16, requires_grad=True)
    upper, before = torch.randn(packed.total, 2, 16).bfloat16(), torch.get_num_threads()

    def learned(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        out = attention.attention(joined, 2, packed, layer=0, scale=0.25)
        return torch.autograd.grad(out, joined, upper)[0]

    try:
        alone, together = learned(1), learned(3)
        assert torch.equal(together, learned(3))
    finally:
        torch.set_num_threads(before)
    _like(alone, together, torch.float32)


def test_blocks_are_for_a_processors_cache() -> None:
    elsewhere = list(elementwise._blocks(torch.empty(300, 4, device="meta")))
    assert elsewhere == [slice(0, 300)]
    assert list(elementwise._blocks(torch.empty(300, 4))) == [slice(0, 128), slice(128, 256), slice(256, 300)]


def test_a_tensor_in_pieces_is_refused() -> None:
    with pytest.raises(ValueError, match=r"with strides \(1, 4\); expected a contiguous one"):
        elementwise.norm(torch.randn(8, 4).T, torch.ones(8), 1e-5, torch.float32)


def test_what_is_not_a_number_stays_so() -> None:
    """The loop's guard looks for it in the loss: no step may turn it into a number."""
    nan = torch.full((1, 8), torch.nan)
    assert elementwise.norm(nan, torch.ones(8), 1e-5, torch.bfloat16)[0].isnan().all()
    assert elementwise.gated(nan.bfloat16()).isnan().all()
    assert elementwise.total(nan.bfloat16()).isnan().all()
    packed = _context((Segment(0, 40),), torch.bfloat16)
    joined = torch.randn(packed.total, 3, 8)
    joined[10, 0] = torch.nan
    out = attention.attention(joined, 1, packed, layer=0, scale=0.3)
    assert out[10].isnan().all()
    assert not out[11:].isnan().any()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache that holds nothing, and no memory of what was found before."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    native.kernels.cache_clear()
    yield tmp_path
    native.kernels.cache_clear()


def _with_compiler(monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    found = replace(machine.inspect(), compiler=compiler)
    monkeypatch.setattr(native, "inspect", lambda: found)


def test_without_a_compiler_torch_does_it(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_compiler(monkeypatch, "")
    assert native.kernels(torch.bfloat16) is None
    both = torch.randn(3, 8).bfloat16()
    gate, up = both.float().chunk(2, dim=1)
    _like(elementwise.gated(both).float(), torch.nn.functional.silu(gate) * up, torch.bfloat16)


def test_a_compiler_that_fails_is_told_and_leaves_nothing_behind(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = fresh / "cc"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo 1 && exit\nexit 1\n", encoding="ascii")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    _with_compiler(monkeypatch, str(broken))
    assert native.kernels(torch.bfloat16) is None
    assert "cc could not make them" in capsys.readouterr().err
    assert not list((fresh / "kernels").glob("[!.]*"))


def test_compiled_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.kernels(torch.bfloat16) is not None
    (kept,) = (fresh / "kernels").glob("*/kernels.so")
    native.kernels.cache_clear()
    run = subprocess.run

    def only_asked(command: list[str], **how: Any) -> Any:
        assert command[1:] == ["--version"]
        return run(command, **how)

    monkeypatch.setattr(subprocess, "run", only_asked)
    assert native.kernels(torch.bfloat16) is not None
    assert list((fresh / "kernels").glob("*/kernels.so")) == [kept]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_narrower_registers_give_the_same(
    processor: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, by_torch: Callable[..., Any]
) -> None:
    if processor == "x86-64-v4" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor has no AVX-512")
    flags = [f"-march={processor}" if flag == "-march=native" else flag for flag in native.FLAGS]
    monkeypatch.setattr(native, "FLAGS", flags)
    for dtype in TOLERANCES:
        assert native.kernels(dtype) is not None
        test_attention(6, 2, 24, None, dtype)
        test_attention(6, 2, 24, 11, dtype)
        test_a_product_of_few_rows(13, 103, 13, dtype)
        test_what_adapters_add(300, True, dtype, by_torch)


def test_somebody_elses_library_is_not_loaded(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.kernels(torch.bfloat16) is not None
    native.kernels.cache_clear()
    own = os.getuid()
    told = iter((own, own + 1))  # asked first for the name of the folder, then for whose it is
    monkeypatch.setattr(os, "getuid", lambda: next(told))
    assert native.kernels(torch.bfloat16) is None


def test_one_pool_of_threads(fresh: Path) -> None:
    """Two OpenMP libraries in one process would have two pools, that wait for one another: ours brings none along."""
    before = _pools()  # PyTorch's, and scikit-learn's own where a test of another file has imported it
    assert native.kernels(torch.bfloat16) is not None
    (kept,) = (fresh / "kernels").glob("*/kernels.so")
    told = subprocess.run(["ldd", str(kept)], capture_output=True, text=True, check=True).stdout
    assert "gomp" not in told
    assert _pools() == before


def _pools() -> set[str]:
    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.exists() else []
    return {line.split()[-1] for line in lines if "libgomp" in line}
