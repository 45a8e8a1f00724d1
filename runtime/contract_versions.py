"""Which versions of a contract are read, and what is said of one that is not?

Three rules keep a model readable for as long as it means the same.

1. A field that is added says what was true before it was there, as its default (`_later` in
   `sfiin.runtime.contract`): `block` 1, for channels were in no order; `influence`, `home` and
   `lowering_choice` empty, for nothing had been measured or chosen; `graph` and `derived` empty, for bytes
   were not vouched for. So every model since the first is read.
2. A field that changes its meaning makes a new `format`, which other versions refuse.
3. What is refused names the version that wrote it, for that one reads it.
"""

from __future__ import annotations

from typing import Any

import sfiin


def written_by(document: Any) -> str:
    """The end of a message about a document: who wrote it, if it was another version than this.

    The document is a contract or has one inside, as a plan's sidecar does; "" where it does not say.
    """
    for place in (document, _get(document, "contract")):
        version = _get(_get(place, "versions"), "sfiin")
        if isinstance(version, str) and version.isprintable() and version != sfiin.__version__:
            return f" (written by sfiin {version[:40]}, this is {sfiin.__version__})"
    return ""


def _get(document: Any, key: str) -> Any:
    return document.get(key) if isinstance(document, dict) else None
