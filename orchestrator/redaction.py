"""Takes secrets out of what is written into the audit trail; the record calls it for every row.

By the names of fields and by the forms of well-known secrets. It cannot know a password that
stands in free text without either: whoever writes an act says ids and counts, no content.
"""

import re
from functools import lru_cache
from operator import is_not
from typing import Any

REDACTED = "[redacted]"
DEEPEST = 32  # levels; what lies deeper is left out, as nobody looks for it there
SHORT = 16  # characters; no form below fits so few letters, and none digits alone

# Of a field whose value is a secret, whatever it looks like. Not "tokens": those are counted.
_NAMES = re.compile(
    r"pass(?:word|wd|phrase|code)|(?:^|[_.-])pwd$|secret|token(?!s)|api[_-]?key|authorization"
    r"|cookie|credential|private[_-]?key|access[_-]?key",
    re.IGNORECASE,
)
# Each begins with a letter or sign that few places have, and is bounded: the text may be hostile.
_FORMS = re.compile(
    r"(?P<aurora>\bak_[0-9a-f]{16}_)[0-9a-f]{64}\b"
    r"|(?P<url>://[^\s/:@]{0,200}:)[^\s/@]{1,500}(?=@)"
    r"|(?P<scheme>(?<![A-Za-z])(?:bearer|basic)\s{1,4})[A-Za-z0-9._~+/=-]{8,4096}"
    r"|(?P<field>(?:password|passwd|secret|token|api[_-]?key)[\"']?\s{0,4}[=:]\s{0,4}[\"']?)"
    r"[^\s&\"',;]{1,4096}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,40}KEY-----)?"
    r"|(?<![A-Za-z0-9_-])(?:eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{0,4096}"
    r"|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,255}|sk-[A-Za-z0-9_-]{20,255})",
    re.IGNORECASE,
)


def redacted(value: Any, depth: int = 0) -> Any:
    """The same JSON value without secrets; the very same object where there are none."""
    kind = type(value)
    if kind is str:
        # Words such as a state or an agent's name, and ids of entries, which most rows consist of.
        if (len(value) < SHORT and value.isalpha()) or value.replace("-", "").isdigit():
            return value
        return _FORMS.sub(_kept, value)
    if kind is dict:
        return _object(value, depth)
    if kind is list:
        items = [redacted(each, depth + 1) for each in value] if depth < DEEPEST else [REDACTED]
        return items if any(map(is_not, items, value)) else value
    return value


def _object(value: dict[str, Any], depth: int) -> dict[str, Any]:
    if depth >= DEEPEST:
        return {REDACTED: REDACTED}
    changed = {}
    for name, each in value.items():
        kept = REDACTED if _is_secret(name) and each is not None else redacted(each, depth + 1)
        if kept is not each:
            changed[name] = kept
    return value | changed if changed else value


# A record has a few dozen names; the limit is for those of other programs.
@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _NAMES.search(name) is not None


def _kept(found: re.Match[str]) -> str:
    """What says which secret it was stays: a key's public part, a scheme, a field's name."""
    return f"{found.group(found.lastgroup) if found.lastgroup else ''}{REDACTED}"
