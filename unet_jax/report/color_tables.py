"""Writes the colours of classes as tables that 3D Slicer and ITK-SNAP read."""

from collections.abc import Sequence
from pathlib import Path

from unet_jax.runtime.atomic import atomic_path

SLICER = "colors.ctbl"
ITK_SNAP = "colors.itksnap.txt"
NAMES = (SLICER, ITK_SNAP)


def write_color_tables(
    folder: Path,
    *,
    class_names: Sequence[str],
    class_colors: Sequence[Sequence[int]],
) -> None:
    """Write ``colors.ctbl`` for 3D Slicer and ``colors.itksnap.txt`` for ITK-SNAP.

    Class 0, the background, is transparent in both.

    Args:
        folder: existing folder of the label maps.
        class_names: name of each class, in the order of the labels.
        class_colors: red, green and blue of each class, 0 to 255.
    """
    rows = list(zip(class_names, class_colors, strict=True))
    texts = {SLICER: _slicer(rows), ITK_SNAP: _itk_snap(rows)}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _slicer(rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Return lines of index, name, red, green, blue and opacity, 0 to 255."""
    lines = ["# Slicer color table: index name red green blue opacity"]
    for index, (name, (red, green, blue)) in enumerate(rows):
        # A blank ends a name; Slicer shows an underscore as a blank.
        word = "_".join(name.split()) or f"class_{index}"
        lines.append(f"{index} {word} {red} {green} {blue} {255 * (index > 0)}")
    return "\n".join(lines) + "\n"


def _itk_snap(rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Return label descriptions: index, colour, opacity, visible, mesh, name."""
    lines = ["# ITK-SnAP Label Description File", "# IDX R G B A VIS MSH LABEL"]
    for index, (name, (red, green, blue)) in enumerate(rows):
        # A quotation mark ends a name.
        word = " ".join(name.replace('"', "'").split()) or f"class {index}"
        seen = int(index > 0)
        lines.append(f'{index} {red} {green} {blue} {seen} {seen} {seen} "{word}"')
    return "\n".join(lines) + "\n"
