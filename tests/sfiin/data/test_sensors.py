"""Sensors: what is shipped, how one is found, and what a user's own file must hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfiin.data import sensors
from sfiin.data.sensors import SENSORS
from sfiin.runtime.errors import InputError

OWN = """
[own]
bands = ["red", "nir"]
ratio = 2
bits = 12
ms_gain = [0.2, 0.4]
pan_gain = 0.1
scale = 3000
aliases = ["Own-1"]
"""

# MTF gains at Nyquist as published (MS by band, PAN), ratio, bits: written out once more, from the
# literature.
COLOURS = ("blue", "green", "red", "nir")
EIGHT = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2")
LANDSAT = ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
SPOT = ("red", "green", "blue", "nir")
PUBLISHED = {
    "quickbird": (COLOURS, (0.34, 0.32, 0.30, 0.22), 0.15, 4, 11),
    "ikonos": (COLOURS, (0.26, 0.28, 0.29, 0.28), 0.17, 4, 11),
    "gaofen2": (COLOURS, (0.3,) * 4, 0.15, 4, 10),
    "geoeye1": (COLOURS, (0.23,) * 4, 0.16, 4, 11),
    "worldview2": (EIGHT, (*(0.35,) * 7, 0.27), 0.11, 4, 11),
    "worldview3": (EIGHT, (0.325, 0.355, 0.36, 0.35, 0.365, 0.36, 0.335, 0.315), 0.14, 4, 11),
    "worldview4": (COLOURS, (0.23,) * 4, 0.16, 4, 11),
    "pleiades": (COLOURS, (0.3,) * 4, 0.15, 4, 12),
    "spot6": (SPOT, (0.3,) * 4, 0.15, 4, 12),
    "spot7": (SPOT, (0.3,) * 4, 0.15, 4, 12),
    "landsat8": (LANDSAT, (0.3,) * 7, 0.15, 2, 16),
    "landsat9": (LANDSAT, (0.3,) * 7, 0.15, 2, 16),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_sensor_is_as_published(name: str) -> None:
    sensor, profile = SENSORS[name], SENSORS[name].profile
    assert (profile.bands, sensor.ms_gains, sensor.pan_gain, profile.ratio, profile.bits) == PUBLISHED[name]
    assert profile.scale == profile.peak == 2**profile.bits - 1
    assert sensor.name == profile.name == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("QuickBird", "quickbird"),
        ("QB02", "quickbird"),
        ("IKONOS", "ikonos"),
        ("GaoFen-2", "gaofen2"),
        ("GF-2", "gaofen2"),
        ("GeoEye-1", "geoeye1"),
        ("WorldView-2", "worldview2"),
        ("wv3", "worldview3"),
        ("WORLDVIEW-4", "worldview4"),
        ("pleiades-1b", "pleiades"),
        ("SPOT-6", "spot6"),
        ("spot-7", "spot7"),
        ("Landsat-8", "landsat8"),
        ("lc09", "landsat9"),
        ("VHR4", "vhr4"),
    ],
)
def test_a_sensor_is_found_by_its_aliases(spelling: str, name: str) -> None:
    assert sensors.find(spelling) is sensors.known(spelling) is SENSORS[name]


@given(st.data())
def test_a_sensor_is_found_in_any_case(data: st.DataObject) -> None:
    sensor = data.draw(st.sampled_from(list(SENSORS.values())))
    spelling = data.draw(st.sampled_from([sensor.name, *sensor.aliases]))
    upper = data.draw(st.lists(st.booleans(), min_size=len(spelling), max_size=len(spelling)))
    mixed = "".join(c.upper() if up else c.lower() for c, up in zip(spelling, upper, strict=True))
    assert sensors.find(mixed) is sensor


def test_no_name_means_two_sensors() -> None:
    spellings = [{s.casefold() for s in (sensor.name, *sensor.aliases)} for sensor in SENSORS.values()]
    assert sum(map(len, spellings)) == len(set().union(*spellings))


def test_an_unknown_sensor_is_refused_with_what_is_known() -> None:
    assert sensors.known("hubble") is None
    assert sensors.known("") is None
    with pytest.raises(
        InputError, match=r"unknown sensor 'hubble'; known: vhr4, quickbird, .*or a TOML file"
    ) as failure:
        sensors.find("hubble")
    assert failure.value.exit_code == 3


def test_a_users_own_sensor(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    sensor = sensors.find(str(path))
    assert (sensor.name, sensor.profile.bands, sensor.profile.ratio, sensor.profile.bits) == (
        "own",
        ("red", "nir"),
        2,
        12,
    )
    assert (sensor.ms_gains, sensor.pan_gain, sensor.aliases) == ((0.2, 0.4), 0.1, ("Own-1",))
    assert sensor.profile.scale == 3000
    assert sensor.is_called("OWN-1")
    assert not sensor.is_called("own-2")
    assert sensors.known("own") is None


def test_what_a_file_may_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[plain]\nbands = ["a", "b", "c"]\nratio = 3\nbits = 8\n')
    sensor = sensors.find(str(path))
    assert (sensor.ms_gains, sensor.pan_gain, sensor.aliases, sensor.profile.scale) == (
        (0.3,) * 3,
        0.15,
        (),
        255,
    )
    path.write_text('[one]\nbands = ["a", "b"]\nratio = 3\nbits = 8\nms_gain = 0.25\n')
    assert sensors.find(str(path)).ms_gains == (0.25, 0.25)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("ratio = 2", ""), r"\[own\]: missing field 'ratio'; a sensor has aliases, bands, bits, ms_gain"),
        (("bits = 12", ""), "missing field 'bits'"),
        (("bands = [", "bandes = ["), "unknown field 'bandes'"),
        (('["red", "nir"]', '"red"'), "bands is a list of names, not 'red'"),
        (('["red", "nir"]', "[1, 2]"), r"bands is a list of names, not \[1, 2\]"),
        (('["red", "nir"]\n', "[]\n"), "ms_gain has 2 values for 0 bands"),
        (('["Own-1"]', '"Own-1"'), "aliases is a list of names"),
        (("ratio = 2", "ratio = 2.0"), "ratio is a whole number, not 2.0"),
        (("ratio = 2", "ratio = true"), "ratio is a whole number, not True"),
        (("ratio = 2", "ratio = 1"), r"sensor\.ratio: must be 2 or more, not 1"),
        (("bits = 12", 'bits = "12"'), "bits is a whole number, not '12'"),
        (("bits = 12", "bits = 0"), r"sensor\.bits: must lie in 1\.\.32, not 0"),
        (("bits = 12", "bits = 33"), r"sensor\.bits: must lie in 1\.\.32, not 33"),
        (("bits = 12", "bits = -1"), r"sensor\.bits"),
        (("[0.2, 0.4]", "[0.2]"), "ms_gain has 1 values for 2 bands"),
        (("[0.2, 0.4]", "[0.2, 0.4, 0.3]"), "ms_gain has 3 values for 2 bands"),
        (("[0.2, 0.4]", "[0.2, 0.0]"), "a gain lies between 0 and 1, not 0.0"),
        (("[0.2, 0.4]", "1.0"), "a gain lies between 0 and 1, not 1.0"),
        (("[0.2, 0.4]", "nan"), "a gain lies between 0 and 1, not nan"),
        (("[0.2, 0.4]", '"0.3"'), "a gain lies between 0 and 1, not '0.3'"),
        (("[0.2, 0.4]", "true"), "a gain lies between 0 and 1, not True"),
        (("pan_gain = 0.1", "pan_gain = -0.1"), "a gain lies between 0 and 1, not -0.1"),
        (("pan_gain = 0.1", "pan_gain = [0.1]"), r"a gain lies between 0 and 1, not \[0.1\]"),
        (("scale = 3000", 'scale = "x"'), "scale is a number, not 'x'"),
        (("scale = 3000", "scale = 0"), r"sensor\.scale: must be positive"),
        (("scale = 3000", "scale = inf"), "scale is a number, not inf"),
        (("scale = 3000", "scale = nan"), "scale is a number, not nan"),
    ],
)
def test_a_sensor_that_makes_no_sense_is_refused(tmp_path: Path, change: tuple[str, str], text: str) -> None:
    assert OWN.count(change[0]) == 1
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(InputError, match=text) as failure:
        sensors.find(str(path))
    assert str(failure.value).startswith(f"{path}: [own]: ")
    assert failure.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no such sensor file"),
        (b"[own", "not a TOML file of sensors"),
        (b"\xff\xfe\x00", "not a TOML file of sensors"),
        (b"", "a sensor file holds tables, "),
        (b"ratio = 4\n", "a sensor file holds tables, "),
        (b'[[own]]\nbands = ["a"]\n', "a sensor file holds tables, "),
        (
            OWN.encode() + OWN.replace("own", "other").encode(),
            r"holds 2 sensors \(own, other\); keep the one",
        ),
        (OWN.encode() * 2, "not a TOML file of sensors"),
    ],
)
def test_what_is_no_sensor_file_is_refused(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=text) as failure:
        sensors.find(str(path))
    assert str(failure.value).startswith(str(path))


def test_a_folder_is_no_sensor_file(tmp_path: Path) -> None:
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(InputError, match="not a TOML file of sensors"):
        sensors.find(str(tmp_path / "dir.toml"))


@pytest.mark.parametrize(
    ("text", "name"), [("B", "blue"), ("g", "green"), ("N", "nir"), ("RedEdge", "rededge"), ("blue", "blue")]
)
def test_band_names(text: str, name: str) -> None:
    assert sensors.band_name(text) == name
