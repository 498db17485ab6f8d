"""How many tokens a byte of this text may cost: an upper rate from its character classes, without a tokenizer.

A byte-level tokenizer never makes more tokens than bytes, which is four times too much for English and exact for long
digits. The rates below were fitted so that no kind of ordinary text costs more in any of the tokenizers measured
(`docs/estimates.md`). Only windows of the text are read, at C speed: the cost does not grow with the text.
"""

from __future__ import annotations

WINDOW = 512
"""Characters read at a time: small enough to see a run of base64 inside prose."""

SAMPLE = 16 * WINDOW
"""Characters read of one request at most."""

QUICK_SAMPLE = 768
"""The same for the few texts that a later step of a conversation appends."""

ORDINARY = 0.5
"""The rate taken for ASCII with word gaps and few digits when there is no need to know better."""

_LOWER = bytes(range(ord("a"), ord("z") + 1))
_UPPER = bytes(range(ord("A"), ord("Z") + 1))
_DIGITS = b"0123456789"
_SPACES = b" \t\r\n\v\f"
# First bytes of a UTF-8 sequence say how long it is, and in three bytes roughly which script.
_TWO = bytes(range(0xC0, 0xE0))  # accents, Greek, Cyrillic, Hebrew, Arabic
_SCRIPTS = bytes(range(0xE0, 0xE3))  # Indic, Thai, Georgian, Ethiopic, Khmer; also dashes and quotes
_HAN = bytes(range(0xE3, 0xEA))  # kana and common Han
_HANGUL = bytes(range(0xEA, 0xF0))  # and full-width forms
_FOUR = bytes(range(0xF0, 0x100))  # emoji, rare Han

# Tokens a character of each class costs at most: in words; in capitals with gaps; in keys, base64 and mixed case
# without gaps; where there are only marks.
_WORD, _CAPITALS, _KEY = 0.40, 0.55, 0.90
_DIGIT, _SPACE, _MARK, _ALL_MARKS = 1.40, 0.52, 0.68, 0.85
_BREAK, _BLANK = 2.0, 0.2  # where there is only white space: a new line or tab (with a blank beside it), a blank
_WIDE = ((_TWO, 1.25), (_SCRIPTS, 3.0), (_HAN, 1.40), (_HANGUL, 1.35), (_FOUR, 4.0))

_MIN_GAPS, _MAX_UPPER, _MOSTLY_MARKS, _MOSTLY_SPACE = 0.08, 0.30, 0.5, 0.8


def density(text: str) -> float:
    """Upper rate in tokens per byte (0 to 1) of *text*."""
    if 0 < len(text) <= WINDOW:
        data = text.encode("utf-8", "surrogatepass")
        return _bound(data) / len(data)
    size = tokens = 0.0
    for piece in _windows(text, WINDOW, SAMPLE):
        data = piece.encode("utf-8", "surrogatepass")
        size += len(data)
        tokens += _bound(data)
    return tokens / size if size else ORDINARY


def quick_density(text: str) -> float:
    """As `density`, from fewer characters, and `ORDINARY` where a look at gaps and digits shows nothing special."""
    if 0 < len(text) <= QUICK_SAMPLE // 2:
        data = text.encode("utf-8", "surrogatepass")
        return _quick_bound(data) / len(data)
    size = tokens = 0.0
    for piece in _windows(text, QUICK_SAMPLE // 2, QUICK_SAMPLE):
        data = piece.encode("utf-8", "surrogatepass")
        size += len(data)
        tokens += _quick_bound(data)
    return tokens / size if size else ORDINARY


def _windows(text: str, width: int, limit: int) -> list[str]:
    """A short *text* in windows of *width*; of a long one, windows spread evenly, *limit* characters in all."""
    total = len(text)
    if total <= limit:
        return [text[at : at + width] for at in range(0, total, width)]
    count = limit // width
    starts = (total * (2 * n + 1) // (2 * count) - width // 2 for n in range(count))
    return [text[at : at + width] for at in starts]


def _quick_bound(data: bytes) -> float:
    """As `_bound`, from a look at gaps and digits where they show nothing special."""
    count = len(data)
    if 12 * data.count(b" ") >= count and data.isascii() and 10 * (count - len(data.translate(None, _DIGITS))) <= count:
        return ORDINARY * count
    return _bound(data)


def _bound(data: bytes) -> float:
    """Tokens that *data* costs at most, never more than its bytes."""
    size = len(data)
    no_lower = data.translate(None, _LOWER)
    no_letters = no_lower.translate(None, _UPPER)
    no_digits = no_letters.translate(None, _DIGITS)
    rest = no_digits.translate(None, _SPACES)
    upper = len(no_lower) - len(no_letters)
    letters, digits, spaces = size - len(no_letters), len(no_letters) - len(no_digits), len(no_digits) - len(rest)
    marks = len(rest)
    tokens = 0.0
    if not data.isascii():
        marks = len(rest.decode("ascii", "ignore"))
        tokens = sum(rate * (len(rest) - len(rest.translate(None, leads))) for leads, rate in _WIDE)
    narrow = letters + digits + spaces + marks
    if spaces > _MOSTLY_SPACE * narrow:
        breaks = spaces - data.count(b" ")
        return min(tokens + _BREAK * breaks + _BLANK * (spaces - breaks) + letters + digits + marks, size)
    gaps, shouting = _MIN_GAPS * narrow, upper > _MAX_UPPER * letters
    if spaces + marks < gaps or (shouting and spaces < gaps):
        return min(tokens + _KEY * letters + digits + _SPACE * spaces + marks, size)
    tokens += (_CAPITALS if shouting else _WORD) * letters + _DIGIT * digits + _SPACE * spaces
    tokens += (_ALL_MARKS if marks > _MOSTLY_MARKS * narrow else _MARK) * marks
    return min(tokens, size)
