"""The colours of classes, the same in pictures and pages."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Twelve colours that stay apart on a photo and carry white or black text; classes take them in turn.
PALETTE: tuple[Colour, ...] = (
    *((230, 60, 60), (60, 180, 75), (255, 205, 25), (67, 120, 240), (245, 130, 48), (160, 60, 200)),
    *((70, 215, 230), (240, 50, 210), (170, 230, 60), (250, 165, 175), (0, 150, 140), (180, 130, 80)),
)


def place_of(label: int) -> int:
    """Which colour of the palette a class has."""
    return label % len(PALETTE)


def is_bright(colour: Colour) -> bool:
    """Whether black text reads better on a colour than white text."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140


def palette_css() -> str:
    """Rules that give `.k0`, `.k1` and so on the colours of the palette, and ink for text on them.

    >>> palette_css().splitlines()[0]
    '.k0 { --class: #e63c3c; --on-class: #ffffff; }'
    """
    inks = ("#ffffff", "#19191e")
    rules = [(bytes(colour).hex(), inks[is_bright(colour)]) for colour in PALETTE]
    return "".join(
        f".k{place} {{ --class: #{colour}; --on-class: {ink}; }}\n" for place, (colour, ink) in enumerate(rules)
    )
