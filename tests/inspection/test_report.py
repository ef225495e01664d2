"""The HTML report in a real browser: what it answers, filters and selects. Its names would like to be code."""

import csv
import io
import json
import re
import shutil
import tarfile
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from distillcache.cache.manifest import Manifest, TeacherRecord
from distillcache.cache.records import Labels, Probes, Unit
from distillcache.cache.store import Store
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.index import Shard, ShardIndex
from distillcache.inspection.lookup import SampleLabels, label

from ..conftest import CLASSES, run

EVIL = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "</script><b>bold",
    "<!--data-->",
    'a&amp;b, "quoted"',
]
SAMPLES, VIEWS = 16, 6


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
def store(photos: list[bytes], teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
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
    made = run(
        "cache-teacher", "--shards", folder / "a.tar", "--cache", folder / "<b>c.zarr", "--teacher", teacher,
        "--device", "cpu", "--image-size", 32, "--views", VIEWS, "--topk", 2,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return Store(folder / "<b>c.zarr")


@pytest.fixture(scope="module")
def samples(store: Store) -> list[SampleLabels]:
    return [label(store, (0, sample)) for sample in range(SAMPLES)]


@pytest.fixture(scope="module")
def report(store: Store) -> Path:
    """The page, with pictures of half of the samples."""
    out = store.path.with_name("r.html")
    made = run(
        "inspect", "report", store.path, "--shards", store.path.with_name("a.tar"), "--out", out, "--pictures", 8
    )
    assert made.exit_code == 0 and made.stdout.endswith("pictures of 8 samples\n"), made.output
    return out


class Watched:
    """A browser's context in which whatever a page prints or asks for is an error."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context, self.errors = browser.new_context(offline=True, **options), list[str]()

    def open(self, path: Path, state: str = "") -> Page:
        page: Page = self.context.new_page()
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.on(
            "request", lambda asked: self.errors.append(asked.url) if asked.url[:5] not in ("file:", "data:") else None
        )
        page.goto(path.as_uri() + state)
        page.wait_for_selector("body[data-ready]")
        return page


@pytest.fixture(params=["wide and light", "narrow and dark"])
def watched(request: pytest.FixtureRequest, browser: Any) -> Iterator[Watched]:
    wide = request.param.startswith("wide")
    watched = Watched(
        browser, viewport={"width": 1280 if wide else 390, "height": 844}, color_scheme="light" if wide else "dark"
    )
    yield watched
    assert not watched.errors
    watched.context.close()


@pytest.fixture
def page(watched: Watched, report: Path) -> Page:
    return watched.open(report)


def shown(page: Page) -> list[dict[str, str]]:
    """Return what is said of the views that are shown."""
    page.evaluate("while (!document.getElementById('more').hidden) more()")
    pattern = re.compile(
        r"(?P<key>.*), view (?P<view>\d+): target (?P<target>\d+).*, "
        r"label (?P<label>\d+).*, (?P<mix>unmixed|mixup|cutmix)",
        re.DOTALL,
    )
    labels = page.evaluate("[...document.querySelectorAll('.view')].map(v => v.ariaLabel)")
    return [match.groupdict() for text in labels if (match := pattern.match(text))]


def keys(page: Page) -> list[str]:
    """Return the keys of the samples that are shown, in their order."""
    return list(dict.fromkeys(view["key"] for view in shown(page)))


def test_it_fits_and_its_first_lines_are_answers(page: Page, samples: list[SampleLabels]) -> None:
    assert page.title() == page.inner_text("h1") == "What teacher said: <b>c.zarr"
    width = page.viewport_size["width"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    whole, right, look = page.locator("#answers dd").all_inner_texts()
    assert whole == f"Yes all 96 labels are there, of {SAMPLES} samples in {VIEWS} views each"
    alone = [view for s in samples for view in s.views if view.lam >= 0.9]
    assert f"in {sum(bool(view.agrees) for view in alone) / len(alone):.1%} of views that show little but" in right
    assert look.startswith(f"{sum(s.agreement == 0 for s in samples)} samples get their target in none")
    assert page.locator("details[open]").count() == 0  # of a whole store, what is cached needs no look
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 22)"
    assert dark == (width == 390)


def test_a_store_that_is_not_whole_says_what_fills_it(watched: Watched, store: Store, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "c.zarr"))
    Store(copy).extend(18)
    assert run("inspect", "report", copy, "--out", tmp_path / "r.html").exit_code == 0
    page = watched.open(tmp_path / "r.html")
    whole = page.locator("#answers dd").first.inner_text()
    assert (
        whole.startswith("No, 33.3% of it 96 labels are there and 192 missing")
        and "distillcache cache-teacher --shards a.tar" in whole
    )
    assert page.locator("details[open] svg").count() == 1
    page.locator("#lowest [data-sample]").first.click()
    assert "drawn by: distillcache inspect show" in page.inner_text("#dialog-command")
    assert not page.locator("#dialog-original").is_visible()


def test_the_samples_of_the_lowest_agreement_open_their_views(page: Page, samples: list[SampleLabels]) -> None:
    rows = page.locator("#lowest tbody tr")
    assert rows.count() == SAMPLES
    listed = page.locator("#lowest [data-sample]").all_inner_texts()
    agreement = {s.key: s.agreement for s in samples}
    assert [agreement[key] for key in listed] == sorted(agreement.values())
    page.locator("#lowest [data-sample]").nth(1).click()
    assert page.inner_text("#dialog-title") == listed[1] and page.locator("#dialog-views li").count() == VIEWS
    assert f"label of {agreement[listed[1]]:.1%} of its views" in page.inner_text("#dialog-target")


def test_filters_filter_and_sort(page: Page, samples: list[SampleLabels]) -> None:
    every = shown(page)
    assert len(every) == SAMPLES * VIEWS
    assert page.inner_text("#count") == f"96 of 96 views, {SAMPLES} of {SAMPLES} samples on this page"
    relation = {(s.key, str(view.view)): view.relation for s in samples for view in s.views}
    for wanted in ("target", "partner", "neither"):
        page.select_option("#relation", wanted)
        assert shown(page) == [view for view in every if relation[view["key"], view["view"]] == wanted] != every
    page.select_option("#relation", "other")
    assert shown(page) == [view for view in every if view["label"] != view["target"]]
    page.click("#show-all")
    expect(page.locator("#count")).to_have_text(re.compile("^96 of"))
    for field in ("target", "label", "mix"):
        page.select_option(f"#{field}", every[0][field] if field != "mix" else "cutmix")
        wanted = every[0][field] if field != "mix" else "cutmix"
        assert shown(page) == [view for view in every if view[field] == wanted] != every
        page.select_option(f"#{field}", "")
    page.select_option("#only", "pictures")
    assert len(keys(page)) == 8
    page.select_option("#only", "")
    page.fill("#key", "PHOTO07")
    assert [view["key"] for view in shown(page)] == ["photo07"] * VIEWS
    page.fill("#key", "")
    ranks: dict[str, Callable[[int, SampleLabels], Any]] = {
        "": lambda number, sample: sample.agreement,
        "highest": lambda number, sample: -(sample.agreement or 0),
        "key": lambda number, sample: sample.key,
        "store": lambda number, sample: number,
    }
    for sort, rank in ranks.items():
        page.select_option("#sort", sort)
        of_key = {sample.key: rank(number, sample) for number, sample in enumerate(samples)}
        in_order = [of_key[name] for name in keys(page)]
        assert len(in_order) == SAMPLES and in_order == sorted(in_order)


def test_classes_and_confusions_filter_the_views(page: Page, samples: list[SampleLabels]) -> None:
    confused = page.locator(".rankings section").nth(1).locator("button").first
    target, number = confused.get_attribute("data-target"), confused.get_attribute("data-label")
    page.select_option("#mix", "mixup")  # which is then taken back
    confused.click()
    found = shown(page)
    assert found and {(view["target"], view["label"]) for view in found} == {(target, number)}
    assert len(found) == sum(str(v.label) == number for s in samples if str(s.target) == target for v in s.views)
    page.locator(".rankings section").first.locator("button").nth(2).click()
    chosen = page.locator(".rankings section").first.locator("button").nth(2).get_attribute("data-target")
    assert {view["target"] for view in shown(page)} == {chosen} and page.input_value("#label") == ""
    bar = page.locator("g[data-target]").first
    bar.hover()
    words = page.locator("figure output").nth(2).inner_text()
    assert words == bar.locator("title").text_content() and re.search(r": \d+\.\d% of \d+ views$", words)
    bar.click()
    assert page.input_value("#target") == bar.get_attribute("data-target")


def test_charts_have_values_and_ticks_that_are_counts(page: Page) -> None:
    figures = page.locator("figure")
    assert figures.count() == 4
    for number in range(4):
        hit = figures.nth(number).locator(".hit").last
        hit.hover(force=True)
        assert figures.nth(number).locator("output").inner_text() == hit.locator("title").text_content()
    ticks = figures.nth(3).locator("text[text-anchor=end]").all_text_contents()
    assert all(tick.isdecimal() for tick in ticks) and len(ticks) >= 2
    lowest_line = page.locator("figure").nth(1).locator("polyline").first.bounding_box()
    legend = page.locator("figure").nth(1).locator(".legend").bounding_box()
    assert lowest_line and legend and legend["y"] >= lowest_line["y"] + lowest_line["height"]


def test_a_card_says_key_target_label_and_lambda_once(page: Page, samples: list[SampleLabels]) -> None:
    shown(page)
    of = {(s.key, view.view): (s, view) for s in samples for view in s.views}
    for card in page.locator(".card").all():
        text = card.inner_text()
        number = int(re.search(r"view (\d+): ", text)[1])  # type: ignore[index]
        sample, view = of[text.partition("\n")[0], number]
        mark = {"target": "=", "partner": "~", "neither": "!"}[view.relation or ""]
        assert f"{mark} {view.label} " in text and text.count(sample.key) <= 1 + (sample.key in EVIL)
        assert (f"target {sample.target} " in text) == (view.label != sample.target)
        assert ("unmixed" if view.partner is None else f"{view.mix}, lambda {view.lam:.3f}") in text
        assert card.locator(".caption").last.evaluate("e => e.scrollWidth <= e.clientWidth")  # whole, not cut off
    assert "= the label is the target, ~ the partner's target, ! neither" in page.inner_text("main")


def test_selected_samples_become_a_csv_file(page: Page, store: Store) -> None:
    page.fill("#key", "photo1")
    page.click("#select-shown")
    page.fill("#key", "&amp;")
    page.locator(".card input").first.check()
    assert page.inner_text("#selected") == "7 samples selected"
    with page.expect_download() as download:
        page.click("#download")
    rows = list(csv.reader(download.value.path().open(newline="")))
    assert rows[0] == ["shard", "key"] and download.value.suggested_filename == "selected.csv"
    assert [tuple(row) for row in rows[1:]] == [
        ("a.tar", key) for key in store.keys(0) if key == EVIL[4] or key.startswith("photo1")
    ]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    expect(page.locator("#selected")).to_have_text("copied: 7")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert list(csv.reader(io.StringIO(copied))) == rows and page.input_value("#csv") == copied
    page.select_option("#only", "selected")
    page.fill("#key", "")
    assert len(keys(page)) == 7
    page.click("#clear")
    assert page.inner_text("#selected") == "0 samples selected" and shown(page) == []
    assert page.locator("#download").is_disabled()


def test_its_state_is_in_its_address(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.select_option("#relation", "neither")
    page.select_option("#sort", "lambda")
    page.fill("#key", "photo")
    page.click("#select-shown")
    page.locator(".view").nth(3).click()
    before = (shown(page), page.inner_text("#selected"), page.inner_text("#dialog-title"))
    again = watched.open(report, "#" + page.evaluate("location.hash.slice(1)"))
    assert (shown(again), again.inner_text("#selected"), again.inner_text("#dialog-title")) == before
    assert again.input_value("#sort") == "lambda"
    again.keyboard.press("Escape")
    expect(again).not_to_have_url(re.compile("open="))
    assert "selected=" in again.evaluate("location.hash")
    odd = watched.open(report, "#target=999&open=999&selected=3,x,7-9999999&sort=no&relation=<b>")
    assert len(shown(odd)) == SAMPLES * VIEWS and odd.inner_text("#selected") == "10 samples selected"


def test_it_works_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("photo07")
    assert keys(page) == ["photo07"]
    page.fill("#key", "photo")
    names = keys(page)
    page.locator(".view").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    focused = "[...document.querySelectorAll('.view')].indexOf(document.activeElement)"
    assert page.evaluate(focused) == 1
    page.keyboard.press("x")
    assert page.inner_text("#selected") == "1 sample selected"
    page.keyboard.press("Enter")
    assert page.inner_text("#dialog-title") == names[0] and page.locator("#dialog-views li.chosen").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.inner_text("#dialog-title") == names[1] and page.locator("#dialog-select").is_checked()
    page.keyboard.press("Escape")
    assert not page.locator("#dialog").is_visible() and page.inner_text("#selected") == "2 samples selected"


def test_pictures_and_plans_are_in_the_dialog(page: Page) -> None:
    page.select_option("#only", "pictures")
    page.locator(".view").nth(2).click()
    plans = page.locator("#dialog-views li").all_inner_texts()
    assert len(plans) == VIEWS and all("crop " in plan and "view " in plan and "%" in plan for plan in plans)
    assert page.evaluate("document.getElementById('dialog-original').naturalWidth") > 100
    page.click("#close")
    assert not page.locator("#dialog").is_visible()


def test_hostile_names_stay_text(page: Page) -> None:
    options = page.locator("#target option").all_inner_texts()[1:]
    assert {option.partition(" ")[2] for option in options} == {name.strip() for name in EVIL}
    assert page.locator("main :is(img, script), b:not(dd b, .ranking b, .note b)").count() == 0
    assert page.title() != "owned"
    page.fill("#key", "<img")
    page.locator(".view").first.click()
    assert page.inner_text("#dialog-title") == EVIL[1]


CARDS = 100_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 50,000 samples of 1,000 classes, two views of each."""
    shards, columns, classes = 50, 1000, 1000
    rng = np.random.default_rng(0)
    indexes = [
        ShardIndex(
            shard=Shard(name=f"train-{n:06d}.tar", nbytes=1, sha256="0" * 64), url="",
            keys=[f"n{n:08d}/n{n:08d}_{i}" for i in range(columns)], targets=rng.integers(0, classes, columns).tolist(),
            offsets=[0] * columns, nbytes=[1] * columns,
        )
        for n in range(shards)
    ]  # fmt: skip
    manifest = Manifest(
        recipe=named("deit", overrides=["repeats=2"]), seed=0, topk=0, versions={}, created="",
        teacher=TeacherRecord(
            name="t", sha256="", mean=(0.5,), std=(0.5,), input_size=224, dtype="bfloat16", classes=classes
        ),
        shards=tuple(index.shard for index in indexes), class_names=tuple(f"class number {c}" for c in range(classes)),
    )  # fmt: skip
    probes = Probes(
        views=np.zeros((1, 4, 4, 3), np.uint8), logits=np.zeros((1, 4), np.float32), at=np.zeros((1, 3), np.int32)
    )
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    store = Store.create(path, manifest, samples_of(indexes, 0), probes)
    store.extend(2)
    for shard, index in enumerate(indexes):
        label = np.where(rng.random((2, columns)) < 0.6, index.targets, rng.integers(0, classes, (2, columns)))
        check = np.zeros(label.shape, np.uint16)
        store.write(Unit(shard=shard, block=0, views=range(2)), Labels(label=label.astype(np.uint16), check=check))
    made = run("inspect", "report", path, "--samples", CARDS // 2, "--views", 2, "--out", path.with_name("r.html"))
    assert made.exit_code == 0, made.output
    return path.with_name("r.html")


def test_a_hundred_thousand_cards_are_there_within_a_second(watched: Watched, large: Path) -> None:
    assert large.stat().st_size < 5_000_000
    page = watched.open(large)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1000
    assert page.inner_text("#count").startswith("100,000 of 100,000 views, 50,000 of 50,000 samples")
    assert page.locator(".card").count() < 400 and page.locator("#target option").count() == 1001
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
    page.fill("#key", "n00000049_99")
    assert page.inner_text("#count").startswith("22 of 100,000 views, 11 of 50,000 samples")
    page.fill("#key", "")
    page.click("#select-shown")
    assert page.inner_text("#selected") == "50,000 samples selected" and len(page.evaluate("location.hash")) < 50


def test_a_page_takes_no_more_views_or_bytes_than_it_can_show(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    out, shards = store.path.with_name("small.html"), store.path.with_name("a.tar")
    refused = run("inspect", "report", store.path, "--samples", 50_001, "--views", 2, "--out", out)
    assert refused.exit_code == 2 and "expected at most 100,000 views on a page, found 50,001" in refused.stderr
    assert run("inspect", "report", store.path, "--out", out).exit_code == 0
    bare = out.stat().st_size
    monkeypatch.setattr("distillcache.inspection.report._BYTES", bare + 30_000)
    made = run("inspect", "report", store.path, "--out", out, "--shards", shards)
    drawn = int(re.search(r"pictures of (\d+) samples", made.stdout)[1])  # type: ignore[index]
    assert 0 < drawn < SAMPLES and bare < out.stat().st_size < bare + 30_000
    packed = re.search(r'id="data">([^<]+)<', out.read_text())
    assert packed and len(json.loads(zlib.decompress(b64decode(packed[1])))["view"]) == SAMPLES * VIEWS
