"""The page in a real browser, against an engine that answers in a tone: what it shows and says."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

from bot.agent_keys import digest
from bot.agents import load_agent
from bot.settings import PACKAGE
from tests.bot.speaking_engine import LABEL
from tests.bot.test_talk import voice
from tests.bot.tools.test_knowledge_tool import fill
from tests.e2e.browser import ALLOW, CHROMIUM, FLAGS, LONG_S, MICROPHONE, speak
from tests.e2e.server import Server, parley_server

# What some texts are written in, and on.
COLOURS = """['body', '.lede', '.model', '.quiet', '.main'].map((of) => {
  const style = getComputedStyle(document.querySelector(of));
  const clear = style.backgroundColor === 'rgba(0, 0, 0, 0)';
  return [style.color, clear ? getComputedStyle(document.body).backgroundColor : style.backgroundColor];
})"""

KEY = "a-key-of-many-letters"

pytestmark = pytest.mark.e2e


@contextmanager
def speaking(folder: Path, *options: str) -> Iterator[str]:
    """An engine that answers in a tone; gives its URL."""
    command = [sys.executable, "-m", "tests.bot.speaking_engine", "--socket", str(folder / "engine.sock")]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with speaking(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("parley") / "serve.log"
    with parley_server(log, PARLEY_ENGINE__URL=engine, PARLEY_MAX_CALLS="1") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=LONG_S * 1000)  # only a test that fails waits so long
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*FLAGS, ALLOW])
        yield started
        started.close()


def with_microphone(browser: Browser) -> Page:
    page = browser.new_page()
    page.add_init_script(MICROPHONE)
    return page


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context()
    context.add_init_script(MICROPHONE)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    # The browser itself notes every answer of 4xx and 5xx there; what the policy blocks is told there, too.
    opened.on("console", lambda line: faults.append(line.text) if "Security Policy" in line.text else None)
    opened.goto(server.url)
    yield opened
    context.close()
    assert faults == []


def call(page: Page) -> None:
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.get_by_role("meter")).to_be_visible()


def ask(page: Page) -> None:
    """Once the session is there, say something."""
    expect(page.get_by_text("Listening")).to_be_visible()
    speak(page, voice(1.0))


def test_before_a_call_it_says_who_answers_and_what_to_ask(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Bluebird Outdoor")
    expect(page.get_by_text(LABEL)).to_be_visible()
    for example in load_agent(PACKAGE / "agents", "bluebird").examples:
        expect(page.get_by_text(example)).to_be_visible()
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()
    expect(page.get_by_role("alert")).to_be_empty()


@pytest.fixture(scope="module")
def several(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    agents = tmp_path_factory.mktemp("agents")
    (agents / "main.yaml").write_text("name: Main\n")
    (agents / "sales.yaml").write_text("name: Sales\nexamples: ['What is new?']\n")
    (agents / "locked.yaml").write_text(f"name: Locked\nkeys: ['{digest(KEY)}']\n")
    log = tmp_path_factory.mktemp("several") / "serve.log"
    settings = {"PARLEY_AGENTS_DIR": str(agents), "PARLEY_AGENT": "main"}
    with parley_server(log, 0, PARLEY_ENGINE__URL=engine, **settings) as running:
        yield running


def test_an_agents_own_page_calls_that_agent(page: Page, several: Server) -> None:
    page.goto(f"{several.url}/a/sales")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sales")
    expect(page.get_by_text("What is new?")).to_be_visible()
    with page.expect_response("**/a/sales/api/offer") as answered:
        call(page)
    assert answered.value.ok
    expect(page.get_by_text("Listening")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("What is new?")).to_be_visible()  # and in the call still
    page.get_by_role("button", name="Hang up").click()


def test_an_agent_that_is_not_there_is_said_in_words(page: Page, several: Server) -> None:
    page.goto(f"{several.url}/a/nobody/")
    expect(page.get_by_role("status")).to_have_text("There is no such agent here.")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_disabled()


def test_an_agent_with_a_key_asks_for_it_and_takes_it_from_the_address(page: Page, several: Server) -> None:
    page.goto(f"{several.url}/a/locked/")
    expect(page.get_by_role("status")).to_contain_text("with a key")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_disabled()
    page.goto(f"{several.url}/a/locked/#key=another")
    expect(page.get_by_role("status")).to_contain_text("does not open this agent")
    page.goto(f"{several.url}/a/locked/#key={KEY}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Locked")
    call(page)
    page.get_by_role("button", name="Hang up").click()
    assert KEY not in several.log.read_text()


def test_a_call_shows_what_both_sides_say_and_how_long_the_answer_took(page: Page) -> None:
    call(page)
    log = page.get_by_role("log")
    expect(log).to_contain_text("Hello, this is Bluebird Outdoor.")
    ask(page)
    expect(log).to_contain_text("how long does delivery take")
    expect(log).to_contain_text("Delivery takes two to three days.")
    expect(log).to_contain_text("answered after")
    expect(page.get_by_text(LABEL)).to_be_visible()
    page.get_by_role("button", name="Mute").click()
    expect(page.get_by_role("button", name="Unmute")).to_be_visible()
    page.get_by_role("button", name="Hang up").click()
    expect(page.get_by_role("status")).to_have_text("The call has ended.")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()
    expect(log).to_contain_text("Delivery takes two to three days.")  # still there to be read


def test_where_an_answer_was_looked_up_stands_beneath_it(page: Page, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("name: Shop\ntools: [search_knowledge]\n")
    fill(tmp_path / "knowledge", "shop", "delivery.md", "Delivery takes two to three days.")
    settings = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_AGENT": "shop"}
    asks = ("--calls", "search_knowledge", '{"query": "how long does delivery take"}')
    with (
        speaking(tmp_path, *asks) as url,
        parley_server(
            tmp_path / "serve.log",
            0,
            PARLEY_ENGINE__URL=url,
            PARLEY_KNOWLEDGE__FOLDER=str(tmp_path / "knowledge"),
            **settings,
        ) as server,
    ):
        page.goto(server.url)
        call(page)
        ask(page)
        expect(page.get_by_text("Looked up in delivery.md, line 3")).to_be_visible(timeout=20_000)
        page.get_by_role("button", name="Hang up").click()


def test_the_whole_call_can_be_made_with_the_keyboard(page: Page) -> None:
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Hang up")).to_be_focused()
    expect(page.get_by_role("meter")).to_be_visible(timeout=20_000)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Mute")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()


def test_a_full_server_is_said_in_words_and_the_next_try_gets_through(page: Page, server: Server) -> None:
    call(page)
    other = page.context.new_page()
    other.goto(server.url)
    other.get_by_role("button", name="Call", exact=True).click()
    expect(other.get_by_role("alert")).to_contain_text("busy")
    page.get_by_role("button", name="Hang up").click()
    expect(page.get_by_role("status")).to_have_text("The call has ended.")
    for _ in range(20):  # the server notices the hang-up when it arrives
        other.get_by_role("button", name="Try again").click()
        other.wait_for_timeout(500)
        if other.get_by_role("meter").is_visible():
            break
    expect(other.get_by_role("alert")).to_be_empty()
    other.get_by_role("button", name="Hang up").click()


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    button = page.get_by_role("button", name="Call", exact=True).bounding_box()
    assert button is not None
    assert button["height"] >= 44  # a finger's width (WCAG 2.5.5)
    for ink, paper in page.evaluate(COLOURS):
        assert contrast(ink, paper) >= 4.5, (ink, paper)  # WCAG 1.4.3


def test_an_engine_that_goes_away_and_a_server_that_stops_are_said_in_words(
    browser: Browser, tmp_path: Path, engine: str
) -> None:
    with parley_server(tmp_path / "serve.log", PARLEY_ENGINE__URL=engine) as server:
        page = with_microphone(browser)
        page.goto(server.url)
        call(page)
        server.process.send_signal(signal.SIGTERM)
        expect(page.get_by_role("alert")).to_contain_text("being restarted")
        expect(page.get_by_role("status")).to_contain_text("Calling again")
        page.get_by_role("button", name="Hang up").click()
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        page.close()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGTERM, id="restarted", marks=pytest.mark.slow),
    ],
)
def test_a_call_outlives_the_server_it_began_with(
    browser: Browser, tmp_path: Path, engine: str, how: signal.Signals
) -> None:
    log = tmp_path / "serve.log"
    page = with_microphone(browser)
    with parley_server(log, PARLEY_ENGINE__URL=engine) as first:
        page.goto(first.url)
        call(page)
        said = page.get_by_role("log")
        expect(said).to_contain_text("Hello, this is Bluebird Outdoor.")
        ask(page)
        answers = said.get_by_text("Delivery takes two to three days.")
        expect(answers.first).to_be_visible()
        first.process.send_signal(how)
        first.process.wait()
        with parley_server(log, first.port, PARLEY_ENGINE__URL=engine):
            with page.expect_response(_taken, timeout=LONG_S * 1000):
                pass  # it calls again by itself
            before = answers.count()
            ask(page)
            expect(answers.nth(before)).to_be_visible()
            greeting = said.get_by_text("Hello, this is Bluebird Outdoor.")
            expect(greeting).to_have_count(1)  # nobody is greeted twice
    page.close()


def _taken(answer: Response) -> bool:
    return answer.url.endswith("/api/offer") and answer.ok


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two ``rgb(r, g, b)`` colours."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
