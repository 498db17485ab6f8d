"""What is known beforehand of a family of models: its tokenizer against the measured worst, and what pictures cost."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Constants of a family of models.

    Attributes:
        scale: its tokens per byte against the rates of `density`, which hold for the worst tokenizer measured.
        tool_preamble: tokens the provider adds to a request that has tools.
        image_tokens: most tokens one picture costs, at any size, in the detail the provider takes by default.
        encoding: its vocabulary in tiktoken, where it has one.
    """

    scale: float = 1.0
    tool_preamble: int = 64
    image_tokens: int = 6_404
    encoding: str | None = None


# Sources, read in November 2026; those marked * only as others quote them:
# - OpenAI, "Images and vision": 512 px tiles, at most 8 (2048 x 768): 85 + 170 each (4o), 2,833 + 5,667* (4o-mini),
#   70 + 140* (gpt-5); 32 px patches, at most 1,536, times 1.62 (mini), 1.72* (o4-mini), 2.46 (nano). For gpt-5.4 on
#   10.24 megapixels*, which is 10,000 patches, times 1.2*.
# - Anthropic, "Vision": 28 px patches; at most 1,568 tokens*, in high-resolution models (Opus 4.7 on) 4,784*.
#   Anthropic, "Tool use": its system prompt adds up to 530 tokens (Claude 3), 346* (Claude 4); room left for newer.
#   Claude's tokenizer is not public: 1.35 is what is said* of the newest against the one before.
# - Google, "Media resolution": 1,120 tokens a picture by default in Gemini 3, 2,240 at most*; before, 258 a tile of
#   768 px, here 16 of them.
# - Llama 3.2 vision: 4 tiles of 1,601; taken for every other family too.
_TILES, _MINI_TILES, _PATCHES, _ORIGINAL = 85 + 8 * 170, 2_833 + 8 * 5_667, 3_779, 12_000
_O200K = 0.84

_OTHER = Family()
_KNOWN: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-4o-mini", Family(scale=_O200K, image_tokens=_MINI_TILES, encoding="o200k_base")),
        (r"(gpt|chatgpt)-4o|gpt-4\.5|o1|o3", Family(scale=_O200K, image_tokens=_PATCHES, encoding="o200k_base")),
        (r"gpt-4\.1|o4|gpt-5($|-)|gpt-5\.[0-3]", Family(scale=_O200K, image_tokens=_PATCHES, encoding="o200k_base")),
        (r"gpt-5", Family(scale=_O200K, image_tokens=_ORIGINAL, encoding="o200k_base")),
        (r"gpt-oss", Family(scale=_O200K, encoding="o200k_base")),
        (r"gpt-(4|3\.5|35)", Family(image_tokens=_TILES, encoding="cl100k_base")),
        (r"gpt-", Family(image_tokens=_ORIGINAL)),
        (
            r"claude-(3|2|instant|(opus|sonnet|haiku)-4-([0-6]($|\D)|20\d\d))",
            Family(scale=1.35, tool_preamble=600, image_tokens=1_600),
        ),
        (r"claude", Family(scale=1.35, tool_preamble=1_000, image_tokens=4_800)),
        (r"gemini-[12]", Family(image_tokens=16 * 258)),
        (r"gemini", Family(image_tokens=2_240)),
    )
)
_NAME = re.compile(r"(?:^|[/.:_])(?=(gpt|chatgpt|o\d|claude|gemini))")


def family_of(model: str) -> Family:
    """The family of *model*, whatever a gateway, region or fine-tune put before its name; else the cautious one."""
    name = model.lower()
    found = _NAME.search(name)
    if found is None:
        return _OTHER
    name = name[found.end() :]
    return next((family for pattern, family in _KNOWN if pattern.match(name)), _OTHER)


_REASONS = re.compile(
    r"(?:^|[/.:_-])(o\d|gpt-5|gpt-oss|gemini-(2\.5|[3-9])|deepseek-(r\d|reasoner|v[3-9])|qwq|qwen3|magistral|"
    r"grok-(3-mini|[4-9])|glm-[4-9]|kimi-k2|minimax)"
)


def may_hide_output(model: str) -> bool:
    """Whether *model* may write tokens that nobody sees and everybody pays for: reasoning."""
    return _REASONS.search(model.lower()) is not None


AUDIO_TOKENS_PER_BYTE = 0.02
"""32 tokens a second (Gemini, the dearest) at 16 kbit/s, the lowest rate of speech; OpenAI counts 10 a second."""

VIDEO_TOKENS_PER_BYTE = 0.02
"""300 tokens a second (Gemini) at 120 kbit/s."""

DOCUMENT_TOKENS_PER_BYTE = 0.5
"""A page of a PDF costs at most about 4,800 tokens (text and picture) and has seldom less than 10 kB."""

REMOTE_FILE_TOKENS = 32_768
"""A file known only by its id: a guess of 7 to 20 pages. What it truly costs is known after the call."""
