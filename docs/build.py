"""`make docs`: write the pages made from the code into docs/, then all of docs/ as web pages into build/docs/."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

from markdown_it import MarkdownIt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402 - it lies beside this file, in no package

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} · Tunesmith</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
nav a {{ margin-right: 1.2em; }}
a {{ color: #0b5cad; }}
code {{ font-size: .9em; background: #f3f3f1; padding: .1em .25em; border-radius: 3px; }}
pre {{ background: #f3f3f1; padding: .8em 1em; overflow-x: auto; border-radius: 5px; }}
pre code {{ padding: 0; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; vertical-align: top; padding: .3em .8em .3em 0; border-bottom: 1px solid #ddd; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #ddd; background: #1b1b1b; }} a {{ color: #7db8f0; }} code, pre {{ background: #2a2a2a; }}
th, td {{ border-color: #444; }}
}}
</style>
<nav>{links}</nav>
{body}
</html>
"""


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def title(page: Path) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else page.stem


def write_generated() -> list[Path]:
    """Write the pages made from the code that are not up to date; returns those that changed."""
    changed = []
    for name, text in reference.pages().items():
        page = HERE / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
            changed.append(page)
    return changed


def to_html(page: Path, links: str) -> str:
    """A page as HTML: headings get anchors, links between pages stay links between pages."""
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(page.read_text(encoding="utf-8"))
    for token, following in itertools.pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(following.content))
        for child in token.children or []:
            if child.type == "link_open":
                child.attrSet("href", re.sub(r"^([\w-]+)\.md(#|$)", r"\1.html\2", str(child.attrGet("href"))))
    body = markdown.renderer.render(tokens, markdown.options, {})
    return PAGE.format(title=title(page), links=links, body=body)


def main(target: Path) -> None:
    """Bring the generated pages up to date and write all pages to `target`."""
    for page in write_generated():
        print(f"{page.relative_to(HERE.parent)} brought up to date")
    found = sorted(HERE.glob("*.md"), key=lambda page: (page.stem != "index", page.stem))
    links = " ".join(f'<a href="{page.stem}.html">{title(page)}</a>' for page in found)
    target.mkdir(parents=True, exist_ok=True)
    for page in found:
        (target / f"{page.stem}.html").write_text(to_html(page, links), encoding="utf-8")
    print(f"{len(found)} pages in {target}; begin with {target / 'index.html'}")


if __name__ == "__main__":
    main(HERE.parent / "build" / "docs")
