"""The explorer in a real browser: what a person does with it, and what the screen then shows."""

import csv
import io
import json
import re
from ast import literal_eval
from dataclasses import replace
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import papermill
import pytest
import rasterio
from browser import served
from latency import crowd
from PIL import Image

from rscir_lib.apps.explorer import Explorer, marks_table, read_marks, session
from rscir_lib.apps.explorer.marks import add_mark
from rscir_lib.apps.explorer.opening import prepared
from rscir_lib.apps.explorer.page import write_page
from rscir_lib.archive import read_archive
from rscir_lib.archive.tiles import read_scenes
from rscir_lib.benchmarks.synthcom import HELD_OUT
from rscir_lib.encoders import load_encoder
from rscir_lib.evaluation import evaluate
from rscir_lib.features import extract_features, read_features
from rscir_lib.methods.registry import METHODS
from rscir_lib.runs import open_run
from rscir_lib.search import Searcher, top_k
from rscir_lib.storage.project import ROOT

LAMBDAS = (0, 0.3, 0.5, 0.75, 1)
pytestmark = pytest.mark.usefixtures("chromium")  # or nothing here runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The bundled run, its outcome in a folder of its own."""
    return prepared(open_run(OUTPUT_ROOT=str(tmp_path_factory.mktemp("explorer")), DEVICE="cpu"))


@pytest.fixture(scope="module")
def bundled(run):
    return Explorer.of(run)


@pytest.fixture(scope="module")
def address(bundled):
    with served(bundled) as address:
        yield address


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """PatternNet's 30,400 images: random features."""
    return crowd(tmp_path_factory.mktemp("crowd"), load_encoder("demo", device="cpu"), 30_400)


def link(image: str | None = None, words: str = "", lam: float = 0.5, method: str = "weicom", **more) -> str:
    asked = {"words": words, "lambda": f"{lam:g}", "method": method} | more
    return "#" + urlencode(({"image": image} if image else {}) | asked)


def wait_for(page, **asked: object) -> None:
    """Until the hits of this query are drawn: image, words, lambda, method ... of its link; None for one without."""
    wanted = {key.rstrip("_"): value if value is None else str(value) for key, value in asked.items()}
    page.wait_for_function(
        """(wanted) => {
          const drawn = document.querySelector(".rscir")?.dataset.drawn, query = new URLSearchParams(drawn);
          return drawn !== undefined && Object.entries(wanted).every(([key, value]) => query.get(key) === value);
        }""",
        arg=wanted,
    )


def hits(page) -> list[str]:
    """Files of the hits on the screen, best first."""
    return page.eval_on_selector_all(".hits .open", "nodes => nodes.map((node) => node.title)")


def wait_for_hits(page, expected: list[str]) -> None:
    """Until these are the hits, where the link can't tell."""
    found = "[...document.querySelectorAll('.hits .open')].map((node) => node.title).join()"
    page.wait_for_function(f"(expected) => {found} === expected", arg=",".join(expected))


def files(explorer: Explorer, positions) -> list[str]:
    return [explorer.archive.files[i] for i in positions]


def words_of(page):
    return page.get_by_role("combobox", name="Words")


def slide(page, lam: float) -> None:
    page.locator(".lambda").fill(f"{lam:g}")


def test_first_screens_show_a_query_that_works_and_needs_picture_and_words(bundled, run, tmp_path):
    """Explorer, static page, notebooks 03, 04, 06, 07: no worse than half of all queries, and learned in training."""
    methods = ["image", "text", "weicom"]
    rows = evaluate(run.benchmark, run.features, run.encoder.encode_texts, methods, [0.5], progress=False)
    ap = rows.set_index("method", append=True)["AP"].unstack()
    queries = run.benchmark.queries
    facts = json.loads(write_page(bundled, tmp_path).with_name("data.js").read_text()[len("globalThis.RSCIR = ") : -2])
    parameters = {
        number: {name: entry["default"] for name, entry in papermill.inspect_notebook(str(path)).items()}
        for number in ("03", "04", "06", "07") for path in (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    }  # fmt: skip
    asked = {number: {name: literal_eval(parameters[number][name]) for name in ("POSITION", "QUERY_TEXT", "LAMBDA")}
             for number in ("06", "07")}  # fmt: skip
    shown = {number: queries.index[(queries["position"] == its["POSITION"]) & (queries["text"] == its["QUERY_TEXT"])][0]
             for number, its in asked.items()}  # fmt: skip
    first = {
        "explorer": bundled.hello()["opening"], "page": facts["facts"]["opening"], **shown,
        **{number: literal_eval(parameters[number]["QUERY"]) for number in ("03", "04")},
    }  # fmt: skip
    print({where: round(100 * ap["weicom"][row], 1) for where, row in first.items()}, 100 * ap["weicom"].median())
    assert bundled.hello()["median"] == facts["facts"]["median"] == pytest.approx(100 * ap["weicom"].median())
    assert [its["LAMBDA"] for its in asked.values()] == [0.5, 0.5]
    for row in first.values():
        query = queries.loc[row]
        assert ap["weicom"][row] >= ap["weicom"].median()
        assert ap["weicom"][row] > 2 * ap.loc[row, ["image", "text"]].max()
        assert HELD_OUT.isdisjoint((query["attribute"], query["group"], query[value]) for value in ("text", "value"))


def test_the_page_loads_with_a_query_of_the_benchmark(visit, address, bundled):
    page = visit(address)
    query = bundled.benchmark.queries.iloc[bundled.hello()["opening"]]
    file = bundled.archive.files[query["position"]]
    wait_for(page, image=file, words=query["text"], lambda_=0.5)
    assert page.get_by_role("heading", name=bundled.title).is_visible()
    assert re.search(r"AP \d\d\.\d \(median query \d\d\.\d\)", page.locator(".metrics").inner_text())
    assert len(hits(page)) == 20
    relevant = set(files(bundled, bundled.benchmark.targets[query["target"]]))
    framed = page.eval_on_selector_all(".hits li.relevant .open", "nodes => nodes.map((node) => node.title)")
    assert framed == [file for file in hits(page) if file in relevant]
    assert page.locator(".hits li.relevant .badge").all_inner_texts() == ["✓"] * len(framed)
    assert page.locator(".count").inner_text() == f"20 of 972 images, {len(framed)} relevant"


@pytest.mark.parametrize("archive", ["bundled", "large"])
def test_the_order_on_screen_is_that_of_search(visit, request, archive):
    explorer = request.getfixturevalue(archive)
    position, words = 100, "three"
    file, feats = explorer.archive.files[position], explorer.feats
    text = explorer.encoder.encode_texts([words])[0]
    with served(explorer) as address:
        page = visit(address + link(file, words))
        for method in ("weicom", "linear", "rrf"):
            page.get_by_label("Method").select_option(method)
            for lam in LAMBDAS:
                slide(page, lam)
                wait_for(page, image=file, words=words, lambda_=lam, method=method)
                expected, _ = top_k(explorer.gallery, feats[position], text, lam, 20, method)
                assert hits(page) == files(explorer, expected), (method, lam)


@pytest.mark.parametrize("method", ["weicom", "zscore", "minimum"])
def test_candidates_alone_give_the_order_of_search_at_any_lambda(visit, large, monkeypatch, method):
    """The archive is too large to be sent whole: the browser sees the images that can be among the hits."""
    monkeypatch.setattr(session, "WHOLE", 10_000)
    image, words = large.feats[100], large.encoder.encode_texts(["three"])[0]
    with served(large) as address:
        page = visit("about:blank")
        for lam in (0, 0.0137, 0.5, 0.777, 0.99999, 1) if METHODS[method].has_lambda else (0.5,):
            page.goto(address + link(large.archive.files[100], "three", lam, method, top="200"))
            wait_for(page, words="three", lambda_=f"{lam:g}", method=method)
            assert hits(page) == files(large, top_k(large.gallery, image, words, lam, 200, method)[0]), lam
        assert "of 30,400 images can be among the first hits" in page.locator(".note[role=status]").first.inner_text()
        page.locator(".mix").get_by_label("Class").select_option("group3")
        wait_for(page, **{"class": "group3"})
        assert len(hits(page)) == 200
        assert {large.archive.classes[large.archive.files.index(file)] for file in hits(page)} == {"group3"}
        page.goto("about:blank")  # what it still asks for would find no server


def test_every_method_orders_as_search_does(visit, address, bundled, run):
    search = Searcher(run.features, run.encoder, run.archive_with_features)
    file = bundled.archive.files[300]
    page = visit(address + link(file, "grass", 0.6))
    wait_for(page, image=file, lambda_=0.6)
    for method in METHODS.keys() - {"image", "text"}:
        page.get_by_label("Method").select_option(method)
        wait_for(page, image=file, method=method)
        assert hits(page) == search(300, "grass", 0.6, method).table["file"].tolist(), method
        assert page.locator(".lambda").is_enabled() == METHODS[method].has_lambda


def test_the_scores_are_those_of_search(visit, address, run):
    search = Searcher(run.features, run.encoder, run.archive_with_features)
    page = visit(address + link(run.archive_with_features.files[7], "red", 0.4))
    wait_for(page, words="red", lambda_=0.4)
    table = search(7, "red", 0.4).table
    assert page.locator(".hits .score").all_inner_texts() == [f"{score:.4f}" for score in table["score"]]
    first = page.locator(".hits li").first.locator("td").all_inner_texts()
    assert first[0::2] == [f"{table[f'cosine_{side}'][0]:.3f}" for side in ("image", "text")]
    cosines = run.features.aligned(run.archive_with_features) @ run.encoder.encode_texts(["red"])[0]
    assert first[3] == f"{100 * (cosines < cosines[table['position'][0]]).sum() / 971:.1f} %"


def test_words_are_typed(visit, address, bundled):
    file, text = bundled.archive.files[40], bundled.encoder.encode_texts
    page = visit(address + link(file, lam=0.9))
    wait_for(page, image=file, words="")
    words = words_of(page)
    words.press_sequentially("grass")
    wait_for(page, words="grass")
    of_image, (grass, trees) = bundled.feats[40], text(["grass", "trees"])
    assert hits(page) == files(bundled, top_k(bundled.gallery, of_image, grass, 0.9)[0])
    assert "grass" in page.eval_on_selector_all("datalist option", "nodes => nodes.map((node) => node.value)")
    words.press_sequentially(" - trees")
    wait_for(page, words="grass - trees")
    left = grass - (grass @ trees) * trees
    left /= np.linalg.norm(left)
    assert hits(page) == files(bundled, top_k(bundled.gallery, of_image, left, 0.9)[0])
    words.fill("zebra")
    wait_for(page, words="zebra")
    assert "never saw zebra" in page.locator(".note[role=status]").first.inner_text()
    slide(page, 0.05)
    wait_for(page, lambda_=0.05)
    words.fill("red - red")
    page.get_by_role("alert").filter(has_text="leaves nothing to search for").wait_for()
    assert hits(page) == []
    words.fill("blue")
    wait_for(page, words="blue")
    assert page.locator(".error").text_content() == ""


def test_words_that_move_nothing_are_said_to(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[40], "grass", 0.05, "linear", top="1"))
    wait_for(page, words="grass")
    page.get_by_text("The words change nothing here").wait_for()
    slide(page, 1)
    wait_for(page, lambda_=1)
    assert not page.get_by_text("The words change nothing here").is_visible()


def test_the_slider_is_moved_by_mouse_and_by_keyboard(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two"))
    wait_for(page, words="two")
    slider = page.get_by_role("slider", name="lambda, from picture to words")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=10)
    wait_for(page, lambda_=1)
    page.mouse.up()
    expected, _ = top_k(bundled.gallery, bundled.feats[3], bundled.encoder.encode_texts(["two"])[0], 1)
    assert hits(page) == files(bundled, expected)
    slider.press("ArrowLeft")
    wait_for(page, lambda_=0.95)
    slider.press("ArrowLeft")
    wait_for(page, lambda_=0.9)
    assert slider.get_attribute("aria-valuetext") == "lambda 0.90"
    assert slider.evaluate("node => node === document.activeElement")
    slider.press("Home")
    wait_for(page, lambda_=0)
    assert hits(page)[0] == bundled.archive.files[3]


def test_lambda_is_read_off_the_query(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two"))
    wait_for(page, words="two")
    lam = bundled.answer({"ask": "auto", "images": [3], "words": "two"})["lambda"]
    page.get_by_role("button", name="read lambda off this query").click()
    wait_for(page, lambda_=f"{lam:g}")
    said = page.get_by_text(f"λ {lam:.2f} is read off this query; of the archive drawn anew, half the times between")
    said.wait_for()
    slide(page, 0.1)
    wait_for(page, lambda_=0.1)
    assert not said.is_visible()
    words_of(page).fill("")
    words_of(page).press("Enter")
    page.locator("[data-part=auto]:disabled").wait_for()  # with a picture alone there is nothing to mix


def test_what_is_changed_while_a_link_is_being_opened_is_kept(visit, address, bundled):
    held = []
    page = visit("about:blank")

    def hold(route):
        return held.append(route) if b'"query"' in route.request.post_data_buffer else route.continue_()

    page.route("**/ask", hold)
    page.goto(address + link(bundled.archive.files[77], "blue", 0.5))
    page.wait_for_function("() => document.querySelector('.lambda')?.getAttribute('aria-valuetext') === 'lambda 0.50'")
    slide(page, 0.25)
    page.get_by_label("Method").select_option("linear")
    while not held:
        page.wait_for_timeout(20)
    held.pop().continue_()
    wait_for(page, image=bundled.archive.files[77], words="blue", lambda_=0.25, method="linear")


def test_hits_are_clicked_and_the_way_back_is_found(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two", top="6"))
    wait_for(page, words="two")
    before = hits(page)
    first = bundled.archive.files[3]
    other = next(file for file in before if file != first)
    page.locator(".hits li").nth(before.index(other)).get_by_text("→").click()
    wait_for(page, image=other)
    after = hits(page)
    page.get_by_label("back to the query before").click()
    wait_for(page, image=first)
    assert hits(page) == before
    page.get_by_label("forward again").click()
    wait_for(page, image=other)
    assert hits(page) == after
    page.locator(".hits li").nth(after.index(other) - 1).get_by_text("+").click()
    page.wait_for_function("() => new URLSearchParams(location.hash.slice(1)).getAll('image').length === 2")
    images = page.evaluate("new URLSearchParams(location.hash.slice(1)).getAll('image')")
    wait_for(page, image=images[0])
    mean = bundled.feats[[bundled.archive.files.index(file) for file in images]].mean(axis=0)
    two = bundled.encoder.encode_texts(["two"])[0]
    expected = files(bundled, top_k(bundled.gallery, mean / np.linalg.norm(mean), two, 0.5, 6)[0])
    wait_for_hits(page, expected)


def test_a_hit_is_enlarged_and_searched_from_and_there_are_more(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two", top="6"))
    wait_for(page, words="two")
    shown = hits(page)
    page.locator(".hits .open").nth(5).click()
    large = page.get_by_role("dialog")
    page.get_by_label("next hit").click()  # after the last the first
    path = bundled.archive.path(bundled.archive.files.index(shown[0]))
    large.get_by_text(str(path)).wait_for()
    with bundled.archive.read(bundled.archive.files.index(shown[0])) as image:
        assert large.locator("img").evaluate("(img) => [img.naturalWidth, img.naturalHeight]") == list(image.size)
    assert large.get_by_text("Open").get_attribute("href").startswith("blob:")
    page.get_by_label("hit before").click()
    large.get_by_text(shown[5].rsplit("/")[-1], exact=False).first.wait_for()
    page.get_by_label("search from this picture").click()
    wait_for(page, image=shown[5])
    assert not large.is_visible()
    page.get_by_label("show twenty more hits").click()
    page.wait_for_function("() => document.querySelectorAll('.hits li').length === 26")
    page.get_by_label("Method").select_option("zscore")
    page.get_by_text("Both similarities in standard deviations").wait_for()
    assert all(method["about"] for method in bundled.hello()["methods"])


def test_pictures_are_chosen_by_class_name_page_and_chance(visit, address, bundled):
    page = visit(address)
    side, thumbs = page.locator(".browse"), page.locator(".thumbs button")
    shown = "() => [...document.querySelectorAll('.thumbs button')].map((node) => node.title)"
    page.wait_for_function("() => document.querySelectorAll('.thumbs button').length === 24")
    everything = page.evaluate(shown)
    side.get_by_label("next page").click()
    page.get_by_text("page 2 of 41").wait_for()
    assert not set(page.evaluate(shown)) & set(everything)
    side.get_by_label("Class").select_option("beach")
    page.wait_for_function(f"() => ({shown})().every((title) => title.endsWith('beach'))")
    side.get_by_label("Name").fill("H003")
    page.wait_for_function("() => document.querySelectorAll('.thumbs button').length === 1")
    thumbs.first.click()
    wait_for(page, image=next(file for file in bundled.archive.files if file.endswith("beach003.jpg")))
    side.get_by_label("Class").select_option("")
    side.get_by_label("Name").fill("")
    side.get_by_label("pictures drawn at random").click()  # before the name is read
    ordered = json.dumps(",".join(everything))
    page.wait_for_function(f"() => ({shown})().length === 24 && ({shown})().join() !== {ordered}")
    page.wait_for_timeout(400)
    assert ",".join(page.evaluate(shown)) != ",".join(everything), "the name, read later, undid the draw"


def test_hits_are_filtered(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[500], "red", 0.5))
    wait_for(page, words="red")
    mix = page.locator(".mix")
    scores = [float(score) for score in page.locator(".hits .score").all_inner_texts()]
    mix.get_by_label("Hits").fill("7")
    mix.get_by_label("Hits").press("Enter")
    wait_for(page, top=7)
    assert len(hits(page)) == 7
    mix.get_by_label("Least score").fill(str(scores[2]))
    mix.get_by_label("Least score").press("Enter")
    wait_for(page, min=scores[2])
    assert len(hits(page)) in (2, 3)  # what is shown is rounded
    mix.get_by_label("Least score").fill("")
    mix.get_by_label("Least score").press("Enter")
    mix.get_by_label("Class").select_option("harbor")
    wait_for(page, **{"class": "harbor"}, min=None)
    assert len(hits(page)) == 7
    assert {bundled.archive.classes[bundled.archive.files.index(file)] for file in hits(page)} == {"harbor"}


def test_queries_of_the_benchmark_with_their_precision(visit, address, bundled, run):
    rows = evaluate(run.benchmark, run.features, run.encoder.encode_texts, ["weicom"], [0.5, 0.2], progress=False)
    page = visit(address)
    wait_for(page)
    for which, pick in (("worst", min), ("best", max)):
        page.get_by_label(f"{which} query of the benchmark").click()
        page.wait_for_function("(ap) => document.querySelector('.metrics').textContent.includes(`AP ${ap} `)",
                               arg=f"{100 * pick(rows.loc[rows['lambda'] == 0.5, 'AP']):.1f}")  # fmt: skip
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # the address, too
    asked = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    slide(page, 0.2)
    wait_for(page, lambda_=0.2)
    name = asked["image"].rsplit("/")[-1]
    row = rows[(rows["image"] == name) & (rows["text"] == asked["words"]) & (rows["lambda"] == 0.2)].iloc[0]
    told = page.locator(".metrics").inner_text()
    assert f"AP {100 * row['AP']:.1f} " in told
    assert f"P@5 {100 * row['P@5']:.0f} · P@10 {100 * row['P@10']:.0f}" in told
    assert page.locator(".hits li.relevant .badge").all_inner_texts() == ["✓"] * round(20 * row["P@20"])
    assert row["P@20"] > 0
    page.get_by_text(f"AP of this query against lambda: {100 * row['AP']:.1f} at 0.20").wait_for()
    page.get_by_label("random query of the benchmark").click()
    page.wait_for_function("(was) => location.href !== was", arg=page.url)
    words_of(page).fill("striped texture")
    page.get_by_text("This query is not in the benchmark").wait_for()


def test_a_method_that_refuses_leaves_no_pictures_of_another(visit, bundled, monkeypatch):
    odd = replace(METHODS["weicom"], name="odd", scope="archive", combine=lambda image, text, lam: text / 0 * 0)
    monkeypatch.setitem(METHODS, "odd", odd)
    with served(bundled) as address:
        page = visit(address)
        page.locator(".strip button").first.wait_for()
        page.get_by_label("Method").select_option("odd")
        page.get_by_text("method 'odd' gives scores that are not finite").first.wait_for()
        page.wait_for_function("() => !document.querySelector('.strip button, .hits .open')")


def test_strip_and_scatter_go_with_the_grid(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two"))
    wait_for(page, words="two")
    strip = page.locator(".strip button")
    strip.nth(4).wait_for()
    assert [text.strip() for text in strip.locator("> span:first-child").all_inner_texts()] == [
        f"λ {lam:g}" for lam in (0, 0.5, 0.75, 0.95, 1)
    ]
    still = "() => document.querySelector('.plot svg').innerHTML"
    before = page.evaluate(still)
    strip.nth(3).click()
    wait_for(page, lambda_=0.95)
    turned = page.evaluate(still)
    assert turned != before
    page.locator(".hits li").nth(4).hover()
    assert page.evaluate(still) != turned
    assert page.locator("canvas").get_attribute("aria-label") == "scatter of 972 images, 20 hits marked, lambda 0.95"
    file = hits(page)[2]
    sides = [bundled.feats @ query for query in (bundled.feats[3], bundled.encoder.encode_texts(["two"])[0])]
    pixels = "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 640, 480).data"
    assert page.evaluate(f"new Set({pixels}).size") > 3  # the archive is drawn
    page.locator("canvas").scroll_into_view_if_needed()
    row, box = bundled.archive.files.index(file), page.locator("canvas").bounding_box()
    margin = [0.2 * side.std(ddof=1) for side in sides]
    share = [(s[row] - s.min() + m) / (np.ptp(s) + 2 * m) for s, m in zip(sides, margin, strict=True)]
    x, y = 34 + share[0] * (640 - 42), 480 - 34 - share[1] * (480 - 42)
    page.mouse.move(box["x"] + float(x) * box["width"] / 640, box["y"] + float(y) * box["width"] / 640)
    assert page.locator(".hits li.over .open").get_attribute("title") == file
    page.get_by_text(re.compile(f"^{file.rsplit('/')[-1]}.*a click searches from it")).wait_for()
    page.mouse.down()
    page.mouse.up()
    wait_for(page, image=file)


def test_a_link_opens_the_same_view(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[77], "blue", top="9"))
    wait_for(page, words="blue")
    words_of(page).fill("dense - cars")
    slide(page, 0.65)
    page.get_by_label("Method").select_option("zscore")
    wait_for(page, words="dense - cars", lambda_=0.65, method="zscore")
    other = visit(page.url)
    wait_for(other, image=bundled.archive.files[77], words="dense - cars", lambda_=0.65, method="zscore", top=9)
    assert hits(other) == hits(page)
    lost = visit(address + link("no/such.jpg", "blue"))
    lost.get_by_role("alert").filter(has_text="has no image 'no/such.jpg'").wait_for()
    wait_for(lost, words="blue", image=None)
    assert len(hits(lost)) == 20


def test_pictures_of_ones_own_and_a_broken_one(visit, address, bundled, tmp_path):
    page = visit(address + link(words="red", lam=0))
    wait_for(page, words="red")
    chooser = page.locator("input[type=file]")
    bundled.archive.read(9).save(tmp_path / "own.png")
    chooser.set_input_files(tmp_path / "own.png")
    page.get_by_label("take away own.png, your own").wait_for()
    page.wait_for_function("(file) => document.querySelector('.hits .open').title === file",
                           arg=bundled.archive.files[9])  # fmt: skip
    kept = hits(page)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    chooser.set_input_files(tmp_path / "broken.jpg")
    page.get_by_role("alert").filter(has_text="broken.jpg: not a readable image").wait_for()
    assert str(tmp_path) not in page.get_by_role("alert").inner_text()
    assert hits(page) == kept
    words_of(page).fill("blue")
    wait_for(page, words="blue")
    bundled.archive.read(12).save(tmp_path / "<script>alert(1)<&lt;.png")
    data = (tmp_path / "<script>alert(1)<&lt;.png").read_bytes()
    page.evaluate(
        """(bytes) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([new Uint8Array(bytes)], "<script>alert(1)<&lt;.png"));
          document.querySelector(".rscir").dispatchEvent(new DragEvent("drop", {dataTransfer: dropped}));
        }""",
        list(data),
    )
    page.get_by_label("take away <script>alert(1)<&lt;.png, your own").wait_for()


def test_marks_are_saved(visit, address, bundled):
    file = bundled.archive.files[222]
    page = visit(address + link(file, "sand", top="5"))
    wait_for(page, words="sand")
    found = hits(page)
    for k, verdict in ((0, "right"), (1, "wrong"), (2, "right"), (2, "right")):  # the last takes back
        button = page.locator(".hits li").nth(k).locator(f"button[aria-label^=mark][aria-label$={verdict}]")
        pressed = button.get_attribute("aria-pressed")
        button.click()
        page.wait_for_function("([node, was]) => node.getAttribute('aria-pressed') !== was",
                               arg=[button.element_handle(), pressed])  # fmt: skip
    benchmark = read_marks(bundled.marks, bundled.archive)
    query = benchmark.queries[benchmark.queries["position"] == 222].iloc[0]
    assert files(bundled, benchmark.targets[query["target"]]) == [found[0]]
    assert len(benchmark.unknowns[query["unknown"]]) == len(bundled.archive) - 2
    again = visit(page.url)
    wait_for(again, words="sand")
    assert again.locator(".hits li.marked-right, .hits li.marked-wrong").count() == 2
    again.get_by_text(f"Your marks: 2, saved in {bundled.marks}").click()
    again.get_by_label(f"undo ✗ {found[1].rsplit('/')[-1]}").click()
    again.get_by_text("Your marks: 1, saved").wait_for()
    assert again.locator(".hits li.marked-wrong").count() == 0
    assert marks_table(bundled.marks)["verdict"].tolist() == ["right"]


def test_a_page_left_open_over_a_restart_says_reload(visit, bundled, monkeypatch):
    with served(bundled) as address:
        page = visit(address + link(bundled.archive.files[111], "sand"))
        wait_for(page, words="sand")
        before = bundled.marks.read_bytes() if bundled.marks.exists() else b""
        monkeypatch.setattr(bundled, "identity", "of other images")
        page.locator(".hits li button[aria-label^=mark]").first.click()
        page.get_by_role("alert").filter(has_text="reload it").wait_for()
        assert page.locator(".hits li.marked-right").count() == 0
        words_of(page).fill("roof")  # nor is anything shown for a question that is answered no more
        wait_for_hits(page, [])
        assert "reload it" in page.get_by_role("alert").inner_text()
        assert (bundled.marks.read_bytes() if bundled.marks.exists() else b"") == before
        page.reload()
        wait_for(page, words="roof")
        assert page.locator("p.error").text_content() == ""
        page.goto("about:blank")  # or it might ask a server that is gone


def test_damaged_marks_and_changed_images_are_said_on_the_page(visit, bundled, tmp_path, monkeypatch):
    explorer = Explorer(bundled.archive, bundled.features, bundled.encoder, tmp_path)
    explorer.marks.write_text("image,text,answer,verdict\na,b,c,maybe\n")
    with served(explorer) as address:
        page = visit(address + link(explorer.archive.files[222], "sand"))
        alert = page.get_by_role("alert")
        wait_for(page, words="sand")
        assert re.search(r"marks\.csv, line 2: .* mend or remove it\. Until then", alert.inner_text())
        slide(page, 0.9)
        wait_for(page, lambda_=0.9)
        assert "line 2" in alert.inner_text()
        explorer.marks.unlink()
        monkeypatch.setattr(explorer.thumbnails, "changed", lambda k: "one.jpg has changed" if k != 222 else "")
        page.goto("about:blank")
        page = visit(address + link(explorer.archive.files[222], "roof"))
        page.get_by_role("alert").filter(has_text="one.jpg has changed").wait_for()
        wait_for(page, words="roof")
        page.goto("about:blank")


def test_answers_to_a_picture_of_ones_own_are_marked(visit, address, bundled, tmp_path):
    page = visit(address + link(words="red", lam=0))
    wait_for(page, words="red")
    bundled.archive.read(9).save(tmp_path / "own.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    page.get_by_label("take away own.png, your own").wait_for()
    page.wait_for_function("(file) => document.querySelector('.hits .open').title === file",
                           arg=bundled.archive.files[9])  # fmt: skip
    page.locator(".hits li button[aria-label^=mark]").first.click()
    page.locator(".hits li.marked-right").wait_for()
    mark = marks_table(bundled.marks).iloc[-1].tolist()
    assert mark == ["upload: own.png", "red", bundled.archive.files[9], "right"]
    add_mark(bundled.marks, bundled.archive.files[3], "red", bundled.archive.files[4], "right")
    left_out = read_marks(bundled.marks, bundled.archive).warnings.query("value == 'red'")["problem"].item()
    assert "a picture that is not of the archive" in left_out
    page.locator(".marks summary").click()
    page.get_by_label("for upload: own.png + red").click()  # undone
    page.wait_for_function("() => !document.querySelector('.hits li.marked-right')")


def test_the_view_is_exported(visit, address, bundled, tmp_path):
    page = visit(address + link(bundled.archive.files[5], "many", top="8"))
    wait_for(page, words="many")
    saved = {}
    for what in ("CSV", "PNG", "HTML"):
        with page.expect_download() as download:
            page.get_by_role("button", name=re.compile("^save these hits as .*")).filter(has_text=what).click()
        saved[what] = download.value.path().read_bytes()
        stem = bundled.archive.files[5].rsplit("/")[-1].removesuffix(".jpg")
        assert download.value.suggested_filename == f"hits_{stem}-many.{what.lower()}"
    rows = list(csv.DictReader(io.StringIO(saved["CSV"].decode())))
    assert [row["file"] for row in rows] == hits(page)
    assert [f"{float(row['score']):.4f}" for row in rows] == page.locator(".hits .score").all_inner_texts()
    ask = Searcher(bundled.features, bundled.encoder, bundled.archive)
    library = pd.read_csv(ask(5, "many", 0.5, top=8).to_csv(tmp_path / "hits.csv"))
    assert list(rows[0]) == [*library.columns, "judged", "mark"]  # one schema, whoever wrote it
    page_table = pd.read_csv(io.BytesIO(saved["CSV"]))
    same = ["rank", "position", "file", "class", "query_image", "query_text", "query_method", "query_lambda"]
    pd.testing.assert_frame_equal(page_table[same], library[same], check_dtype=False)
    numbers = ["score", "cosine_image", "cosine_text", "normal_image", "normal_text"]
    assert page_table[numbers].to_numpy() == pytest.approx(library[numbers].to_numpy(), abs=1e-12)
    png = Image.open(io.BytesIO(saved["PNG"])).convert("RGB")
    asked = np.asarray(png.crop((14, 58, 110, 154)), float)  # the picture of the query stands above the hits
    own = np.asarray(bundled.archive.read(5).resize((96, 96)), float)
    assert np.abs(asked - own).mean() < 12
    html = saved["HTML"].decode()
    assert html.count('src="data:image/jpeg;base64,') == 9
    assert "http" not in html


def test_names_are_shown_and_never_run(visit, tmp_path):
    encoder, folder = load_encoder("demo", device="cpu"), tmp_path / "archive"
    taken = "<script>document.title='taken'<"
    names = [f"{taken}/script>.png", "plain/<img src=x onerror=document.title='taken'>.png", 'plain/"&amp;.png']
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (80 * k, 90, 200)).save(folder / name)
    archive = read_archive(folder)
    assert set(archive.files) == set(names)
    extract_features(archive, encoder, tmp_path / "features", workers=1)
    explorer = Explorer(archive, read_features(tmp_path / "features", archive, encoder), encoder, tmp_path / "run")
    with served(explorer) as address:
        page = visit(address + link(names[0], "<script>alert(1)</script>"))
        wait_for(page, image=names[0])
        assert sorted(hits(page)) == sorted(names)
        assert taken in page.locator(".hits .cls").all_inner_texts()
        page.locator(".thumbs button").nth(2).wait_for()
        assert page.title() == explorer.title
        with page.expect_download() as download:
            page.get_by_label("save these hits as one self-contained page").click()
        kept = visit(download.value.path().as_uri())
        assert kept.title() != "taken"
        assert kept.locator("script").count() == 0
    written = visit(write_page(explorer, tmp_path / "page").as_uri() + link(names[1]))
    wait_for(written, image=names[1])
    assert written.title() == explorer.title
    assert sorted(hits(written)) == sorted(names)


def test_a_page_without_python_orders_as_the_library(visit, bundled, run, tmp_path):
    page_file = write_page(bundled, tmp_path / "page")
    page = visit(page_file.as_uri())
    wait_for(page, words=bundled.queries["text"].iloc[bundled.hello()["opening"]])
    search = Searcher(run.features, run.encoder, run.archive_with_features)
    methods = page.get_by_label("Method").locator("option").all_inner_texts()
    assert methods == [m["name"] for m in bundled.hello()["methods"] if m["rule"]]
    for method in methods:
        file = bundled.archive.files[611]
        page.goto(page_file.as_uri() + link(file, "oval", 0.35, method))
        for lam in LAMBDAS if METHODS[method].has_lambda else LAMBDAS[:1]:
            if METHODS[method].has_lambda:
                slide(page, lam)
                wait_for(page, lambda_=lam)
            wait_for(page, image=file, words="oval", method=method)
            assert hits(page) == search(611, "oval", lam, method).table["file"].tolist(), (method, lam)
    words_of(page).fill("zebra")
    page.get_by_role("alert").filter(has_text='"zebra" is not among them').wait_for()
    words_of(page).fill("grass zebra Cars")
    page.get_by_role("alert").filter(has_text='By itself, it knows "grass", "Cars".').wait_for()
    words_of(page).fill("green - grass")
    wait_for(page, words="green - grass")
    assert page.locator("input[type=file]").count() == 0
    page.locator(".hits li button[aria-label^=mark]").first.click()
    page.get_by_text("Your marks: 1, saved in this browser").click()
    with page.expect_download() as download:
        page.get_by_label("save your marks as a table").click()
    marks = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert marks == [["image", "text", "answer", "verdict"], [file, "green - grass", hits(page)[0], "right"]]


def test_a_server_that_is_gone_is_said_and_the_page_goes_on(chromium, bundled):
    page = chromium.new_page()
    with served(bundled) as address:
        page.goto(address + link(bundled.archive.files[0], "red"))
        wait_for(page, words="red")
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    words_of(page).fill("blue")
    page.get_by_role("alert").filter(has_text="gives no answer. Start it again").wait_for()
    page.close()
    assert problems == []


def test_a_server_that_comes_back_is_asked_again(chromium, address, bundled):
    page = chromium.new_page()
    page.goto(address + link(bundled.archive.files[0], "red"))
    wait_for(page, words="red")
    page.route("**/ask", lambda route: route.abort())
    words_of(page).fill("blue")
    page.get_by_role("alert").filter(has_text="gives no answer").wait_for()
    page.unroute("**/ask")
    wait_for(page, words="blue")  # nobody clicked
    assert page.locator(".error").inner_text() == ""
    page.close()


NAMELESS = """() => [...document.querySelectorAll(".rscir :is(button, input, select, canvas, img)")].filter((node) =>
  node.offsetParent && !(node.tagName === "IMG" ? node.alt : node.ariaLabel || node.labels?.length)
).map((node) => node.outerHTML)"""

# what a mouse finds no words for, and texts of hits that are cut
UNSAID = """() => [...document.querySelectorAll(".rscir button, .hits :is(.cls, .name, .score)")].filter((node) =>
  node.offsetParent && (node.tagName === "BUTTON" ? !node.title && !/[a-z]/i.test(node.textContent) &&
    !node.textContent.startsWith("λ") : node.scrollWidth > node.clientWidth + 1)
).map((node) => node.outerHTML)"""


@pytest.mark.parametrize("look", ["light", "dark"])
def test_everything_has_a_name_and_fits_a_telephone(visit, address, look):
    page = visit(address, color_scheme=look, viewport={"width": 400, "height": 800})
    wait_for(page)
    page.get_by_text("Choose a picture", exact=True).click()
    page.locator(".thumbs img").last.wait_for()
    page.locator(".strip button").last.wait_for()
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for width in (400, 1280, 1700):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(UNSAID) == []
        buttons = page.get_by_label(re.compile("^(copy a link|save these hits)"))  # all measured at one time
        tops = buttons.evaluate_all(
            "nodes => nodes.filter((n) => n.offsetParent).map((n) => n.getBoundingClientRect().y)"
        )
        assert len(tops) >= 4
        assert len(set(tops)) == 1  # on one line
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.locator("[role=status][aria-live=polite]").inner_text().startswith("20 of 972 images")
    paper, ink = page.evaluate(
        "[getComputedStyle(document.querySelector('.rscir')).backgroundColor, "
        "getComputedStyle(document.querySelector('.rscir')).color]"
    )
    bright = [np.mean([int(c) for c in re.findall(r"\d+", color)]) for color in (paper, ink)]
    assert (bright[0] > bright[1]) == (look == "light")
    assert abs(bright[0] - bright[1]) > 180


def test_it_is_used_by_keyboard_alone(visit, address, bundled):
    page = visit(address + link(bundled.archive.files[3], "two", top="4"))
    wait_for(page, words="two")
    words_of(page).focus()
    page.keyboard.type(" red")
    wait_for(page, words="two red")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "lambda":
            break
    page.keyboard.press("ArrowRight")
    wait_for(page, lambda_=0.55)
    expected = hits(page)[1]
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.title") == expected:
            break
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "open"  # the focus is back
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for(page, image=expected)
    assert page.evaluate("document.activeElement.textContent") == "→"  # the focus is kept


def test_hits_are_shown_where_they_lie(visit, tmp_path):
    """Windows of a scene of four bands and 16 bits, with coordinates."""
    size, rng = 512, np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 4, "dtype": "uint16", "crs": "EPSG:32633"}
    coarse = rng.integers(0, 3000, (4, 16, 16)).astype(np.uint16)
    place = rasterio.transform.from_origin(500_000, 5_400_000, 10, 10)
    with rasterio.open(tmp_path / "scene.tif", "w", transform=place, **profile) as file:
        file.write(coarse.repeat(size // 16, axis=1).repeat(size // 16, axis=2))
    Image.new("RGB", (128, 128), "white").save(tmp_path / "photo.jpg")  # without a place
    archive, encoder = read_scenes(tmp_path, tile=128, overlap=0), load_encoder("demo", device="cpu")
    extract_features(archive, encoder, tmp_path / "features", workers=1)
    features = read_features(tmp_path / "features", archive, encoder)
    explorer = Explorer(archive, features, encoder, tmp_path / "run")
    with served(explorer) as address:
        page = visit(address + link(archive.files[5], "grass", top="6"))
        wait_for(page, words="grass")
        places = page.get_by_label("map of 6 hits").locator(".place")
        page.get_by_label("map of 6 hits").wait_for()
        assert places.count() == 6
        assert page.get_by_label("map of 6 hits").locator("text").all_text_contents() == [*"123456", "1 km"]
        assert page.get_by_label("map of 6 hits").locator("text").first.bounding_box()["height"] > 9  # to be read
        drawn = places.first.bounding_box()
        assert drawn["width"] == pytest.approx(drawn["height"], rel=0.03)  # square windows at 48.7 degrees north
        page.get_by_text(re.compile(r"6 of 6 hits, 48\.\d{4}° N, 1[45]\.\d{4}° E to 48\.")).wait_for()
        saved = {}
        for what in ("a table", "polygons for a map"):
            with page.expect_download() as download:
                page.get_by_label(f"save these hits as {what}").click()
            saved[what] = download.value.path().read_text()
        table, shapes = pd.read_csv(io.StringIO(saved["a table"])), json.loads(saved["polygons for a map"])
        assert [shape["properties"]["file"] for shape in shapes["features"]] == hits(page)
        for shape, row in zip(shapes["features"], table.itertuples(), strict=True):
            middle = np.array(shape["geometry"]["coordinates"][0])
            assert (middle.min(0) + middle.max(0)) / 2 == pytest.approx([row.lon, row.lat])
        (tmp_path / "hits").mkdir()
        hits_by_python = Searcher(features, encoder, archive)(5, "grass", 0.5, top=6)
        of_python = pd.read_csv(hits_by_python.to_csv(tmp_path / "hits" / "hits.csv"))
        assert of_python[["lon", "lat"]].to_numpy() == pytest.approx(table[["lon", "lat"]].to_numpy())
        other = next(k for k, file in enumerate(hits(page)) if file != archive.files[5])
        page.locator(".hits li").nth(other).hover()
        assert "over" in places.nth(other).get_attribute("class")
        file = hits(page)[other]
        places.nth(other).click()
        wait_for(page, image=file)
    page = visit(write_page(explorer, tmp_path / "page", ["grass"]).as_uri())
    page.get_by_label("map of 16 hits").wait_for()
    page.get_by_text("16 of 17 hits").wait_for()
    ranks = [str(rank) for rank, file in enumerate(hits(page), 1) if file != "photo.jpg"]
    assert page.get_by_label("map of 16 hits").locator("text").all_text_contents() == [*ranks, "1 km"]


def test_it_is_a_cell_of_jupyterlab(visit, lab, run, bundled):
    given = {"OUTPUT_ROOT": str(run.folder.parent), "DEVICE": "cpu", "POSITION": 7, "QUERY_TEXT": "grass"}
    page = visit(lab.address("07_explorer", **given))
    lab.run_all(page)
    wait_for(page, image=bundled.archive.files[7], words="grass")
    page.locator(".lambda").focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, lambda_=0.55)
    expected, _ = top_k(bundled.gallery, bundled.feats[7], bundled.encoder.encode_texts(["grass"])[0], 0.55)
    assert hits(page) == files(bundled, expected)
    words_of(page).fill("red")
    wait_for(page, words="red")
    assert "#" not in page.url  # which is the notebook's


@pytest.mark.parametrize("drawn", [False, True])
def test_a_banner_where_the_encoder_does_not_know_such_pictures(visit, tmp_path, drawn):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (50 * number, 90, 60)).save(pictures / f"{number}.png")
    if drawn:
        (pictures / "synthcom.json").write_text("{}")
    run = prepared(open_run(str(pictures), OUTPUT_ROOT=str(tmp_path / "runs"), DEVICE="cpu"))
    write_page(Explorer.of(run), tmp_path / "page", ["red"])
    with served(Explorer.of(run)) as address:
        for place in (address, (tmp_path / "page" / "index.html").as_uri()):
            banner = visit(place).locator("[data-part=notice]")
            if drawn:
                banner.wait_for(state="attached")
                assert not banner.is_visible()
            else:
                banner.wait_for()
                assert banner.inner_text() == run.notice
                assert banner.bounding_box()["y"] < 120
