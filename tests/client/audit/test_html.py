from __future__ import annotations

import base64
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from neurofv import InvalidRequest
from neurofv.audit.html import write_html
from tests.client.audit.folders import (
    AFFINE,
    EXEMPLAR_SIZE,
    SHAPE,
    a_brain,
    change_at,
    make_folder,
    write_volume,
)

FULL_SHAPE = (91, 109, 91)
FULL_AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
MOST_BYTES, MOST_UNITS = 15e6, 64


class Reader(HTMLParser):
    """What a page shows, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self._inside = "", [], ""
        self.data: dict[str, str] = {}
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag in ("script", "style"):
            self._inside = found.get("id", tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag in ("td", "th", "dt", "dd", "h2", "h3"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data[self._inside] = data
        else:
            self.text += data

    def having(self, tag: str, name: str) -> list[str]:
        return [found[name] for each, found in self.tags if each == tag and name in found]


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A viewer of one line, in place of npm's."""
    path = tmp_path / "viewer.js"
    path.write_text("globalThis.niivue = {};")
    monkeypatch.setenv("NEUROFV_VIEWER", str(path))
    return path


def read(folder: Path) -> Reader:
    return Reader(write_html(folder).read_text())


def views(page: Reader) -> list[Image.Image]:
    sources = page.having("img", "src")
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


@pytest.fixture
def folder(tmp_path: Path, viewer: Path) -> Path:
    return make_folder(tmp_path / "audit")


def test_the_outcome_and_the_shortcuts_come_before_all_else(folder: Path) -> None:
    text = read(folder).text
    order = [
        "Failed: 1 of 2 thresholds",
        "The model takes a shortcut",
        "A bright corner moves class-0 by 4.1. Effect 4.10, on the network with random weights 0.30.",
        "Thresholds",
        "Kinds of shortcut found",
        "Agreement between seeds",
        "Overview",
        "Units",
        "The model Model a-model",
        "What was tried",
        "What failed",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_each_unit_has_its_pictures_figures_verdicts_and_exemplars(folder: Path) -> None:
    page = read(folder)
    for index, name in enumerate(("class-0", "blocks.1.conv:1", "class-2")):
        part = page.text[page.text.index(f"Open {name} in 3D") :]
        assert f"Seeds of {name} agree at 0.61 only." in part
        for figure in (
            "Best real image 10.0",
            "0.61 1 0.20 0.05",
            "sub-01: activation 5.50 at 10, -20, 5 mm",
        ):
            assert figure in part, (name, figure)
        digest = json.loads((folder / "report.json").read_text())["units"][index]["pictures"][3]["sha256"]
        assert digest in part
    # Two seeds of the trained network and of the random one, and two exemplars.
    alts = page.having("img", "alt")
    assert len(alts) == 3 * (4 + 2)
    assert sum("random weights" in alt for alt in alts) == 3 * 2
    assert all(alts)
    # Large enough to be read: three slices in each, none of them squeezed.
    width, height = EXEMPLAR_SIZE
    for view in views(page)[4:6]:
        assert view.width >= 480
        assert view.width / view.height == pytest.approx(width / height, rel=0.01)


def test_the_gravest_verdict_comes_first_and_stands_in_the_overview(folder: Path) -> None:
    text = read(folder).text
    assert text.index("Seeds of class-0 agree") < text.index("Fires harder than on every real image.")
    assert "class-0 class 100 % 0.61 0.20 0.05 Warning" in text


def test_the_model_is_told_with_its_layers_card_and_digests(folder: Path) -> None:
    page = read(folder)
    for words in ("cd" * 32, "ab" * 32, "40x48x40 voxels of 4 mm, LAS", "CC0-1.0", "Tells shapes apart."):
        assert words in page.text
    assert "blocks.1.conv Conv3d 16 20x24x20 12 1 unit" in page.text
    assert "classifier Linear 3 vector everything 2 units" in page.text
    assert "blocks.1.conv:1 random weights default 1 The unit had no gradient. DEAD_UNIT" in page.text
    assert "contrast: true" in page.text


def test_the_page_asks_no_host_and_runs_nothing_of_others(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    report["units"][0]["name"] = '"><script src="https://example.org/x.js"></script>'
    report["units"][0]["verdicts"][0]["words"] = "<img src=https://example.org/y.png>"
    (folder / "report.json").write_text(json.dumps(report))
    page = read(folder)
    sources = page.having("img", "src") + page.having("script", "src") + page.having("link", "href")
    assert [each[:30] for each in sources if not each.startswith("data:image/webp;base64,")] == []
    # Nothing but the card's own link, which is no picture any more, leads anywhere.
    assert {each for each in page.having("a", "href") if each[0] != "#"} == {"https://example.org/a.png"}
    assert "url(" not in page.data["style"]
    assert "@import" not in page.data["style"]
    # The names are shown as text; what runs is allowed by its digest alone.
    assert '"><script src="https://example.org/x.js"></script>' in page.text
    policy = next(iter(page.having("meta", "content")))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, found in page.tags:
        assert not any(name == "style" or name.startswith("on") for name in found), tag


def test_views_cross_where_a_picture_differs_from_the_others(folder: Path) -> None:
    page = read(folder)
    i, j, k = change_at(SHAPE, 0)
    x, y, z = AFFINE[:3, :3] @ (i, j, k) + AFFINE[:3, 3]
    found = re.search(r"Default, seed 0; at \((-?\d+), (-?\d+), (-?\d+)\) mm", page.text)
    assert found is not None
    assert np.linalg.norm(np.array([int(part) for part in found.groups()]) - (x, y, z)) <= 6
    # The array's first axis runs left, yet the brain's right is on the right of the axial view.
    assert x > 0
    pixels = np.asarray(views(page)[0].convert("L"))
    bright = np.flatnonzero((pixels > 240).sum(axis=0) >= 4)
    width = pixels.shape[1]
    third = bright[bright > width * 2 // 3]
    assert third.size
    assert np.median(third) > width * 5 / 6


def test_a_change_outside_the_brain_is_shown(folder: Path) -> None:
    write_volume(folder / "reference.nii.gz", a_brain(SHAPE))
    plain = views(read(folder))[0].size
    report = json.loads((folder / "report.json").read_text())
    data = a_brain(SHAPE)
    data[0:3, 0:3, 0:3] = 1
    picture = report["units"][0]["pictures"][0]
    picture["sha256"] = write_volume(folder / picture["volume"], data)
    (folder / "report.json").write_text(json.dumps(report))
    page = read(folder)
    found = re.search(r"Default, seed 0; at \((\d+), -(\d+), -(\d+)\) mm", page.text)
    assert found is not None
    assert np.linalg.norm(np.array([int(part) for part in found.groups()]) - (74, 106, 66)) <= 8
    wider = views(page)[0]
    assert wider.size > plain
    assert np.asarray(wider.convert("L"))[-8:].max() > 240


def test_the_viewer_gets_the_change_from_the_reference(folder: Path) -> None:
    brain = a_brain(SHAPE)
    write_volume(folder / "reference.nii.gz", brain)
    page = read(folder)
    ground, change = (_volume(page.data[name]) for name in ("ground", "volume-unit-0"))
    assert np.abs(nibabel.as_closest_canonical(ground).get_fdata() - brain[::-1]).max() < 0.01
    assert change.get_data_dtype() == ground.get_data_dtype() == np.uint8
    i, j, k = change_at(SHAPE, 0)
    x, y, z = np.rint(np.linalg.inv(change.affine) @ AFFINE @ (i, j, k, 1))[:3].astype(int)
    assert change.get_fdata()[x, y, z] == pytest.approx(1 - brain[i, j, k], abs=0.05)
    assert abs(change.get_fdata()[0, 0, 0]) < 1e-6
    limit = float(page.having("button", "data-limit")[0])
    assert limit == pytest.approx(np.abs(change.get_fdata()).max(), rel=1e-4)


def _volume(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_with_too_few_pictures_to_know_the_brain_they_are_shown_as_they_are(
    tmp_path: Path, viewer: Path
) -> None:
    page = read(make_folder(tmp_path / "audit", units=2))
    assert "ground" not in page.data
    assert page.having("button", "data-limit") == []
    assert _volume(page.data["volume-unit-1"]).shape == SHAPE
    assert "Grey: the picture as it is." in page.text


def test_without_a_viewer_the_page_keeps_its_views_and_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROFV_VIEWER", "none")
    page = read(folder)
    assert "name the viewer's file in NEUROFV_VIEWER" in page.text
    assert page.having("dialog", "id") == []
    # What is folded is opened for paper all the same, and nothing else runs.
    assert [found for tag, found in page.tags if tag == "script"] == [{}]
    assert "beforeprint" in page.data["script"]
    assert len(views(page)) == 18


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shortcuts": None}, "Shortcuts were not looked for"),
        (
            {"shortcuts": {"tested": ["ringing"], "found": []}},
            "No shortcut found among 1 kind Tested: ringing.",
        ),
        (
            {"shortcuts": {"tested": [], "found": [], "untestable": "all answers are of one class"}},
            "Shortcuts could not be tested all answers are of one class. Whether there are any is not known.",
        ),
        ({"thresholds": [], "passed": True}, "No threshold was set"),
        ({"failed": []}, "Nothing: every picture that the plan asks for was made."),
    ],
)
def test_what_was_not_done_is_said(changes: dict[str, Any], words: str, tmp_path: Path, viewer: Path) -> None:
    assert words in read(make_folder(tmp_path / "audit", units=1, **changes)).text


def test_a_warning_on_persons_stands_where_exemplars_are(tmp_path: Path, viewer: Path) -> None:
    for count in (0, 1):
        text = read(make_folder(tmp_path / str(count), units=1, exemplars=count)).text
        assert ("holds images of persons" in text) is bool(count)


def test_a_unit_without_pictures_and_figures_is_no_obstacle(tmp_path: Path, viewer: Path) -> None:
    folder = make_folder(tmp_path / "audit", units=1)
    report = json.loads((folder / "report.json").read_text())
    empty = {"pictures": [], "seed_agreement": {}, "control": {}, "exemplars": [], "verdicts": []}
    report["units"].append({**report["units"][0], **empty, "id": "dead", "name": "dead"})
    for picture in report["units"][0]["pictures"]:
        picture["evaluation"] = {"activation": 1.0, "percentile": None}
    (folder / "report.json").write_text(json.dumps(report))
    text = read(folder).text
    assert "No picture of this unit could be made" in text
    assert "Activation, beside real images" not in text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder, picture: (folder / picture["volume"]).unlink(), "cannot be read"),
        (lambda folder, picture: write_volume(folder / picture["volume"], a_brain(SHAPE)), "SHA-256"),
        (lambda folder, picture: picture.update(volume="../elsewhere.nii.gz"), "outside the folder"),
    ],
)
def test_a_volume_that_is_not_the_reports_own_is_refused(spoil: Any, words: str, folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    spoil(folder, report["units"][1]["pictures"][2])
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(InvalidRequest, match=words):
        write_html(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"report": 2}'])
def test_a_folder_without_a_known_report_is_refused(text: str, tmp_path: Path) -> None:
    if text:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InvalidRequest, match=r"report\.json"):
        write_html(tmp_path)


def test_the_page_is_the_same_each_time(folder: Path) -> None:
    first = write_html(folder).read_bytes()
    assert write_html(folder).read_bytes() == first


def test_64_units_weigh_less_than_15_mb(tmp_path: Path, viewer: Path) -> None:
    """Of two strategies with two seeds, each beside the random network, and four exemplars; 2 mm."""
    # Packed it is as heavy as NiiVue.
    viewer.write_text(np.random.default_rng(0).bytes(400_000).hex())
    sizes = {}
    for units in (1, 2):
        folder = tmp_path / str(units)
        make_folder(folder, units, FULL_SHAPE, FULL_AFFINE, 4, ("default", "contrast"))
        write_volume(folder / "reference.nii.gz", a_brain(FULL_SHAPE), FULL_AFFINE)
        sizes[units] = write_html(folder).stat().st_size
    unit = sizes[2] - sizes[1]
    assert sizes[1] > 0.8e6
    assert sizes[1] + (MOST_UNITS - 1) * unit < MOST_BYTES, f"{unit} bytes a unit"
