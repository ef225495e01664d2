"""The HTML report in a real browser, of a store with keys and class names that would like to be code."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.conftest import CLASSES, run

EVIL = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "</script><b>bold",
    "<!--data-->",
    "a&amp;b",
]
SAMPLES = 16


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if not (path := next(filter(None, map(shutil.which, names)), None)):
        pytest.skip("SKIPPED: no Chromium here; install it to test the report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(photos: list[bytes], teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with tarfile.open(folder / "a.tar", "w") as tar:
        for i, photo in enumerate(photos[:SAMPLES]):
            key = EVIL[i].replace("/", "|").replace(".", "") if i < len(EVIL) else f"photo{i:02d}"
            for name, data in ((f"{key}.jpg", photo), (f"{key}.cls", b"%d" % (i % CLASSES))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "classes.txt").write_text("\n".join(EVIL))
    teacher = Path(shutil.copytree(teacher_folder, folder / "teacher"))
    config = json.loads((teacher / "config.json").read_text())
    config["pretrained_cfg"]["label_names"] = None  # so that the store takes those of classes.txt
    (teacher / "config.json").write_text(json.dumps(config))
    given = ("--shards", folder / "a.tar")
    made = run(
        "cache-teacher", *given, "--cache", folder / "<b>c.zarr", "--teacher", teacher, "--device", "cpu",
        "--image-size", 32, "--views", 6, "--topk", 2,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    made = run("inspect", "report", folder / "<b>c.zarr", *given, "--out", folder / "r.html", "--samples", 200)
    assert made.exit_code == 0, made.output
    return folder / "r.html"


@pytest.fixture(params=["wide and light", "narrow and dark"])
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Page]:
    """The report, loaded; whatever it prints or asks for is an error."""
    wide = request.param.startswith("wide")
    context = browser.new_context(
        viewport={"width": 1280 if wide else 390, "height": 844}, color_scheme="light" if wide else "dark", offline=True
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda asked: errors.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(report.as_uri())
    yield page
    assert not errors
    context.close()


def visible(page: Page) -> list[dict[str, str]]:
    """Return what is said of the views that are shown."""
    cards = page.locator(".view:visible").all()
    pattern = re.compile(
        r"(?P<key>.*), view (\d+): target (?P<target>.*), label (?P<label>.*), (?P<mix>\w+)", re.DOTALL
    )
    return [match.groupdict() for card in cards if (match := pattern.match(card.get_attribute("aria-label") or ""))]


def test_it_fits_and_says_what_the_store_is(page: Page) -> None:
    assert page.title() == page.inner_text("h1") == "What teacher said: <b>c.zarr"
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    text = page.inner_text("dl")
    assert "96" in text and "100.0%" in text and page.locator("svg").count() == 5
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shown == "rgb(19, 20, 22)") == (page.viewport_size["width"] == 390)


def test_filters_filter(page: Page) -> None:
    every = visible(page)
    assert len(every) == SAMPLES * 6 and page.inner_text("#count") == f"96 of 96 views of {SAMPLES} samples"
    page.select_option("#mix", "cutmix")
    assert visible(page) == [view for view in every if view["mix"] == "cutmix"] != every
    page.select_option("#mix", "")
    page.select_option("#says", "target")
    assert visible(page) == [view for view in every if view["label"] == view["target"]] != every
    page.select_option("#says", "other")
    assert visible(page) == [view for view in every if view["label"] != view["target"]]
    page.select_option("#says", "")
    page.select_option("#class", every[0]["target"])
    assert visible(page) == [view for view in every if view["target"] == every[0]["target"]] != every
    page.select_option("#class", "")
    page.fill("#key", "PHOTO07")
    assert [view["key"] for view in visible(page)] == ["photo07"] * 6


def test_a_sample_opens_by_click_and_by_keyboard(page: Page) -> None:
    page.fill("#key", "photo07")
    page.locator(".view:visible").nth(2).click()
    assert page.inner_text("#dialog-title") == "photo07" and page.locator("#dialog-views li").count() == 6
    plans = page.locator("#dialog-views li").all_inner_texts()
    assert all("crop " in plan and "view " in plan for plan in plans)
    assert page.evaluate("document.getElementById('dialog-original').naturalWidth") > 100
    page.keyboard.press("Escape")
    assert not page.locator("#dialog").is_visible()
    page.locator(".view:visible").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#dialog").is_visible()
    page.click("#close")
    assert not page.locator("#dialog").is_visible()


def test_hostile_names_stay_text(page: Page) -> None:
    options = page.locator("#class option").all_inner_texts()
    assert {option.partition(" ")[2] for option in options if option != "all"} == {name.strip() for name in EVIL}
    assert page.locator("b, img:not(#dialog-original), script").count() == 2  # the data and the page's own script
    assert page.title() != "owned"
    page.fill("#key", "<img")
    page.locator(".view:visible").first.click()
    assert page.inner_text("#dialog-title") == EVIL[1]


def test_it_stays_below_ten_megabytes(report: Path) -> None:
    """Real photos at 224 pixels are measured by hand; here, that the size is what the pictures take."""
    assert report.stat().st_size < SAMPLES * 40_000 + 60_000
