from __future__ import annotations

import pytest

from tunesmith.cli._options import Everywhere, everywhere, split

OWN = {"--minutes": False, "--resume": True, "-h": True}


@pytest.mark.parametrize(
    ("line", "rest", "overrides"),
    [
        ("task.yaml --seed 3", "task.yaml", {"seed": "3"}),
        ("--seed 3 task.yaml", "task.yaml", {"seed": "3"}),
        (
            "task.yaml --method.r=8 --method.target-modules q_proj",
            "task.yaml",
            {"method.r": "8", "method.target_modules": "q_proj"},
        ),
        ("task.yaml --minutes 5 --resume --seed 1", "task.yaml --minutes 5 --resume", {"seed": "1"}),
        ("--resume task.yaml --minutes=5", "--resume task.yaml --minutes=5", {}),
        ("task.yaml --target -1.5 --packing --seed 2", "task.yaml", {"target": "-1.5", "packing": "true", "seed": "2"}),
        ("task.yaml --packing", "task.yaml", {"packing": "true"}),
        ("task.yaml --task.instruction a=b", "task.yaml", {"task.instruction": "a=b"}),
        ("task.yaml --task.instruction=", "task.yaml", {"task.instruction": ""}),
        ("task.yaml --seed 1 --seed 2", "task.yaml", {"seed": "2"}),
        ("-h", "-h", {}),
        ("task.yaml -- --seed 3", "task.yaml -- --seed 3", {}),
        ("task.yaml --minutes", "task.yaml --minutes", {}),
    ],
)
def test_a_line_is_divided(line: str, rest: str, overrides: dict[str, str]) -> None:
    assert split(line.split(" "), OWN) == (rest.split(" "), overrides)


def test_the_options_of_every_command_stand_anywhere_but_in_text() -> None:
    asked, words = everywhere(["--json", "generate", "--artifact", "x", "--quiet", "--", "--offline"])
    assert asked == Everywhere(json=True, quiet=True, offline=False)
    assert words == ["generate", "--artifact", "x", "--", "--offline"]
