"""The page in a real Chromium: by keyboard alone, in light and dark, on a phone, with hostile text from the model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from api.app import Service
from api.listen import address, bound
from api.tokens import Tokens
from configs.schema import Api
from support.browser import Page, opened, program
from support.predictor import ANSWER, TOKEN, ScriptedPredictor

BROWSER = program()
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"), pytest.mark.timeout(600)]


@asynccontextmanager
async def page_of(folder: Path) -> AsyncIterator[tuple[Page, str]]:
    section = Api(port=0)
    with bound(section) as listener:
        server = uvicorn.Server(uvicorn.Config(Service(ScriptedPredictor(), section, Tokens([TOKEN], "test")).asgi,
                                               log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with opened(address(section, listener), folder, str(BROWSER)) as page:
                yield page, address(section, listener)
        finally:
            server.should_exit = True
            await serving


async def focus(page: Page) -> str:
    return str(await page.run("document.activeElement.id || document.activeElement.textContent"))


async def tab_to(page: Page, wanted: str) -> None:
    for _ in range(12):
        if wanted in await focus(page):
            return
        await page.press("Tab")
    raise AssertionError(f"{wanted} is not reached by Tab")


@pytest.mark.slow
async def test_a_person_with_a_keyboard_gets_a_prediction_and_sees_the_faults(tmp_path: Path) -> None:
    pictures = Path(os.environ.get("EAG_RL_PICTURES", tmp_path))
    async with page_of(tmp_path / "profile") as (page, home):
        await tab_to(page, "token")
        await page.type(TOKEN)
        await page.press("Enter")
        await page.until("document.getElementById('pick').options.length === 2")
        await page.until("document.activeElement.id === 'pick'")
        assert await page.run("document.querySelectorAll('.trend svg').length") == 3
        assert "rl-0123456789ab" in await page.run("document.getElementById('model').textContent")
        await page.press("ArrowDown")
        await page.until("document.getElementById('patient').value.includes('\"age\": 71')")
        await tab_to(page, "predict")
        await page.press("Enter")
        await page.until("!document.getElementById('result').hidden")
        assert await focus(page) == "result"
        text = await page.run("document.getElementById('result').textContent")
        for words in ("62 %", "40 % to 80 %", "55 %", "pH (30 % of its attention)", "champion-0123456789ab"):
            assert words in text, words
        # The model's words are text: no tag in them is one, and every mention is marked by kind.
        assert await page.run("document.getElementById('reasoning').textContent") == ANSWER["reasoning"]
        assert await page.run("[...document.querySelectorAll('#reasoning mark')].map(m => m.className).join()") == (
            "expert,other")
        assert await page.run("document.querySelectorAll('#reasoning script').length") == 0
        assert await page.run("document.title") == "EAG-RL: one patient"
        assert await page.run("document.querySelectorAll('.trend.named').length") == 2
        for name, width, dark in (("light", 1100, False), ("dark", 1100, True), ("phone", 400, False),
                                  ("phone_dark", 400, True)):
            await page.look(pictures / f"page_{name}.png", width, 900, dark)
            assert await page.run("document.documentElement.scrollWidth <= window.innerWidth"), name
        assert page.complaints == []
        assert [one for one in page.requests if not one.startswith(home)] == []

        await page.run("document.getElementById('patient').value = JSON.stringify({age: 200, sex: 'male', visits: "
                       "[{day: 0, values: {pH: 7.4}}]})")
        await tab_to(page, "predict")
        await page.press("Enter")
        await page.until("document.querySelectorAll('#problems li').length === 1")
        told = await page.run("document.getElementById('problems').textContent")
        assert "age = 200" in told and "Rule: a number from 0 to 120 years" in told and "Next step" in told
        assert await page.run("document.getElementById('result').hidden")


async def test_a_wrong_token_is_told_and_nothing_of_a_patient_is_shown(tmp_path: Path) -> None:
    async with page_of(tmp_path / "profile") as (page, _):
        await page.run("document.getElementById('token').value = 'wrong'")
        await page.run("document.getElementById('door').requestSubmit()")
        await page.until("document.querySelectorAll('#problems li').length === 1")
        assert "token is missing or wrong" in await page.run("document.getElementById('problems').textContent")
        assert await page.run("document.getElementById('predict').disabled")


async def test_every_control_has_a_name_and_colours_have_contrast(tmp_path: Path) -> None:
    async with page_of(tmp_path / "profile") as (page, _):
        unnamed = await page.run("""[...document.querySelectorAll('input, select, textarea, button')].filter(one =>
            !(one.labels && one.labels.length) && !one.textContent.trim()).map(one => one.id).join()""")
        assert unnamed == ""
        for dark in (False, True):
            await page.look(tmp_path / "look.png", 800, 600, dark)
            assert await page.run(_CONTRAST) >= 4.5


# The smallest contrast (WCAG 2) of text colours on the card.
_CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const [r, g, b] = style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map(part => parseInt(part, 16) / 255)
      .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const against = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return Math.min(...['--ink', '--quiet', '--bad'].map(name => against(name, '--card')), against('--ink', '--expert'),
    against('--ink', '--other'), against('--on-accent', '--accent'), against('--ink', '--back'));
})()"""
