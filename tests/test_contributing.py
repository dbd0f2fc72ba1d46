"""The worked example of CONTRIBUTING is put in place in a copy of the house, and must pass what any method must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = "final_norm and (llama or declares or unknown or refused or fresh or worked or trained or choice or head)"


def test_adding_a_method_is_one_file_and_its_test(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^`((?:src|tests)/\S+\.py)`:\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert sorted(files) == ["src/tunesmith/methods/final_norm.py", "tests/methods/test_final_norm.py"]
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, source in files.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(source, encoding="utf-8")
    where = ["tests/contracts/test_methods.py", "tests/methods/test_final_norm.py", "tests/test_architecture.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-k", CHOSEN, *where],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert passed is not None
    assert int(passed[1]) >= 20
