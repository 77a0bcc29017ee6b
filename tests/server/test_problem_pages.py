"""The `type` of every error leads to a page that explains it."""

from __future__ import annotations

import re
from html import escape

import httpx
import pytest

from server.problem_pages import EXPLANATIONS, codes
from tests.test_docs import commands
from worker.settings import Settings

pytestmark = pytest.mark.anyio
HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


def test_every_code_is_explained_and_nothing_else() -> None:
    assert set(EXPLANATIONS) == codes()


async def test_every_page_says_cause_and_remedy(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/problems")).json()
    assert {problem["code"] for problem in listed} == codes()
    for problem in listed:
        assert (await http.get(problem["type"])).json() == problem
        assert min(len(problem["cause"]), len(problem["remedy"])) > 20
        page = await http.get(problem["type"], headers=HTML)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "<script" not in page.text
        assert escape(problem["cause"].partition("`")[0]) in page.text
        for status in problem["statuses"]:
            assert f"{status} " in page.text
    index = (await http.get("/problems", headers=HTML)).text
    assert set(re.findall(r'href="/problems/(\w+)"', index)) == codes()


async def test_what_a_page_names_exists(http: httpx.AsyncClient) -> None:
    texts = "\n".join(f"{each.cause} {each.remedy}" for each in EXPLANATIONS.values())
    settings = {f"EPOCHD_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"EPOCHD_[A-Z_]+", texts)) <= settings
    paths = (await http.get("/openapi.json")).json()["paths"]
    named = re.findall(r"`(GET|POST) (/v1[^`]*)`", texts)
    assert len(named) > 8
    for method, path in named:
        known = [known for known in paths if re.sub(r"\{\w+\}", "{id}", known) == path]
        assert known, path
        assert any(method.lower() in paths[each] for each in known), (method, path)
    for words in re.findall(r"`(epochd [a-z]+(?: [a-z]+)?)", texts):
        assert any(words == each or words.startswith(f"{each} ") for each in commands()), words


async def test_the_type_of_an_error_leads_there(http: httpx.AsyncClient) -> None:
    problem = (await http.get("/v1/jobs/job_00000000000000000000000000")).json()
    explained = (await http.get(problem["type"])).json()
    assert (explained["code"], explained["statuses"]) == ("job_not_found", [404])
    assert (await http.get("/problems/nothing")).json()["code"] == "not_found"
