"""The Markdown pages that users read, taken apart: sections, blocks of code, tables."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "agents/README.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    place: str
    """Page and line."""
    language: str
    """What stands behind the fence: ``sh`` is run as it is, ``bash`` takes a cluster, ``text`` other programs."""
    text: str

    @property
    def commands(self) -> Sequence[str]:
        """Its lines that call fersweep, also within another program."""
        found = (re.search(r"(?:^|-- )(fersweep .*)", line) for line in self.text.splitlines())
        return [match[1] for match in found if match]


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages, page by page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 2
                found.append(Block(f"{page.relative_to(REPOSITORY)}:{line}", match[1], match[2]))
    return found


def section(title: str) -> str:
    """The text below the heading that begins so, with all that is below it in turn."""
    (found,) = re.finditer(rf"^(#+) {re.escape(title)}.*\n", TEXT, flags=re.MULTILINE)
    end = re.compile(rf"^#{{1,{len(found[1])}}} ", flags=re.MULTILINE).search(TEXT, found.end())
    return TEXT[found.end() : end.start() if end else None]


def code(text: str, language: str) -> list[str]:
    """The blocks of a language in a piece of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def rows(first: str) -> list[list[str]]:
    """The rows, as cells, of every table whose first column has this heading."""
    tables = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE)
    lines = "".join(tables).splitlines()
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
