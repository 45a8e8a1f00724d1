"""Which sensors does the toolkit know, and what do they deliver?

Band order is that of the products' files as they are usually distributed; `scale` is the largest DN of the bit depth.
"""

from __future__ import annotations

from runtime.contract import SensorProfile

_BGRN = ("blue", "green", "red", "nir")
_WORLDVIEW = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2")
_OLI = ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")


def _profile(name: str, bands: tuple[str, ...], ratio: int, bits: int) -> SensorProfile:
    return SensorProfile(name, bands, ratio, bits, float((1 << bits) - 1))


SENSORS: dict[str, SensorProfile] = {
    profile.name: profile
    for profile in (
        _profile("vhr4", _BGRN, 4, 11),  # QuickBird, IKONOS and GaoFen-2 together: one model for their common geometry
        _profile("quickbird", _BGRN, 4, 11),
        _profile("ikonos", _BGRN, 4, 11),
        _profile("gaofen2", _BGRN, 4, 10),
        _profile("geoeye1", _BGRN, 4, 11),
        _profile("worldview2", _WORLDVIEW, 4, 11),
        _profile("worldview3", _WORLDVIEW, 4, 11),
        _profile("worldview4", _BGRN, 4, 11),
        _profile("pleiades", _BGRN, 4, 12),
        _profile("spot6", ("red", "green", "blue", "nir"), 4, 12),
        _profile("landsat8", _OLI, 2, 16),
    )
}
