"""docs/index.md leads to every page."""

import re
from typing import Final

from tests.support.documents import Document
from tools.documents import ROOT

INDEX: Final = Document("docs/index.md")


def test_every_page_is_in_the_table_and_in_the_menu() -> None:
    """Once each."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    questions = re.findall(r"\]\(([\w-]+)\.md\)", INDEX.section("What do you want to do?"))
    menu = [line for block in INDEX.blocks() for line in block.text.split("\n\n")[-1].split()]
    assert sorted(questions) == sorted(menu) == sorted(pages)
