from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.recipes._artifacts import find, write_json


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "told.json", {"loss": math.nan, "curve": [{"value": math.inf}, (1.5, -math.inf)], "n": 3})
    told = json.loads((tmp_path / "told.json").read_text(), parse_constant=pytest.fail)
    assert told == {"loss": None, "curve": [{"value": None}, [1.5, None]], "n": 3}


def test_an_artifact_is_found_in_its_run_or_by_itself(tmp_path: Path) -> None:
    inside = tmp_path / "run" / "artifact"
    inside.mkdir(parents=True)
    with pytest.raises(Mistake, match="no artifact there; expected a run's folder or an adapter"):
        find(tmp_path / "run")
    for name in ("prompting.json", "tunesmith.json", "adapter_config.json"):
        (inside / name).write_text("{}")
        assert find(tmp_path / "run") == find(str(inside)) == inside
        (inside / name).unlink()
    with pytest.raises(Mistake, match="nothing there"):
        find(tmp_path / "none")
