"""The documentation holds: it is up to date with the code, examples load, mistakes are told as quoted."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import yaml

from tunesmith.cli import _main, _options
from tunesmith.core import config, rooms
from tunesmith.core.aliases import ALIASES
from tunesmith.core.config import load_project
from tunesmith.core.errors import Mistake
from tunesmith.core.mixture import Mixing, load
from tunesmith.core.packages import cache_home

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"(?:^`([\w.-]+)`\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """`docs/build.py`, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_pages_made_from_the_code_are_up_to_date(build: ModuleType) -> None:
    made = build.reference.pages()
    assert set(made) == {"task-file.md"}
    for name, text in made.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is out of date; type `make docs`"


def test_the_reference_has_every_key_every_alias_and_every_choice() -> None:
    page = (DOCS / "task-file.md").read_text(encoding="utf-8")
    sections = [config.Project, config.Data, config.Budget, Mixing]
    for room in ("tasks", "methods", "objectives"):
        for name in rooms.names(room):
            assert f": {name}\n" in page
            sections.append(rooms.choice(room, name).Config)
    wanted = {key for section in sections for key in section.model_fields}
    wanted |= {".".join(alias) for alias in ALIASES}
    wanted |= {*rooms.names("data"), *rooms.names("metrics")}
    assert {name for name in wanted if f"`{name}`" not in page} == set()


def test_a_key_without_a_description_would_be_seen() -> None:
    page = (DOCS / "task-file.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if len(row) >= 4 and not row[3].strip(" |")] == []


def _yaml_examples() -> list[tuple[str, str]]:
    found = [(page.name, text) for page in PAGES for _, kind, text in FENCE.findall(page.read_text()) if kind == "yaml"]
    return [(name, text) for name, text in found if name != "errors.md"]


@pytest.mark.parametrize(("name", "text"), _yaml_examples())
def test_task_files_shown_are_task_files(name: str, text: str) -> None:
    found = load(yaml.safe_load(text))
    assert (found if isinstance(found, config.Project) else found.shared).model


@pytest.mark.parametrize("file", sorted((DOCS.parent / "examples").glob("*/*.yaml")), ids=lambda file: file.parent.name)
def test_examples_are_task_files(file: Path) -> None:
    found = load(file)
    tasks = [found] if isinstance(found, config.Project) else [*found.tasks.values()]
    assert {task.output_dir for task in tasks} == {f"runs/{file.parent.name}"}
    for source in (task.data.train for task in tasks):
        path = source["path"] if isinstance(source, dict) else source
        assert str(path).startswith("package:"), "an example runs from packages alone"


class Example(NamedTuple):
    """A command of errors.md: what lies in the folder, what is typed, what is said."""

    files: dict[str, str]
    command: str
    said: str


def _mistakes() -> list[Example]:
    """Files stand before a heading's commands; those before the first heading of all are there unless replaced."""
    shared: dict[str, str] = {}
    examples: list[Example] = []
    for part in re.split(r"^##", (DOCS / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        files = dict(shared)
        for name, kind, text in FENCE.findall(part):
            if kind == "console":
                command, _, said = text.removeprefix("$ ").partition("\n")
                examples.append(Example(dict(files), command, said))
            else:
                files[name] = text
        shared = shared or files
    return examples


@pytest.mark.parametrize("example", _mistakes(), ids=lambda example: example.command)
def test_mistakes_are_told_as_the_page_says(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in example.files.items():
        Path(name).write_text(text, encoding="utf-8")
    told = _told(example.command, capsys)
    assert told.replace(str(cache_home()), "~/.cache/tunesmith") == example.said


def _told(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says; one with a task file is followed until its examples are read and its model is found."""
    program, *words = shlex.split(command)
    assert program == "tunesmith"
    if not any(word.endswith(".yaml") for word in words):
        assert _main.main(words) == _main.MISTAKE
        return capsys.readouterr().err
    asked, (_, file, *rest) = _options.everywhere(words)
    left, overrides = _options.split(rest, {})
    assert not left
    with pytest.raises(Mistake) as mistake:
        _begin(file, overrides, offline=asked.offline or None)
    return "".join(f"tunesmith: {line}\n" for line in str(mistake.value).splitlines())


def _begin(file: str, overrides: dict[str, str], offline: bool | None) -> None:
    from tunesmith.models.source import fetch
    from tunesmith.recipes._work import read_examples

    project, _ = read_examples(load_project(file, overrides))
    fetch(project.model, offline=offline)


@every_page
def test_links_lead_somewhere(page: Path, build: ModuleType) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = DOCS / name if name else page
        assert there.exists(), target
        if there.suffix != ".md":
            continue  # a picture
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {build.slug(heading) for heading in headings}, target


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "index.md" and f"]({page.name})" not in index] == []


def test_pages_become_html(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "write_generated", list)
    build.main(tmp_path)
    assert {page.stem for page in tmp_path.iterdir()} == {page.stem for page in PAGES}
    html = (tmp_path / "task-file.html").read_text(encoding="utf-8")
    assert '<h2 id="method">method</h2>' in html
    assert '<a href="errors.html">' in html
    assert '.md"' not in html
    assert "<td><code>learning_rate</code></td>" in html
