"""What does a band's name mean, in the words of the models? One table of synonyms, and one of wavelengths.

| word      | said by                                                                                     |
|-----------|---------------------------------------------------------------------------------------------|
| `coastal` | Landsat "Coastal aerosol", Maxar "C", Pleiades Neo "Deep blue" (DB), Planet "coastal_blue"  |
| `blue`    | "B", Pleiades "B0"                                                                          |
| `green`   | "G", Pleiades "B1"; SPOT 1 to 5 "XS1"                                                       |
| `yellow`  | Maxar "Y"                                                                                   |
| `red`     | "R", Pleiades "B2"; SPOT 1 to 5 "XS2"                                                       |
| `rededge` | Maxar "RE", Pleiades Neo "RE", RapidEye and Planet "RedEdge"                                |
| `nir`     | "N", "IR", Maxar "N" or "N1", Pleiades "B3", Planet "Near-Infrared"; French "PIR"           |
| `nir2`    | Maxar "N2"                                                                                  |

Sources: Maxar, "Imagery Support Data (ISD) Documentation" (bands of IMD files); Airbus, "Pleiades Neo User
Guide" and "Pleiades Imagery User Guide" (band identifiers of DIMAP); Planet, "Imagery Product Specifications";
USGS, "Landsat 8-9 Collection 2 Level 1 Data Format Control Book"; GDAL's colour interpretations (3.10).
Letters and numbers mean something only together with those of the other bands (`of_letters`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SEVERAL = (  # tried in order, on words divided by single blanks
    ("coastal", r"coastal( aerosols?| blue)?|deep blue|ultra blue|aerosols?"),
    ("rededge", r"(vegetation )?red ?edge ?(band )?([1-3i]+)?|rededge[1-3]?"),
    ("swir1", r"(swir|short ?wave infra ?red) ?1?|swir16"),
    ("swir2", r"(swir|short ?wave infra ?red) ?2|swir22"),
    ("thermal", r"tirs? ?[12]?|thermal( infra ?red)? ?[12]?|lwir ?[12]?"),
    (
        "nir2",
        r"(nir|near infra ?red|near ir) ?2",
    ),
    (
        "nir",
        r"(nir|near infra ?red|near ir|nearinfrared|infra ?red|proche infra ?rouge|pir|nahes infrarot|nahinfrarot"
        r"|infrarrojo( cercano)?|infravermelho( proximo)?|infrarosso( vicino)?|vnir|nir narrow|narrow nir) ?(1|08)?",
    ),
    ("green1", r"green i|green1"),
    ("blue", r"blue|blu|bleu|blau|azul"),
    ("green", r"green ?(ii|2)?|grn|vert|grun|verde"),
    ("yellow", r"yellow|yel|jaune|gelb|amarillo"),
    ("red", r"red|rouge|rot|rojo|vermelho|rosso"),
    ("pan", r"pan|panchro|panchromatic"),
    ("cirrus", r"cirrus"),
    ("alpha", r"alpha|mask|udm2?|opacity"),
)
_FILLERS = {
    "band",
    "bands",
    "channel",
    "layer",
    "ms",
    "mul",
    "xs",
    "sr",
    "toa",
    "boa",
    "reflectance",
    "radiance",
    "dn",
}
_LETTERS = {
    "c": "coastal",
    "db": "coastal",
    "b": "blue",
    "g": "green",
    "y": "yellow",
    "r": "red",
    "re": "rededge",
    "n": "nir",
    "n1": "nir",
    "ir": "nir",
    "n2": "nir2",
    "p": "pan",
}
_NUMBERED = {
    "pleiades": {"b0": "blue", "b1": "green", "b2": "red", "b3": "nir"},
    "spot": {"xs1": "green", "xs2": "red", "xs3": "nir"},
}
_OLI = {"b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir", "b6": "swir1", "b7": "swir2"}
_MSI = {
    "b01": "coastal",
    "b02": "blue",
    "b03": "green",
    "b04": "red",
    "b05": "rededge",
    "b08": "nir",
    "b8a": "nir2",
    "b11": "swir1",
    "b12": "swir2",
}
_MSI_FINE = {"b2": "blue", "b3": "green", "b4": "red", "b8": "nir"}
_UP_TO = (  # centre in nanometres, below which a band is
    (400, None),
    (453, "coastal"),
    (510, "blue"),
    (580, "green"),
    (628, "yellow"),
    (690, "red"),
    (755, "rededge"),
    (900, "nir"),
    (1000, "nir2"),
    (1500, None),
    (1800, "swir1"),
    (2500, "swir2"),
)


def of_name(name: str | None) -> str | None:
    """The word that a name means by itself, such as "Near-Infrared Band" or "2: blue (450-510 nm)"."""
    text = unicodedata.normalize("NFKD", name or "").encode("ascii", "ignore").decode()
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[(\[].*?[)\]]", " ", text).casefold()
    parts = [part for part in re.split(r"[^a-z0-9]+", text) if part and part not in _FILLERS]
    # A number before or after the word is the band's, unless the word has it.
    for tried in (
        parts,
        parts[1:] if parts and re.fullmatch(r"b?\d+[a-z]?", parts[0]) else parts,
        _letters(parts),
    ):
        joined = " ".join(tried)
        for word, pattern in _SEVERAL:
            if joined and re.fullmatch(pattern, joined):
                return word
    return None


def _letters(parts: list[str]) -> list[str]:
    return [part for part in parts if not part.isdigit()]


def of_all(names: Sequence[str | None]) -> list[str | None]:
    """The words of a file's names, taken together, as letters and numbers mean something only so."""
    found = [of_name(name) for name in names]
    plain = [re.sub(r"^(band|sr|ms|mul)?[ _-]*", "", (name or "").strip().casefold()) for name in names]
    silent = [name for name, word in zip(plain, found, strict=True) if word is None]
    if not silent or not all(plain):
        return found
    tables = [_LETTERS]
    if "b0" in plain:
        tables.append(_NUMBERED["pleiades"])
    if any(name.startswith("xs") for name in plain):
        tables.append(_NUMBERED["spot"])
    if {"b02", "b03", "b04"} <= set(plain):
        tables.append(_MSI)
    elif {"b2", "b3", "b4", "b5"} <= set(plain) and "b0" not in plain:
        tables.append(_OLI)
    elif {"b2", "b3", "b4", "b8"} <= set(plain):
        tables.append(_MSI_FINE)
    for table in tables:
        if all(name in table for name in silent):
            return [word or table[name] for name, word in zip(plain, found, strict=True)]
    return found


def numbers(names: Sequence[str | None]) -> list[int] | None:
    """The numbers of bands whose names are nothing else, such as "Band 3" or "B3"; None for any other."""
    found = [
        re.fullmatch(r"(?:band|b|layer|channel)?[ _-]*0*(\d+)", (name or "").strip().casefold())
        for name in names
    ]
    return [int(match[1]) for match in found if match] if all(found) and found else None


def of_wavelength(nanometres: float) -> str | None:
    """The word for a band with its centre there."""
    return next((word for end, word in _UP_TO if nanometres < end), None)
