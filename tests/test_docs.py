from __future__ import annotations

from docs import techniques


def test_the_page_of_techniques_is_what_the_code_says() -> None:
    assert techniques.TARGET.read_text() == techniques.page(), "run: make docs"


def test_every_technique_has_words_of_its_own() -> None:
    sections = techniques.page().split("\n### ")[1:]
    assert len(sections) > 80
    assert [section for section in sections if not section.split("\n")[2]] == []
