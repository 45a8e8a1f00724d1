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
Guide" and "Pleiades Imagery User Guide" (band identifiers of DIMAP); Planet, "Imagery Product
Specifications"; USGS, "Landsat 8-9 Collection 2 Level 1 Data Format Control Book"; GDAL's colour
interpretations (3.10). Letters and numbers mean something only together with those of the other bands
(`of_letters`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

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
        r"(nir|near infra ?red|near ir|nearinfrared|infra ?red|proche infra ?rouge|pir|nahes "
        r"infrarot|nahinfrarot|infrarrojo( cercano)?|infravermelho( proximo)?|infrarosso( vicino)?|vnir|nir "
        r"narrow|narrow nir|nabij infrarood|bliska podczerwien|nara infrarod|naer infrarod|nær infrarød|lahi "
        r"infrapuna|yakin kizilotesi|blizke infracervene|kozeli infravoros) ?(1|08)?",
    ),
    ("green1", r"green i|green1"),
    ("blue", r"blue|blu|bleu|blau|azul|blauw|niebieski|bla|blaa|sininen|mavi|modra|modre|kek|albastru"),
    ("green", r"green ?(ii|2)?|grn|vert|grun|gruen|verde|groen|zielony|gron|vihrea|yesil|zelena|zold"),
    ("yellow", r"yellow|yel|jaune|gelb|amarillo|amarelo|giallo|geel|zolty|gul|keltainen|sari|zluta"),
    ("red", r"red|rouge|rot|rojo|vermelho|rosso|rood|czerwony|rod|roed|punainen|kirmizi|cervena|voros|rosu"),
    ("pan", r"pan|panchro|panchromatic"),
    ("cirrus", r"cirrus"),
    ("alpha", r"alpha|mask|udm2?|opacity"),
)
_OTHER_SCRIPTS = {
    "red": "красный красная 红 红色 红波段 红光 紅 赤 赤色 적색 빨강 κόκκινο أحمر",
    "green": "зеленый зелёный 绿 绿色 绿波段 绿光 綠 緑 緑色 녹색 초록 πράσινο أخضر",
    "blue": "синий голубой 蓝 蓝色 蓝波段 蓝光 藍 青 青色 청색 파랑 μπλε أزرق",
    "nir": "ближнийинфракрасный бик 近红外 近红外波段 近紅外 近赤外 近赤外線 근적외선 근적외",
    "rededge": "красныйкрай 红边 紅邊 レッドエッジ 레드에지",
    "yellow": "желтый жёлтый 黄 黄色 黃 황색",
    "coastal": "海岸 海岸带 海岸蓝 深蓝",
    "pan": "панхроматический 全色 パンクロ パンクロマチック 전정색",
}
_BY_SCRIPT = {form: word for word, forms in _OTHER_SCRIPTS.items() for form in forms.split()}
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
    "multispectral",
    "surface",
    "vis",
    "visible",
    "wavelength",
    "colour",
    "color",
    "light",
    "spectral",
    "optical",
    "image",
}
_PREFIX = re.compile(
    r"(ms|band|l[cet]0?[4-9]|s2[abc]?)\d*"
)  # of a sensor or a product, before what a band is
_WAVELENGTH = re.compile(
    r"(\d+(?:\.\d+)?)(?:\s*(?:-|to|\u2013|\.\.)\s*(\d+(?:\.\d+)?))?\s*(nm|um|mum|[\u00b5\u03bc]m|microns?|micromet(?:er|re)s?|nanomet(?:er|re)s?)\b"
)
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
_FRENCH = {"b": "blue", "v": "green", "r": "red", "pir": "nir", "ir": "nir", "p": "pan"}
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
    plain = re.sub(r"[\W\d_]+", "", (name or "").casefold())
    if plain in _BY_SCRIPT:
        return _BY_SCRIPT[plain]
    text = _ascii(name or "")
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    outside = re.sub(r"[(\[].*?[)\]]", " ", text)
    inside = " ".join(re.findall(r"[(\[](.*?)[)\]]", text))
    for part in (outside, inside):
        word = _of_words(_WAVELENGTH.sub(" ", part.casefold()))
        if word:
            return word
    return _of_text_wavelength(name or "")


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _of_words(text: str) -> str | None:
    parts = [part for part in re.split(r"[^a-z0-9]+", text) if part and part not in _FILLERS]
    # A number before or after the word is the band's, unless the word has it.
    for tried in (
        parts,
        parts[1:] if parts and re.fullmatch(r"b?\d+[a-z]?", parts[0]) else parts,
        _letters(parts),
        [part for part in _letters(parts) if not _PREFIX.fullmatch(part)],
    ):
        joined = " ".join(tried)
        for word, pattern in _SEVERAL:
            if joined and re.fullmatch(pattern, joined):
                return word
    return None


def _of_text_wavelength(text: str) -> str | None:
    """By a number or a range with a unit."""
    found = _WAVELENGTH.search(text.casefold())
    if not found:
        return None
    ends = [float(number) for number in found.group(1, 2) if number]
    return of_wavelength(sum(ends) / len(ends) * (1 if found[3].startswith("n") else 1000))


def _letters(parts: list[str]) -> list[str]:
    return [part for part in parts if not part.isdigit()]


def of_all(names: Sequence[str | None]) -> list[str | None]:
    """The words of a file's names, taken together, as letters and numbers mean something only so."""
    found = [of_name(name) for name in names]
    plain = [_bare(name or "") for name in names]
    silent = [name for name, word in zip(plain, found, strict=True) if word is None]
    if not silent or not all(plain):
        return found
    bare = [float(name) if re.fullmatch(r"\d+(\.\d+)?", name) else 0.0 for name in plain]
    for unit in (1.0, 1000.0):  # wavelengths without a unit
        if all(400 <= unit * number <= 2500 for number in bare):
            return [of_wavelength(unit * number) for number in bare]
    for table in _tables(plain):
        if all(name in table for name in silent):
            return [word or table[name] for name, word in zip(plain, found, strict=True)]
    return found


def _bare(name: str) -> str:
    """What is left of a name without what it says of all bands alike, such as "b4" of "LC08_B4"."""
    text = _WAVELENGTH.sub(" ", name.casefold().strip())
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return text.strip()
    parts = [part for part in re.split(r"[^a-z0-9]+", _ascii(text)) if part and part not in _FILLERS]
    kept = [part for part in parts if not part.isdigit() and not _PREFIX.fullmatch(part)]
    return kept[0] if len(kept) == 1 else ""


def _tables(plain: Sequence[str]) -> list[Mapping[str, str]]:
    """What letters and numbers mean, by those that are there."""
    tables: list[Mapping[str, str]] = [_LETTERS, _FRENCH]
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
    return tables


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
