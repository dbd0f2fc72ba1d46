from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.cli._main import main


def test_merge_says_what_it_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(tmp_path / "nowhere")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing there; expected a run's folder or an adapter" in told
    assert main(["merge", "--help"]) == 0
    assert "tunesmith merge runs/movie-reviews" in capsys.readouterr().out
