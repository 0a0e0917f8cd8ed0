"""What the page looks like: contrast from the style sheet; widths, keyboard and scripts in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

import edgecxr.node.web
from edgecxr.errors import REASONS
from edgecxr.node.web import strings
from edgecxr.node.web.users import add_user
from edgecxr.vocabulary import WITHOUT_RESULT
from tests.node.running import eventually
from tests.node.web.chromium import Chromium, chromium
from tests.node.web.pages import ALL, Browser, served

CSS = (Path(edgecxr.node.web.__file__).parent / "static" / "node.css").read_text()
LEAST, LEAST_OF_PARTS = 4.5, 3.0  # WCAG 2.2: 1.4.3 for text, 1.4.11 for what is no text


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", block))


def schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    return {"light": variables(light), "dark": variables(light) | variables(dark)}


def contrast(text: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(text), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rules() -> list[tuple[str, dict[str, str]]]:
    blocks = re.findall(r"([^{};]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL))
    return [
        (selector.strip(), dict(part.strip().split(": ", 1) for part in body.split(";") if ": " in part))
        for selector, body in blocks
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_background(scheme: str) -> None:
    colours = schemes()[scheme]
    pair_count = 0
    for selector, declared in rules():
        if "color" in declared:
            assert "background" in declared, f"{selector}: without it the contrast is not known"
            text, ground = (colours[re.findall(r"--[\w-]+", declared[key])[0]] for key in ("color", "background"))
            assert contrast(text, ground) >= LEAST, (selector, contrast(text, ground))
            pair_count += 1
    assert pair_count > 12
    for part in ("--focus", "--line", "--bar", "--bar-on", "--flag", "--alarm"):
        assert contrast(colours[part], colours["--paper"]) >= LEAST_OF_PARTS, part
    for part in ("--bar", "--bar-on", "--ink"):
        assert contrast(colours[part], colours["--track"]) >= LEAST_OF_PARTS, part


def test_the_contrast_of_wcag_is_computed() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5


def test_every_reason_has_a_sentence_for_whoever_stands_there() -> None:
    assert set(strings.REASONS) == {*REASONS, *WITHOUT_RESULT}
    assert all(sentence.endswith(".") for sentence in strings.REASONS.values())


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture
def page(filled: Path) -> Iterator[Browser]:
    with served(filled) as browser:
        yield browser


WIDTH = "document.documentElement.scrollWidth"


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_is_wider_than_its_window(
    window: Chromium, page: Browser, tmp_path: Path, width: int, scripts: bool
) -> None:
    window.scripts(scripts)
    window.size(width)
    for path in ALL:
        window.open(f"http://127.0.0.1:{page.port}{path}")
        assert window.value(WIDTH) <= width, path
        assert window.complaints() == [], path
        window.picture(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 5_000
    window.scripts(True)


@pytest.mark.parametrize("width", [320, 1280])
def test_pages_of_an_admin_are_no_wider_either(window: Chromium, state: Path, quick: None, width: int) -> None:
    add_user(state, "admin", "admin", "correct horse battery")
    window.size(width)
    with served(state) as browser:
        address = f"http://127.0.0.1:{browser.port}"
        window.open(f"{address}/sign-in")
        for field, value in (("name", "admin"), ("password", "correct horse battery")):
            window.value(f"document.getElementsByName('{field}')[0].value = '{value}'")
        window.value("document.querySelector('.sign-in button').click()")
        eventually(lambda: window.value("location.pathname") == "/films", "the form is sent")
        for path in ("/audit", "/users"):
            window.open(f"{address}{path}")
            assert window.value("document.querySelectorAll('td').length") >= 1, path
            assert window.value(WIDTH) <= width and window.complaints() == [], path


def test_the_slider_fades_the_attention_and_without_scripts_a_box_hides_it(window: Chromium, page: Browser) -> None:
    window.size(1280)
    address = f"http://127.0.0.1:{page.port}/films/1"
    window.open(address)
    shown = "getComputedStyle(document.querySelector('.colours'))"
    window.value("document.getElementById('strength').focus()")
    assert window.value(f"{shown}.opacity") == "1"
    window.press("Home")
    assert window.value(f"{shown}.opacity") == "0" and window.value("document.querySelector('output').value") == "0 %"
    window.press("ArrowRight")
    assert window.value(f"{shown}.opacity") == "0.05"
    window.scripts(False)
    window.open(address)
    hidden = "getComputedStyle(document.querySelector('.slide')).display"
    assert window.value(hidden) == "none" and window.value(f"{shown}.visibility") == "visible"
    window.value("document.getElementById('attention').click()")
    assert window.value(f"{shown}.visibility") == "hidden"
    window.scripts(True)


def test_what_is_focused_by_the_keyboard_is_seen(window: Chromium, page: Browser) -> None:
    window.size(1280)
    window.open(f"http://127.0.0.1:{page.port}/films")
    names = []
    for _ in range(12):
        window.press("Tab")
        names.append(window.value("document.activeElement.textContent.trim() || document.activeElement.id"))
        outline = window.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", names
        box = window.value("JSON.stringify(document.activeElement.getBoundingClientRect())")
        assert '"width":0' not in box
    assert names[0].startswith("Skip") and "Queue" in names and "text" in names


def test_controls_are_large_enough_to_hit(window: Chromium, page: Browser) -> None:
    window.size(320)
    small = (
        "JSON.stringify([...document.querySelectorAll('button, select, input:not([type=hidden]), nav a, .button')]"
        ".map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])"
        ".filter(([_, r]) => r.width && (r.width < 24 || r.height < 24)))"
    )
    for path in ALL:
        window.open(f"http://127.0.0.1:{page.port}{path}")
        assert window.value(small) == "[]", path


def test_a_list_that_is_open_shows_what_is_new(window: Chromium, state: Path) -> None:
    from edgecxr.node.film_queue import FilmQueue
    from edgecxr.node.spool import Spool

    with served(state) as browser:
        window.size(1280)
        window.open(f"http://127.0.0.1:{browser.port}/films?which=not-analysed")
        count = "document.querySelectorAll('#live tbody tr').length"
        assert window.value(count) == 2
        with Spool(state) as spool:
            FilmQueue(spool).set_without_result(5, "rejected", "crash")
        wait = (
            f"new Promise(done => {{ const look = () => {count} === 3 ? done(true) : setTimeout(look, 100); look(); }})"
        )
        assert window.value(wait) is True
