"""Raster: a picture of the console as PNG, drawn from its SVG by resvg with a font that has braille and blocks."""

import importlib.util
import io
from pathlib import Path

from PIL import Image

from dambench.core.errors import BadInput

FONT = "DejaVu Sans Mono"
FILES = ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSans.ttf")
"""They come with matplotlib. The last one has the braille that the others lack."""

COLOURS = 256


def png(svg: str) -> bytes:
    """Draw an SVG of the console as PNG, of 256 colours at most.

    Raises:
        BadInput: what draws it is not installed.
    """
    matplotlib = importlib.util.find_spec("matplotlib")
    if importlib.util.find_spec("resvg_py") is None or matplotlib is None or matplotlib.origin is None:
        raise BadInput(
            "A picture of the console as PNG needs resvg-py, and matplotlib for its font: "
            "`pip install 'dambench[pictures]'`, or ask for .svg."
        )
    import resvg_py

    fonts = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
    drawn = resvg_py.svg_to_bytes(
        # A font that is on no machine but by chance; without it the title would not be drawn at all.
        svg_string=svg.replace("font-family: arial", "font-family: monospace"),
        skip_system_fonts=True,
        font_files=[str(fonts / name) for name in FILES],
        monospace_family=FONT,
    )
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
