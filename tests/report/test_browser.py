"""The page in headless Chromium: charts draw, the keyboard reaches them, nothing is fetched, nothing complains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.reporting import collect, write

from .browser import CHROMIUM, DRIVER, Browser, browser
from .documents import document, entry, full, importance, search
from .test_page import hostile_document

MISSING = "chromium and chromedriver are not installed: THE REPORT WAS NOT OPENED IN A BROWSER"
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
ENTER, TAB, RIGHT, ESCAPE = "\ue007", "\ue004", "\ue014", "\ue00c"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as found:
        found.cdp("Emulation.setFocusEmulationEnabled", enabled=True)
        found.log("performance")
        yield found


def opened(chrome: Browser, tmp_path: Path, content: object, **beside: object) -> Path:
    """Write, open, and check what must hold for every page. ``beside``: searches by name."""
    (tmp_path / "r.json").write_text(json.dumps(content))
    page = tmp_path / "report.html"
    for name, found in beside.items():
        (tmp_path / f"{name}.search.json").write_text(json.dumps(found))
    write(collect([tmp_path / "r.json", *(tmp_path / f"{name}.search.json" for name in beside)]), page)
    chrome.size(1280, 900)
    chrome.requests()
    chrome.open(page)
    asked = [r for r in chrome.requests() if not r.startswith(("chrome:", "data:"))]
    assert asked == [page.resolve().as_uri()]
    assert chrome.log("browser") == []
    return page


def count(chrome: Browser, selector: str) -> int:
    return int(chrome.js("return document.querySelectorAll(arguments[0]).length", selector))


def text(chrome: Browser, selector: str) -> str:
    return str(chrome.js("const n = document.querySelector(arguments[0]); return n ? n.textContent : ''", selector))


def test_the_charts_draw_their_data(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    assert count(chrome, '[data-chart="size"] .point') == 4
    assert count(chrome, '[data-chart="speed"] .whisker') == 4
    assert count(chrome, '[data-chart="importance"] path.line') == 3
    assert count(chrome, '[data-chart="importance"] .mark-line') == 3
    assert count(chrome, '[data-chart="healing"] path.line') == 2
    centres = chrome.js(
        "return [...document.querySelectorAll('[data-chart=\"size\"] .point')].map((n) => {"
        "const b = n.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )
    by_size, by_loss = sorted(range(4), key=lambda i: centres[i][0]), sorted(range(4), key=lambda i: -centres[i][1])
    assert by_size == [3, 1, 2, 0], "left to right: healed, large, worse, parent"
    assert by_loss == [0, 1, 3, 2], "lowest first: parent, large, healed, worse"
    fronts = chrome.js("return [...document.querySelectorAll('[data-chart=\"size\"] .point')].map((n) => n.ariaLabel)")
    assert ["Pareto" in said for said in fronts] == [True, True, False, True]


def test_held_out_loss_is_drawn_beside_the_training_loss(chrome: Browser, tmp_path: Path) -> None:
    found = full()
    for line in found["models"][-1]["healing"]:
        line |= {"ce": 2.0} | ({"held_out": 3 - line["step"] / 100} if line["step"] % 20 == 0 else {})
    opened(chrome, tmp_path, found)
    assert count(chrome, '[data-chart="healing"] path.line') == 3, "training text, its running mean, held-out text"
    assert "held-out text" in text(chrome, '[data-chart="healing"]')


def test_a_search_shows_its_candidates_by_stage(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full(), plan=search())
    chart = '[data-chart="search-0"]'
    assert count(chrome, f"{chart} .candidate") == 2, "the last stage is shown first"
    said = chrome.js(f"return [...document.querySelectorAll('{chart} .candidate')].map((n) => n.ariaLabel)")
    assert any("ffn=96" in s and "the winner" in s and "KL 0.1000" in s for s in said)
    chrome.js(
        f"const s = document.querySelector('{chart} select'); s.value = 'zero-shot';"
        "s.dispatchEvent(new Event('change'));"
    )
    assert count(chrome, f"{chart} .candidate") == 3, "the candidate that diverged has no place"
    said = chrome.js(f"return [...document.querySelectorAll('{chart} .candidate')].map((n) => n.ariaLabel)")
    assert sorted("Pareto" in s for s in said) == [False, True, True]
    chrome.js(f"document.querySelector('{chart} .candidate[tabindex]').focus()")
    assert "ffn=96" in text(chrome, "#tip")
    assert "-1.00" in text(chrome, "#search table")
    opened(chrome, tmp_path, full())
    assert count(chrome, "#search") == 0


def test_hover_focus_and_escape(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    assert chrome.js("return document.getElementById('tip').hidden")
    chrome.hover('[data-chart="size"] .point')
    assert "parent" in text(chrome, "#tip") and "1 M" in text(chrome, "#tip")
    chrome.js("document.querySelectorAll('[data-chart=\"speed\"] .point')[3].focus()")
    assert "healed" in text(chrome, "#tip") and "2.00×" in text(chrome, "#tip")
    chrome.keys(ESCAPE)
    assert chrome.js("return document.getElementById('tip').hidden")
    chrome.js("document.querySelector('[data-chart=\"healing\"] svg').focus()")
    chrome.keys(RIGHT, RIGHT)
    assert "8.19 k" in text(chrome, "#tip") and "2" in text(chrome, "#tip")


def test_another_quantity_can_be_chosen(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    chrome.js(
        "const s = document.querySelector('[data-chart=\"size\"] select'); s.value = 'kl';"
        "s.dispatchEvent(new Event('change'));"
    )
    said = chrome.js("return document.querySelectorAll('[data-chart=\"size\"] .point')[3].ariaLabel")
    assert "KL to the parent, nats: 0.500" in said
    chrome.js("document.querySelector('[data-chart=\"importance\"] .legend button').click()")
    assert count(chrome, '[data-chart="importance"] path.line') == 2


def test_the_audit_is_searched_by_single_names(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    visible = "[...document.querySelectorAll('details.audit[open] tr[data-pattern]')].filter((r) => !r.hidden)"
    assert chrome.js(f"return {visible}.length") == 5
    for wanted, rows in (("layers.2.norm", 1), ("layers.3.norm", 0), ("LEFT BEHIND", 1), ("no layout", 1), ("", 5)):
        chrome.js(
            "const i = document.querySelector('details.audit[open] input'); i.value = arguments[0];"
            "i.dispatchEvent(new Event('input'));",
            wanted,
        )
        assert chrome.js(f"return {visible}.length") == rows, wanted


def test_the_keyboard_reaches_everything(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    seen = set()
    for _ in range(60):
        chrome.keys(TAB)
        seen.add(chrome.js("const n = document.activeElement, c = n.closest('[data-chart]');"
                           "return (c ? c.dataset.chart + ' ' : '') + n.tagName.toLowerCase()"))  # fmt: skip
    charts = {"size g", "size select", "speed g", "importance svg", "importance button", "healing svg"}
    assert charts | {"summary", "input", "button"} <= seen


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_is_wider_than_its_screen(chrome: Browser, tmp_path: Path, width: int) -> None:
    opened(chrome, tmp_path, hostile_document())
    chrome.size(width, 844, phone=width < 800)
    assert chrome.js("return document.documentElement.scrollWidth") <= width
    for chart in ("size", "speed"):
        box = chrome.js(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.left, b.right]",
            f'[data-chart="{chart}"] svg',
        )
        assert 0 <= box[0] < box[1] <= width


def test_light_and_dark_are_readable(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, full())
    for scheme, button in (("light", "Dark"), ("dark", "Light")):
        chrome.scheme(scheme)
        opened(chrome, tmp_path, full())
        assert text(chrome, "#theme") == button
        for selector in ("h1", ".hint", "td small", "#tip", ".tag", "[data-chart] text"):
            assert contrast(chrome, selector) >= 4.5, (scheme, selector)
    chrome.js("document.getElementById('theme').click()")
    assert text(chrome, "#theme") == "Dark"
    chrome.scheme("light")


def contrast(chrome: Browser, selector: str) -> float:
    """WCAG contrast of an element's text with the nearest background behind it."""
    ratio = chrome.js(
        """
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgb = (c) => { canvas.fillStyle = '#fff'; canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255); };
        const lum = (c) => rgb(c).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const node = document.querySelector(arguments[0]), style = getComputedStyle(node);
        let behind = node; const clear = (n) => getComputedStyle(n).backgroundColor === 'rgba(0, 0, 0, 0)';
        while (behind.parentElement && clear(behind)) behind = behind.parentElement;
        const ink = node instanceof SVGElement ? style.fill : style.color;
        const [a, b] = [lum(ink), lum(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
        """,
        selector,
    )
    return float(ratio)


def test_hostile_names_do_not_run(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, hostile_document())
    assert chrome.js("return window.pwned === undefined")
    assert count(chrome, "img") == 0 and count(chrome, "script") == 2
    assert "<script>window.pwned=1</script>" in text(chrome, "h1")
    chrome.js("document.querySelectorAll('[data-chart=\"size\"] .point')[1].focus()")
    assert "<script>window.pwned=1</script>" in text(chrome, "#tip")
    assert chrome.js("return window.pwned === undefined")


def test_missing_pieces_leave_words(chrome: Browser, tmp_path: Path) -> None:
    bare = document(entry("a", 0.5, 3.0, role="model", speed=False, agreement=None, samples=[]), speed=False)
    opened(chrome, tmp_path, bare)
    assert "Speed was not measured" in text(chrome, '[data-chart="speed"]')
    assert "No importance" in text(chrome, '[data-chart="importance"]')
    assert "No healing" in text(chrome, '[data-chart="healing"]')
    assert count(chrome, '[data-chart="size"] .point') == 1


def test_many_layers_are_drawn_as_a_ramp(chrome: Browser, tmp_path: Path) -> None:
    opened(chrome, tmp_path, document(entry("a", 0.5, 3.0, importance=importance(40))))
    assert count(chrome, '[data-chart="importance"] path.line') == 40
    assert count(chrome, '[data-chart="importance"] .legend button') == 0


def test_screenshots_for_people(chrome: Browser, tmp_path: Path) -> None:
    """SECATEUR_SCREENSHOTS names a folder to look into; without it the pictures only have to be there."""
    opened(chrome, tmp_path, full())
    folder = Path(os.environ.get("SECATEUR_SCREENSHOTS", tmp_path))
    for name, width, scheme in (("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")):
        chrome.size(width, 900, phone=width < 800)
        chrome.scheme(scheme)
        chrome.screenshot(folder / f"report-{name}.png")
        assert (folder / f"report-{name}.png").stat().st_size > 20_000
