"""`qhat report`: the page as a reader has it, in a real browser, and what its warnings say.

Protects against a page that needs a network or a script, that a phone or a keyboard cannot read, or that
runs what a stranger's run folder says.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from browser import Browser
from qhat.cli import report
from qhat.cli.main import COMMANDS
from qhat.evaluation.statistics import Score
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import label_of
from qhat.reports.finding import FINE, NOTE, UNKNOWN, WARNING, Finding
from qhat.reports.findings import findings
from qhat.reports.html import command, document, tag
from qhat.reports.measure import Measured, measure
from qhat.reports.page import RunReport, page
from qhat.reports.reading import Evaluated, Facts, read_facts
from qhat.system.errors import UsageError

SECTIONS = ("result", "findings", "curves", "film", "configuration", "system", "reproduce", "next")
RECIPE = dataclasses.replace(
    qhat.recipes.get("rainbow_lite"), hidden=(8,), replay_capacity=600, learning_starts=50, num_envs=2,
    learning_rate_steps=400, gamma=0.9,
)  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    config = TrainConfig(
        "CartPole-v1", recipe_name="rainbow_lite", recipe=RECIPE, run_dir=folder, steps=400, seeds=2,
        eval_every=100, eval_episodes=2,
    )  # fmt: skip
    qhat.train("CartPole-v1", config)
    # As the command line leaves it: the tests' own is pytest's.
    words = f"qhat train CartPole-v1 --recipe rainbow_lite --seeds 2 --run-dir {folder} --json"
    (folder / "command.txt").write_text(words + "\n")
    return folder


@pytest.fixture(scope="module")
def reported(run_folder: Path) -> tuple[Path, dict[str, Any]]:
    """The page of the command, and its JSON."""
    with pytest.MonkeyPatch.context() as patched:
        lines: list[str] = []
        patched.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert report.run([str(run_folder), "--episodes", "3", "--json"]) == 0
    (line,) = lines
    return run_folder / "report.html", json.loads(line)


@pytest.fixture(scope="module")
def facts(run_folder: Path) -> Facts:
    return read_facts(run_folder)


def score(*per_seed: float) -> Score:
    return Score.of("CartPole-v1", np.repeat(np.array(per_seed, float)[:, None], 3, axis=1))


def written(path: Path, *runs: RunReport) -> Path:
    path.write_text(page(runs, COMMANDS), encoding="utf-8")
    return path


def each(browser: Browser, selector: str, what: str) -> list[Any]:
    """Return what JavaScript says of every element that a selector finds."""
    return browser.run(f"return [...document.querySelectorAll(arguments[0])].map(one => {what})", selector)


def test_the_command_measures_everything_and_says_so(
    reported: tuple[Path, dict[str, Any]], run_folder: Path
):
    path, printed = reported
    assert printed["report"] == str(path)
    (run,) = printed["runs"]
    assert run["score"]["episodes"] == 3
    assert len(run["score"]["per_seed"]) == 2
    assert len(run["diagnosis"]["q"]) == 2
    assert run["diagnosis"]["observations"] > 1_000
    assert all(0 < share <= 1 for share in run["effective"])
    assert run["missing"] == {}
    assert {"Interval", "Q against returns", "Dead units", "Replay", "ε at the end"} <= {
        found["name"] for found in run["findings"]
    }
    assert (run_folder / "videos" / "best.mp4").exists()


def test_the_page_loads_nothing(reported: tuple[Path, dict[str, Any]]):
    text = reported[0].read_text(encoding="utf-8")
    addresses = re.findall(r'\b(?:src|href|srcset|poster|action|data)="(.{0,20})', text)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "<script" not in text
    assert "default-src 'none'" in text
    # Where the paper is stands there to be read.
    assert "arxiv.org" not in "".join(addresses)


def test_a_browser_shows_every_section(reported: tuple[Path, dict[str, Any]], browser: Browser):
    browser.open(reported[0])
    assert browser.complaints() == []
    for name in SECTIONS:
        words = browser.run(f"return document.querySelector('main > section#{name}').innerText")
        assert len(words.split()) > 5, name
    label = label_of(RECIPE.scheduled(400), "CartPole-v1", (4,), None, (400,))
    assert browser.run("return document.title") == f"CartPole-v1 · {label} – qhat report"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(each(browser, landmark, "one.tagName")) == 1
    levels = each(browser, "h1, h2, h3, h4", "+one.tagName[1]")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(each(browser, "table", "one.caption.textContent"))
    assert browser.run("return document.documentElement.lang") == "en"
    pictures = each(browser, "svg[role=img]", "one.ariaLabel")
    assert len(pictures) == 6, "the seeds' strip, the curve, four small ones"
    assert all(len(words) > 20 for words in pictures)
    links = each(browser, "a", "one.getAttribute('href').slice(1)")
    assert all(browser.run("return !!document.getElementById(arguments[0])", name) for name in links)


def test_the_film_plays(reported: tuple[Path, dict[str, Any]], browser: Browser):
    browser.open(reported[0])
    at = browser.wait(
        "const done = arguments[arguments.length - 1], film = document.querySelector('video');"
        "film.ontimeupdate = () => film.currentTime > 0.05 && done([film.readyState, film.videoWidth]);"
        "film.play().catch(error => done(String(error)))"
    )
    assert at[0] >= 2, at
    assert at[1] == 600
    assert browser.complaints() == []


def test_a_phone_needs_no_sideways_scrolling(reported: tuple[Path, dict[str, Any]], browser: Browser):
    browser.open(reported[0], width=360)
    wide = "return document.documentElement.scrollWidth"
    assert browser.run(wide) == 360
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.run(wide) == 360
    scrolls = "[one.scrollWidth > one.clientWidth, one.tabIndex, one.getAttribute('aria-label')]"
    wider = [table for table in each(browser, ".scroll", scrolls) if table[0]]
    assert wider, "tables scroll by themselves"
    assert all(at == 0 and name for _, at, name in wider), "a keyboard scrolls them too"
    assert min(each(browser, "svg text", "one.getBoundingClientRect().height")) >= 11, (
        "an axis is as legible as on a desk"
    )


CONTRAST = """
const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = (colour) => {
  paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
  return [...paint.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => {
  const part = [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * part[0] + .7152 * part[1] + .0722 * part[2];
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = rgba(getComputedStyle(one).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
document.querySelectorAll('details').forEach(one => one.open = true);
const found = [];
for (const one of document.querySelectorAll('body *')) {
  const words = [...one.childNodes].filter(node => node.nodeType === 3 && node.data.trim());
  if (!words.length || one.tagName === 'title' || !one.checkVisibility()) continue;
  const style = getComputedStyle(one), paper = behind(one);
  const ink = rgba(one.tagName === 'text' ? style.fill : style.color);
  const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
  found.push([(high + .05) / (low + .05), one.tagName + ' ' + words[0].data.slice(0, 40), paper.join()]);
}
return found;
"""


@pytest.mark.parametrize("width", [1000, 360])
def test_light_and_dark_themes_are_readable(facts: Facts, browser: Browser, tmp_path: Path, width: int):
    warned = [Finding(name, status, "It is so.", "It matters.", "qhat doctor")
              for name, status in (("A", WARNING), ("B", NOTE), ("C", UNKNOWN), ("D", FINE))]  # fmt: skip
    path = written(tmp_path / "page.html", RunReport(facts, Measured(score=score(400, 500)), warned))
    papers = []
    for dark in (False, True):
        browser.open(path, width, dark)
        contrasts = browser.run(CONTRAST)
        assert len(contrasts) > 100
        faint = [entry for entry in contrasts if entry[0] < 4.5]
        assert not faint
        papers.append({entry[2] for entry in contrasts})
    assert len(papers[0]) >= 4, "page, panel, warning, mark"
    assert not papers[0] & papers[1]


def test_the_keyboard_reaches_everything(reported: tuple[Path, dict[str, Any]], browser: Browser):
    browser.open(reported[0])
    wanted = browser.run(
        "let at = 0;"
        "for (const one of document.querySelectorAll('a, summary, video, [tabindex=\"0\"]'))"
        "  if (one.checkVisibility()) one.dataset.at = at++;"
        "return at"
    )
    assert wanted > 20
    reached: list[int] = []
    for _ in range(3 * wanted):
        browser.press("\ue004")
        at, visible = browser.run(
            "const one = document.activeElement, style = getComputedStyle(one);"
            "return [one.dataset.at ?? null, style.outlineStyle !== 'none' || one.tagName === 'VIDEO']"
        )
        if at is None:
            break
        assert visible, "the focused element is marked"
        if int(at) not in reached:
            reached.append(int(at))
    assert reached == list(range(wanted)), "in the order in which they are read"
    assert (
        browser.run("return document.querySelector('[data-at=\"0\"]').innerText") == "Skip to the content"
    )


def test_print_includes_collapsed_sections(reported: tuple[Path, dict[str, Any]], browser: Browser):
    browser.open(reported[0], dark=True)
    browser.look(700, dark=True, media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert min(each(browser, "details table", "one.offsetHeight")) > 50


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\u202e'


def test_an_untrusted_run_executes_nothing(run_folder: Path, browser: Browser, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"env": HOSTILE, "recipe_name": HOSTILE, "steps": HOSTILE, "wrap": [HOSTILE], "seed": HOSTILE}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "command.txt").write_text(f"qhat train {HOSTILE}; rm -rf ~ </code></pre>{HOSTILE}\n")
    (copy / "system.json").write_text(json.dumps({HOSTILE: HOSTILE, "packages": {HOSTILE: HOSTILE}}))
    shutil.copy(copy / "videos" / "best.mp4", copy / "videos" / f"{HOSTILE.replace('/', '')}.mp4")
    measured = measure(copy, 1, films=False)
    assert measured.score is None
    assert measured.film is not None
    strange = read_facts(copy)
    path = written(tmp_path / "page.html", RunReport(strange, measured, findings(strange, measured)))
    text = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert not set(text) & {"\x1b", "\u202e"}
    browser.open(path)
    assert browser.complaints() == []
    assert each(browser, "script, img, iframe, object, embed", "one.outerHTML") == []
    marked = "return [...document.querySelectorAll('*')].filter(one => [...one.attributes].some(" \
             "at => at.name.startsWith('on') || at.name === 'style')).length"  # fmt: skip
    assert browser.run(marked) == 0
    assert HOSTILE[:-5] in browser.run("return document.querySelector('h1').textContent")


def test_text_is_escaped_and_the_security_policy_holds(browser: Browser, tmp_path: Path):
    """Were an escape forgotten, the policy would still refuse it: scripts, styles and addresses alike."""
    assert tag("p", "<b>", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;</p>'
    assert command("a <& b") == '<pre tabindex="0"><code>a &lt;&amp; b</code></pre>'
    path = tmp_path / "page.html"
    hole = "<script>document.title = 'run'</script><img src='https://example.org/x.png' onerror='1'>"
    path.write_text(document("kept", "p { color: red }", tag("p", "words")).replace("words", hole))
    browser.open(path)
    assert browser.run("return document.title") == "kept"
    said = browser.complaints()
    assert len(said) >= 2
    assert all("Content Security Policy" in words for words in said)


def test_several_runs_are_one_page(facts: Facts, browser: Browser, tmp_path: Path):
    other = dataclasses.replace(facts, config={**facts.config, "recipe_name": "dqn"})
    elsewhere = dataclasses.replace(facts, config={**facts.config, "env": "Acrobot-v1"}, evaluated=None)
    runs = [RunReport(one, Measured(score=score(100, 120)), []) for one in (facts, other, elsewhere)]
    browser.open(written(tmp_path / "page.html", *runs))
    assert browser.complaints() == []
    rows = each(browser, "#overview tbody tr", "one.innerText")
    assert len(rows) == 3
    assert "Acrobot-v1" in rows[2]
    figures = each(browser, "#curves svg.chart", "one.querySelectorAll('.line').length")
    assert figures == [2], "one figure with both runs of CartPole; Acrobot's has no evaluation"
    dashes = each(browser, "#curves .chart .line", "one.getAttribute('stroke-dasharray')")
    assert len(set(dashes)) == 2, "distinct without colours"
    assert len(each(browser, "section.run", "one.id")) == 3
    names = each(browser, "[id]", "one.id")
    assert len(set(names)) == len(names)


def test_settings_that_differ_from_the_recipe_are_marked(facts: Facts, browser: Browser, tmp_path: Path):
    browser.open(written(tmp_path / "page.html", RunReport(facts, Measured(), [])))
    marked = browser.run(
        "return [...document.querySelectorAll('#configuration > .scroll tbody tr')].map("
        "one => [...one.cells].map(cell => cell.innerText))"
    )
    # The first update of a run of 400 steps is at step 8.
    changed = {"--hidden": ["8", "64 64"], "--num-envs": ["2", "1"], "--replay-capacity": ["600", "100000"],
           "--learning-starts": ["50", "8"], "--gamma": ["0.9", "0.995"],
           "--steps": ["400", "50000"], "--seeds": ["2", "1"],
           "--eval-every": ["100", "2500"], "--eval-episodes": ["2", "20"]}  # fmt: skip
    assert {row[0]: row[1:] for row in marked} == changed
    assert len(each(browser, "#configuration details mark", "one.innerText")) == len(changed)


def test_an_incomplete_run_shows_what_is_readable(run_folder: Path, browser: Browser, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("videos", "report.html"))
    for name in ("checkpoints", "best"):
        shutil.rmtree(copy / name)
    for name in ("last", "command.txt"):
        (copy / name).unlink()
    (copy / "system.json").write_text('{"python": ')
    (copy / "eval.csv").write_text((copy / "eval.csv").read_text().splitlines()[0] + "\n100,0,9")
    half, measured = read_facts(copy), measure(copy, 1)
    assert "has no checkpoint yet" in measured.why["score"] or "no qhat checkpoint" in measured.why["score"]
    browser.open(written(tmp_path / "page.html", RunReport(half, measured, findings(half, measured))))
    words = {name: browser.run(f"return document.getElementById('{name}').innerText") for name in SECTIONS}
    assert "There is no score" in words["result"]
    assert "no evaluation is complete yet" in words["curves"]
    assert "There is no film" in words["film"]
    assert "system.json cannot be read" in words["system"]
    assert "command.txt cannot be read" in words["reproduce"]
    assert "incomplete or damaged" in words["findings"]
    assert len(each(browser, "#curves svg.chart", "one.ariaLabel")) == 4, "metrics.csv is whole"


def test_without_the_extra_for_films_the_page_says_what_to_install(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("videos"))
    monkeypatch.setitem(sys.modules, "av", None)
    measured = measure(copy, 1)
    assert measured.score is not None
    assert measured.film is None
    text = page([RunReport(read_facts(copy), measured, [])], COMMANDS)
    assert "There is no film. Videos need PyAV, which is not installed" in text
    assert re.search(r"pip install [^\n]*\[video\]&#x27;", text)
    assert not (copy / "videos").exists()


def test_one_seed_has_no_interval_anywhere(facts: Facts, browser: Browser, tmp_path: Path):
    only = Evaluated(np.arange(1.0, 5.0), np.array([[9.0, 20.0, 60.0, 80.0]]), np.ones((1, 4)))
    alone = dataclasses.replace(facts, evaluated=only, config={**facts.config, "seeds": 1})
    measured = Measured(score=score(400))
    browser.open(written(tmp_path / "page.html", RunReport(alone, measured, findings(alone, measured))))
    words = browser.run("return document.querySelector('main').innerText")
    assert "Only one seed, so no interval." in words
    assert words.count("Only one seed, so no interval.") == 2
    assert each(browser, ".band, .span", "one.outerHTML") == []
    assert "95% low" not in browser.run("return document.querySelector('#curves').textContent")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "report needs a run folder"),
        (["nowhere"], "no run folder 'nowhere'"),
        (["{run}", "--episodes", "0"], "episodes is 0"),
        (["{run}", "--out", "page.pdf"], "ends in .html"),
        (["{run}", "{run}/../run"], "named twice"),
        (["{run}", "--out", "{run}/config.json/page.html"], "cannot be created"),
        (["{run}/checkpoints"], "it has no config.json"),
    ],
)
def test_bad_arguments_are_a_sentence(run_folder: Path, words: list[str], sentence: str):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        report.run([word.format(run=run_folder) for word in words])


def test_the_film_can_be_switched_off(tmp_path: Path):
    with pytest.raises(UsageError, match="There is no run folder"):
        report.run([str(tmp_path / "nope"), "--no-video"])
