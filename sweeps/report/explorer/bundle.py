"""The library that draws the explorer: Vega-Lite with all it needs, as one script.

It is bundled from the package vl-convert-python (extra ``report``), which carries the releases of
Vega, Vega-Lite and Vega-Embed: no copy of them lies in this repository, and none is fetched.
"""

import base64
import gzip
from functools import cache

MISSING = "Figures that answer to the pointer need a package: pip install 'kinescale[report]'."


@cache
def bundle() -> str | None:
    """Return the script, which sets ``vegaEmbed``, as base64 of gzip; None without the package.

    Packed it has half its size. It takes some seconds, once a process.
    """
    try:
        import vl_convert
    except ImportError:
        return None
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Its top-level names are single letters: they stay its own.
    packed = gzip.compress(f"(() => {{{text}\n}})();".encode(), mtime=0)
    return base64.b64encode(packed).decode("ascii")
