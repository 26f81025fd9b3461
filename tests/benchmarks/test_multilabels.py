"""Benchmarks from public labels: complete multi-labels, and with captions UCMCom, which knows what it doesn't know."""

import json

import numpy as np
import pytest

from rscir_lib.archive import read_archive
from rscir_lib.benchmarks.base import ValidationReport
from rscir_lib.benchmarks.captions import read_captions
from rscir_lib.benchmarks.multilabels import read_multilabels
from rscir_lib.benchmarks.registry import read_benchmark
from rscir_lib.benchmarks.ucmcom import agreed_number, number_of, read_ucmcom
from rscir_lib.evaluation import chance
from rscir_lib.evaluation.metrics import chance_ap


def images(root, **count):
    for cls, n in count.items():
        (root / "images" / cls).mkdir(parents=True)
        for i in range(n):
            (root / "images" / cls / f"{cls}{i}.jpg").touch()


def asked(benchmark, **where):
    """{(image, text): (names of the relevant, names of the unknown)} of the queries with these columns."""
    names = np.array(benchmark.archive.names)
    unknown = [*benchmark.unknowns, np.empty(0, int)]
    rows = benchmark.queries
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return {
        (q.image, q.text): (set(names[benchmark.targets[q.target]]), set(names[unknown[getattr(q, "unknown", -1)]]))
        for q in rows.itertuples()
    }


@pytest.fixture
def harbors(tmp_path):
    images(tmp_path, harbor=6)
    rows = ["IMAGE\\LABEL\tship\tbare-soil", *(f"harbor{i}\t{int(i < 4)}\t{int(i == 0)}" for i in range(6))]
    (tmp_path / "multilabels.tsv").write_text("\n".join(rows))
    return tmp_path


def test_an_image_without_a_thing_is_asked_to_have_it(harbors):
    """`ship` varies enough; `bare soil` is there once, too seldom to ask for."""
    benchmark = read_benchmark(harbors)
    ships = {f"harbor{j}.jpg" for j in range(4)}
    assert asked(benchmark) == {(f"harbor{i}.jpg", "ship"): (ships, set()) for i in (4, 5)}
    assert benchmark.counts().loc[("existence", "harbor: ship"), "queries"] == 2


def test_multilabels_by_path_suffix_twice_alike_and_of_a_part(harbors, tmp_path):
    path = harbors / "multilabels.tsv"
    text = path.read_text().replace("harbor3\t", "images/harbor/harbor3.jpg\t") + "\nharbor/harbor0\t1\t1\n"
    path.write_text(text)
    benchmark = read_multilabels(harbors)
    assert asked(benchmark)["harbor4.jpg", "ship"][0] == {f"harbor{j}.jpg" for j in range(4)}
    assert list(benchmark.warnings["problem"]) == ["listed again as in line 2; counted once"]
    listing = tmp_path / "part.csv"
    listing.write_text("".join(f"images/harbor/harbor{i}.jpg 0 harbor\n" for i in (5, 0, 1, 4)))
    part = read_multilabels(harbors, listing)
    assert asked(part) == {(f"harbor{i}.jpg", "ship"): ({"harbor0.jpg", "harbor1.jpg"}, set()) for i in (4, 5)}
    assert "labelled images outside the listing are left out" in set(part.warnings["problem"])


@pytest.mark.parametrize(
    ("caption", "number"),
    [
        ("Two white airplanes are stopped at the airport .", "two"),
        ("An airplane is taxiing on the runway .", "one"),
        ("One airplane is stopped with some cars beside it .", "one"),
        ("There is a big white airplane in the airport .", "one"),
        ("There are one big and two small airplanes .", None),
        ("One big airplane and another small one .", None),
        ("A big airplane and a small one are stopped .", None),
        ("A purple airplane and a beige airplane .", None),
        ("Four different kinds of airplanes .", None),
        ("Three different size of airplanes are stopped .", None),
        ("Many different airplanes are stopped .", None),
        ("A piece of cropland with an airplane", "one"),
        ("Some cars are on the ground .", None),
    ],
)
def test_a_number_is_only_what_a_caption_says_plainly(caption, number):
    assert number_of(caption, "airplane") == number


def test_captions_must_agree_on_a_number():
    two, three, silent = "two airplanes", "three airplanes", "some airplanes"
    assert agreed_number([two, two, silent], "airplane") == "two"
    assert agreed_number([two, silent, silent], "airplane") is None  # one alone
    assert agreed_number([two, two, three], "airplane") is None  # contradicted
    assert agreed_number([], "airplane") is None


@pytest.fixture
def ucm(tmp_path):
    """Made in the format of the real one: planes are counted, and of `airplane4` nobody says how many there are."""
    images(tmp_path, airplane=6, denseresidential=3, sparseresidential=2)
    names = [path.stem for path in sorted(tmp_path.glob("images/*/*"))]
    rows = [f"{name}\t{int(name in ('airplane0', 'airplane1', 'airplane2'))}\t1" for name in names]
    (tmp_path / "multilabels.tsv").write_text("\n".join(["IMAGE\\LABEL\tcars\tpavement", *rows]))
    number = ["one", "one", "two", "two", None, "three"]
    captions = {name: ["A place .", "A place ."] for name in names}
    captions |= {f"airplane{i}": [f"{n} airplanes ."] * 2 for i, n in enumerate(number) if n}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return tmp_path


def test_ucmcom_keeps_positive_negative_and_unknown_apart(ucm):
    benchmark = read_benchmark(ucm)
    assert benchmark.protocol == "ucmcom"
    planes = {f"airplane{i}.jpg" for i in range(6)}
    cars = {f"airplane{i}.jpg" for i in range(3)}
    wanted = {(image, "no cars"): (planes - cars, set()) for image in cars}
    wanted |= {(image, "cars"): (cars, set()) for image in planes - cars}
    assert asked(benchmark, attribute="existence") == wanted  # pavement is everywhere
    numbers = asked(benchmark, attribute="quantity")
    unknown = {"airplane4.jpg"}
    assert numbers["airplane0.jpg", "two"] == ({"airplane2.jpg", "airplane3.jpg"}, unknown)
    assert numbers["airplane5.jpg", "one"] == ({"airplane0.jpg", "airplane1.jpg"}, unknown)
    assert len(numbers) == 2 + 2 + 2  # "three" asks and is too rare to be asked for
    dense = {f"denseresidential{i}.jpg" for i in range(3)}
    sparse = {f"sparseresidential{i}.jpg" for i in range(2)}
    wanted = {(image, "sparse"): (sparse, set()) for image in dense} | {(i, "dense"): (dense, set()) for i in sparse}
    assert asked(benchmark, attribute="density") == wanted
    assert "1 images of airplane" in set(benchmark.warnings["value"])


def test_chance_knows_the_condensed_list(ucm):
    """11 images, 1 of them unknown where a number is asked for; 2 planes have each number that is."""
    by_attribute = chance(read_ucmcom(ucm))
    assert by_attribute["Quantity"] == pytest.approx(100 * chance_ap(2, 10))
    assert by_attribute["Existence"] == pytest.approx(100 * chance_ap(3, 11))


def test_ucmcom_of_a_part(ucm, tmp_path):
    listing = tmp_path / "part.csv"
    listing.write_text("".join(f"images/airplane/airplane{i}.jpg 0 airplane\n" for i in range(5)))
    part = read_ucmcom(ucm, listing)
    assert set(part.queries["attribute"]) == {"existence", "quantity"}
    assert len(part.archive) == 5


def test_captions_by_name_path_and_part(ucm, tmp_path):
    path, report = tmp_path / "named.json", ValidationReport()
    named = {"airplane0": ["a"], "airplane/airplane1.jpg": ["b"], "images/airplane/airplane2": ["c"], "moon1": ["d"]}
    path.write_text(json.dumps(named))
    archive = read_archive(ucm)
    assert read_captions(path, archive, report=report)[:4] == [["a"], ["b"], ["c"], []]
    assert [(value, problem[:25]) for _, _, value, problem in report.rows] == [("1 names", "no image of the archive, ")]
    images = [
        {"filename": name, "sentences": [{"raw": s} for s in texts], "split": "val"} for name, texts in named.items()
    ]
    path.write_text(json.dumps({"images": images, "dataset": "UCM"}))  # Karpathy's form
    assert read_captions(path, archive)[:4] == [["a"], ["b"], ["c"], []]
    path.write_text(json.dumps({"images": [{"file": "airplane0"}]}))
    with pytest.raises(ValueError, match="an entry of its images lacks filename or sentences with raw"):
        read_captions(path, archive)


def test_real_multilabels(ucm_root):
    benchmark = read_multilabels(ucm_root)
    assert len(benchmark.archive) == 2100
    assert len(set(benchmark.archive.classes)) == 21
    assert {len(target) >= 2 for target in benchmark.targets} == {True}
    sample = benchmark.queries.sample(50, random_state=0)
    flags = (line.split("\t") for line in (ucm_root / "multilabels.tsv").read_text().splitlines())
    _, *words = next(flags)
    flags = {stem: dict(zip(words, values, strict=True)) for stem, *values in flags}
    for query in sample.itertuples():
        label = query.text.replace(" ", "-")
        assert flags[query.image.removesuffix(".jpg")][label] == "0"
        for i in benchmark.targets[query.target]:
            assert flags[benchmark.archive.names[i].removesuffix(".jpg")][label] == "1"
            assert benchmark.archive.classes[i] == query.group.split(":")[0]


def test_real_ucmcom(ucm_root):
    """Its size as the README has it, and what a few images show, counted by eye."""
    benchmark = read_benchmark(ucm_root)
    table = benchmark.counts(["attribute"])
    assert table["queries"].to_dict() == {"existence": 9200, "quantity": 1276, "density": 600}
    numbers = benchmark.labels.query("attribute == 'quantity'").set_index("image")["value"]
    by_eye = {
        "airplane36.jpg": "six",
        "airplane42.jpg": "two",
        "tenniscourt13.jpg": "six",
        "storagetanks39.jpg": "five",
    }
    assert numbers[list(by_eye)].to_dict() == by_eye
    silent = {benchmark.archive.names[i] for unknown in benchmark.unknowns for i in unknown}
    assert silent.isdisjoint(numbers.index)
    assert sum(map(len, benchmark.unknowns)) == len(silent) == 34
