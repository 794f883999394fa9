"""The eight colours of lines: variables of the page, and what they are on white paper."""

TONES = ("data", "samples", "stretch", "squeeze", "error", "warning", "ink", "muted")
ON_WHITE = (
    "#0072b2", "#c2500a", "#00795a", "#8b3f86", "#a8201a", "#7a5200", "#1d2126", "#5b636d",
)  # fmt: skip


def variable(tone: int) -> str:
    """Returns the CSS variable of a tone.

    Example:
        >>> variable(0), variable(9)
        ('var(--data)', 'var(--samples)')
    """
    return f"var(--{TONES[tone % len(TONES)]})"


def on_white(tone: int) -> str:
    """Returns the colour of a tone on white paper."""
    return ON_WHITE[tone % len(ON_WHITE)]
