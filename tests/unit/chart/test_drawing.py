# SPDX-License-Identifier: Apache-2.0
import io
import sys
from datetime import UTC
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpuwarden.chart.output import PillowMissingError, draw_to_file
from gpuwarden.chart.png import png
from gpuwarden.chart.series import Moment
from gpuwarden.chart.shapes import Area, Box, Drawing, Label, Line
from gpuwarden.chart.svg import svg
from gpuwarden.chart.thermal import ThermalRecord, thermal_drawing
from gpuwarden.values import ThermalState
from tests.unit.chart.histories import START_SECONDS, figures, hot_hour, moments

ALERT_BAND = "#ffe9b8"
CRITICAL_BAND = "#ffb9b0"
LIMIT = "#222222"


def record(history: list[Moment], title: str = "GPU 0 NVIDIA H200") -> ThermalRecord:
    return ThermalRecord(title, history, 78, 85, 88, 95, UTC)


def labels(drawing: Drawing) -> list[str]:
    return [shape.text for shape in drawing.shapes if isinstance(shape, Label)]


def bands(drawing: Drawing, colour: str) -> list[Box]:
    """In the temperature's panel, the legend's excepted."""
    return [
        shape
        for shape in drawing.shapes
        if isinstance(shape, Box) and shape.colour == colour and shape.y == 96
    ]


def darkest(image: Image.Image, box: tuple[int, int, int, int]) -> int:
    return min(image.crop(box).convert("L").tobytes())


def test_everything_that_a_reader_needs_is_named() -> None:
    drawing = thermal_drawing(record(hot_hour()))
    written = labels(drawing)
    assert written[0] == "GPU 0 NVIDIA H200, 2027-01-15 08:00 to 09:00"
    for name in (
        *("temperature in °C", "power in W", "time of day (UTC)"),
        *("die (mean and range)", "HBM", "power", "power limit"),
        *("alert", "critical", "HBM alert", "08:10"),
    ):
        assert name in written


def test_each_state_has_its_band_where_it_held_however_short() -> None:
    drawing = thermal_drawing(record(hot_hour()))
    alert = bands(drawing, ALERT_BAND)
    critical = bands(drawing, CRITICAL_BAND)
    assert len(alert) == 2  # before and after the critical second
    assert alert[0].x == pytest.approx(74 + 1032 * 1000 / 3600, abs=2)
    assert len(critical) == 1
    assert critical[0].width >= 2


def test_a_normal_hour_has_no_bands() -> None:
    drawing = thermal_drawing(record(hot_hour(600)))
    assert {shape.colour for shape in drawing.shapes if isinstance(shape, Box)} <= {
        *("#ffffff", "#1b5fad", "#8a3fb0", "#1d7a54", LIMIT)
    }


def test_lines_do_not_cross_a_silence() -> None:
    hour = [each for each in hot_hour(600) if not 200 <= each.at_seconds - START_SECONDS < 300]
    limits = [
        shape
        for shape in thermal_drawing(record(hour)).shapes
        if isinstance(shape, Line) and shape.colour == LIMIT
    ]
    assert len(limits) == 2


def test_a_limit_is_drawn_as_stairs() -> None:
    limits = [
        shape
        for shape in thermal_drawing(record(hot_hour(1100))).shapes
        if isinstance(shape, Line) and shape.colour == LIMIT
    ]
    (line,) = limits
    for (x0, y0), (x1, y1) in zip(line.points, line.points[1:], strict=False):
        assert x0 == x1 or y0 == y1


def test_an_empty_history_is_said_to_be_one() -> None:
    assert "nothing is recorded yet" in labels(thermal_drawing(record([])))


@settings(max_examples=200)
@given(
    st.lists(moments),
    st.text(),
    st.tuples(figures, figures, figures, figures),
    st.none() | st.just(UTC),
)
def test_any_history_gives_a_valid_svg(
    history: list[Moment],
    title: str,
    limits: tuple[float | None, float | None, float | None, float | None],
    zone: None,
) -> None:
    drawing = thermal_drawing(ThermalRecord(title, history, *limits, zone))
    text = svg(drawing)
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "nan" not in " ".join(_numbers(root))
    assert "inf" not in " ".join(_numbers(root))


def _numbers(root: ElementTree.Element) -> list[str]:
    names = ("x", "y", "width", "height", "points", "transform")
    return [element.get(name, "") for element in root.iter() for name in names]


def test_text_of_the_svg_is_escaped() -> None:
    text = svg(thermal_drawing(record([], title='<b> & "\x00\x1b[2J\n')))
    root = ElementTree.fromstring(text.encode())
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == '<b> & "\\x00\\x1b[2J\\n'


def test_the_svg_refers_to_nothing_outside() -> None:
    text = svg(thermal_drawing(record(hot_hour())))
    assert text.count("http") == 1  # its namespace
    assert "href" not in text


@settings(max_examples=10)
@given(st.lists(moments, max_size=20))
def test_any_history_gives_a_png(history: list[Moment]) -> None:
    with Image.open(io.BytesIO(png(thermal_drawing(record(history))))) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1200, 760))


def test_both_kinds_show_the_same_colours_at_the_same_places() -> None:
    shapes = (
        Box(10, 10, 20, 20, "#ff0000"),
        Area(((40, 10), (60, 10), (60, 30), (40, 30)), "#0000ff", 0.5),
        Line(((0, 50), (100, 50)), "#00ff00", 4, (10, 10)),
        Label(50, 80, "M", 20, "middle", "#000000"),
    )
    with Image.open(io.BytesIO(png(Drawing(100, 100, "t", shapes)))) as image:
        assert image.getpixel((20, 20)) == (255, 0, 0)
        assert image.getpixel((50, 20)) == pytest.approx((127, 127, 255), abs=2)
        assert image.getpixel((5, 50)) == pytest.approx((0, 255, 0), abs=10)
        assert image.getpixel((15, 50)) == pytest.approx((255, 255, 255), abs=10)
        assert darkest(image, (40, 60, 60, 82)) < 100
        assert image.getpixel((95, 95)) == (255, 255, 255)


def test_a_png_is_drawn_without_debians_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuwarden.chart.png._FONTS", {False: "/none.ttf", True: "/none.ttf"})
    with Image.open(io.BytesIO(png(thermal_drawing(record(hot_hour(60)))))) as image:
        assert darkest(image, (74, 20, 400, 45)) < 100  # the title


def test_files_are_written_whole_and_old_ones_replaced(tmp_path: Path) -> None:
    drawing = thermal_drawing(record(hot_hour(60)))
    for name, beginning in (("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")):
        path = tmp_path / name
        path.write_bytes(b"old")
        draw_to_file(drawing, path)
        assert path.read_bytes().startswith(beginning)
        assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.PNG", "a.svg"]


def test_other_endings_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        draw_to_file(thermal_drawing(record([])), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_png_without_pillow_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PillowMissingError, match="apt install python3-pil, or write"):
        draw_to_file(thermal_drawing(record([])), tmp_path / "a.png")
    draw_to_file(thermal_drawing(record([])), tmp_path / "a.svg")


def test_a_drawing_survives_a_state_in_every_second() -> None:
    states = list(ThermalState)
    hour = [Moment(float(n), states[n % len(states)], 50.0) for n in range(3600)]
    drawing = thermal_drawing(ThermalRecord("simulated", hour))
    assert "minutes since the start" in labels(drawing)
