"""Contrast of text by WCAG 2.2, success criterion 1.4.3."""

ENOUGH = 4.5  # level AA, text of any size
INKS = ('#000000', '#ffffff')

Colour = tuple[int, int, int] | list[int]


def luminance(colour: Colour) -> float:
    """Return the relative luminance of an sRGB colour, from 0 to 1."""
    shares = (value / 255 for value in colour)
    linear = [
        s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(text: str) -> Colour:
    """Return the colour of a text such as '#1f6f8b'."""
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def ink(colour: Colour) -> str:
    """Choose black or white for text upon a colour; one of them is always enough."""
    return max(INKS, key=lambda text: ratio(rgb(text), colour))
