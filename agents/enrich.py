"""Finds the indicators in an alert or a text: addresses, domains, URLs, hashes, mail addresses.

Looks nothing up and asks nobody: what it says follows from the text alone. What comes in was
written by attackers, so every pattern here takes time linear in the text.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator import Agent, Alert, RunContext

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_DOMAIN = 253  # characters, RFC 1035
LONGEST_TEXT = 262_144  # characters; a message is at most 256 KiB by default
MOST_INDICATORS = 1_000  # more is a blocklist, not an alert
MOST_PLACES = 10  # of one indicator, for the same reason


class Kind(StrEnum):
    """What an indicator is."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    DOMAIN = "domain"
    URL = "url"
    EMAIL = "email"
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    JA3 = "ja3"  # a TLS client's or server's fingerprint: an MD5 of no file


class Scope(StrEnum):
    """Where an address or name means something; only `public` is worth asking others about."""

    PUBLIC = "public"
    PRIVATE = "private"
    SHARED = "shared"  # carrier-grade NAT
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    DOCUMENTATION = "documentation"
    RESERVED = "reserved"


# Ranges that `ipaddress` lumps together with others. RFC 5737, 3849, 9637, 6598, 1918, 4193.
NETWORK_SCOPES = tuple(
    (ipaddress.ip_network(network), scope)
    for scope, networks in (
        (
            Scope.DOCUMENTATION,
            "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        ),
        (Scope.SHARED, "100.64.0.0/10"),
        (Scope.PRIVATE, "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"),
    )
    for network in networks.split()
)
# RFC 2606, 6761, 7686, 8375 and 9476, and what sites use without asking.
_SPECIAL_DOMAINS = {
    Scope.DOCUMENTATION: "example example.com example.net example.org test",
    Scope.RESERVED: "invalid alt onion arpa",
    Scope.LOOPBACK: "localhost",
    Scope.LINK_LOCAL: "local",
    Scope.PRIVATE: "internal home.arpa lan corp home",
}
SPECIAL_DOMAINS = {
    name: scope for scope, names in _SPECIAL_DOMAINS.items() for name in names.split()
}
# In running text a name counts as a domain only under an ending seen in practice: without this,
# `System.Net.WebClient` and `invoice.docx` are domains. Two-letter endings are countries. Where a
# field says that it is a host name, or somebody defanged it, any ending counts.
_TEXT_ENDINGS = """
academy agency aero app asia bank best bid biz blog cam cash cat center cfd christmas click cloud
club com company coop cyou date dev digital download edu email events faith finance fit fun fyi
games gdn global gov group guru host hosting icu info ink int jobs kim life link live loan lol ltd
market media men mil mobi moe mom monster museum name net network news ninja one online org page
party pics pro pub quest racing rest review rocks run sbs science security services shop site
solutions space store stream studio support systems team tech tel today tokyo top trade travel vip
vpn website wiki win work works world wtf xxx xyz zone
example test invalid onion local internal lan corp home localhost
"""
TEXT_ENDINGS = frozenset(_TEXT_ENDINGS.split())
# Countries' endings that are files far more often.
FILE_ENDINGS = frozenset({"cs", "gz", "hs", "js", "md", "ml", "pl", "ps", "py", "rs", "sh", "so"})
# Fields of EVE, and of most logs, that hold a host name and nothing else.
HOST_FIELDS = frozenset({"hostname", "host", "sni", "rrname", "server_name", "domain", "fqdn"})
# Bytes: in `payload_printable` a dot stands for whatever could not be printed, and the serial
# number of a certificate can pass for an IPv6 address.
SKIPPED_FIELDS = frozenset({"payload", "payload_printable", "packet", "serial"})


class EnrichInput(BaseModel):
    """An alert, a text, or both."""

    alert: Alert | None = None
    text: str = Field(default="", max_length=LONGEST_TEXT)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.alert is None and not self.text:
            raise ValueError("give an alert, a text, or both")
        return self


class Indicator(BaseModel):
    """One thing to look for elsewhere, in its canonical spelling."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    value: str  # refanged; addresses compressed, domains in lower case and ASCII (IDNA)
    scope: Scope | None = None  # of addresses, domains, and the hosts of URLs and mail addresses
    defanged: bool = False  # somebody wrote it so that nobody clicks: somebody suspected it
    count: int = 1
    places: list[str] = Field(default_factory=list)  # "dest_ip", "details/tls/sni", "text"


class Indicators(BaseModel):
    """What was found: field by field, and in each URLs before what is in them."""

    indicators: list[Indicator]
    worth_asking: list[str]  # the values that others may know something about
    truncated: bool = False  # there were more than MOST_INDICATORS


class Enrich(Agent[EnrichInput, Indicators]):
    """Extract and classify indicators. Touches no network."""

    name = "enrich"
    timeout = timedelta(minutes=1)

    # Plain `def`: a quarter of a megabyte of text takes its time, in a thread nobody waits for it.
    def run(self, task_input: EnrichInput, ctx: RunContext) -> Indicators:  # noqa: ARG002 - the interface's
        """Walk the alert's fields, then the text."""
        found = _Collection()
        for place, text in _texts(task_input):
            for each in indicators_in(text, place=place):
                found.add(each)
        return found.result()


def indicators_in(text: str, *, place: str = "text") -> Iterator[Indicator]:
    """Every indicator in a text; `place`, the path of its field, says how to read it."""
    name = place.rsplit("/", 1)[-1]
    if name in SKIPPED_FIELDS:
        return
    if name in HOST_FIELDS:
        hosts = list(_host(re.sub(r":\d{1,5}$", "", text.strip()), place, any_ending=True))
        if hosts:
            yield from hosts
            return
    if name == "fingerprint":
        # Colons between bytes only here: elsewhere they are serial numbers, and no hashes.
        text = text.replace(":", "")
    marked = _marked(text)
    for pattern, read in PATTERNS:
        # Each finds and blanks out, so that a URL's host is not found a second time.
        for match in pattern.finditer(marked):
            yield from read(match.group(), place)
        marked = pattern.sub(" ", marked)


# Stands for a dot that was defanged, and after a scheme or before an @ that was, between finding
# and reading. From the private use area, and taken out of what comes in.
MARK = "\ue000"
_DEFANGED_DOT = re.compile(r"\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\)|\{dot\}|\\\.", re.IGNORECASE)
_DEFANGED_AT = re.compile(r"\[at\]|\(at\)|\[@\]|\(@\)", re.IGNORECASE)
_SCHEME = re.compile(r"\b(h[tx]{2}p|fxp)(s?)(?:\[:\]//|\[://\]|:\[//\]|://)", re.IGNORECASE)


def _marked(text: str) -> str:
    """The text with what was defanged undone and marked."""
    text = _DEFANGED_DOT.sub(MARK, text.replace(MARK, " "))
    return _SCHEME.sub(_plain_scheme, _DEFANGED_AT.sub(MARK + "@", text))


def _plain_scheme(match: re.Match[str]) -> str:
    written = match.group().lower()
    plain = f"{'ftp' if written.startswith('f') else 'http'}{match.group(2).lower()}://"
    return plain if plain == written else plain + MARK


def _refanged(text: str) -> tuple[str, bool]:
    """The text as it would work, and whether it had been defanged."""
    plain = text.replace("://" + MARK, "://").replace(MARK + "@", "@").replace(MARK, ".")
    return plain, MARK in text


def _url(text: str, place: str) -> Iterator[Indicator]:
    url, defanged = _refanged(text)
    scheme, _, rest = url.rstrip(".,;:!?)]}'\"").partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    for found in _host(host, place, any_ending=True, defanged=defanged):
        value = f"{scheme.lower()}://{rest}"
        yield found.model_copy(update={"kind": Kind.URL, "value": value})
        yield found


def _email(text: str, place: str) -> Iterator[Indicator]:
    address, defanged = _refanged(text)
    local, _, domain = address.rpartition("@")
    for found in _host(domain, place, any_ending=True, defanged=defanged):
        value = f"{local}@{found.value}"
        yield found.model_copy(update={"kind": Kind.EMAIL, "value": value})
        yield found


def _plain_host(text: str, place: str) -> Iterator[Indicator]:
    host, defanged = _refanged(text)
    yield from _host(host.rstrip("."), place, any_ending=defanged, defanged=defanged)


def _host(
    text: str, place: str, *, any_ending: bool, defanged: bool = False
) -> Iterator[Indicator]:
    """The address or domain that a text is, if it is one."""
    address = _address(text)
    domain = None if address else domain_in(text, any_ending=any_ending)
    if address:
        kind, value, scope = _KINDS[address.version], str(address), scope_of(address)
    elif domain:
        kind, value, scope = Kind.DOMAIN, domain, scope_of_domain(domain)
    else:
        return
    yield Indicator(kind=kind, value=value, scope=scope, defanged=defanged, places=[place])


def _hash(text: str, place: str) -> Iterator[Indicator]:
    kind = _HASHES[len(text)]
    if kind is Kind.MD5 and "/ja3" in place:
        kind = Kind.JA3
    # A run of one digit is a placeholder, or somebody's padding.
    if len(set(text)) > 1:
        yield Indicator(kind=kind, value=text.lower(), places=[place])


_KINDS = {4: Kind.IPV4, 6: Kind.IPV6}
_HASHES = {32: Kind.MD5, 40: Kind.SHA1, 64: Kind.SHA256}
_DOT = rf"[.{MARK}]"
# In the order in which they are looked for. Possessive quantifiers (++), bounded look-aheads and
# a look-behind that allows one start per run are what keeps them linear.
PATTERNS = (
    (re.compile(r"\b(?:https?|ftp)://[^\s\"'<>`|\\^{}]++", re.IGNORECASE), _url),
    (
        re.compile(
            rf"(?<![\w+\-.{MARK}])[\w+\-]++(?:{_DOT}[\w+\-]++)*+{MARK}?@[\w\-]++(?:{_DOT}[\w\-]++)++"
        ),
        _email,
    ),
    (re.compile(r"\b(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{40}|[0-9a-fA-F]{32})\b"), _hash),
    (
        re.compile(
            r"(?<![\w:.])(?=[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:)[0-9a-fA-F:.]{2,45}+(?![\w:])"
        ),
        _plain_host,
    ),
    (re.compile(rf"(?<![\w\-])[\w\-]++(?:{_DOT}[\w\-]++)++"), _plain_host),
)


def domain_in(text: str, *, any_ending: bool) -> str | None:
    """The text as a canonical domain, or None where it is none."""
    if len(text) > LONGEST_DOMAIN:
        return None
    try:
        domain = text.rstrip(".").lower().encode("idna").decode("ascii")
    except UnicodeError:  # a label too long or empty, or letters that no name has
        return None
    labels = domain.split(".")
    ending = labels[-1]
    is_name = (
        len(labels) > 1
        and all(re.fullmatch(r"[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?", each) for each in labels)
        and re.fullmatch(r"[a-z]{2,}|xn--[a-z0-9\-]+", ending)
    )
    is_country = re.fullmatch(r"[a-z]{2}|xn--.*", ending) and ending not in FILE_ENDINGS
    return domain if is_name and (any_ending or is_country or ending in TEXT_ENDINGS) else None


def scope_of(address: Address) -> Scope:
    """Where an address means something."""
    for network, scope in NETWORK_SCOPES:
        if address in network:
            return scope
    table = (
        (address.is_unspecified, Scope.UNSPECIFIED),
        (address.is_loopback, Scope.LOOPBACK),
        (address.is_link_local, Scope.LINK_LOCAL),
        (address.is_multicast, Scope.MULTICAST),
        (not address.is_global, Scope.RESERVED),
    )
    return next((scope for applies, scope in table if applies), Scope.PUBLIC)


def scope_of_domain(domain: str) -> Scope:
    """Where a name means something; the longest special ending decides."""
    labels = domain.split(".")
    for start in range(len(labels)):
        scope = SPECIAL_DOMAINS.get(".".join(labels[start:]))
        if scope:
            return scope
    return Scope.PUBLIC


def _address(text: str) -> Address | None:
    # "::" alone is an address, and in texts far more often C++.
    if not any(each.isalnum() for each in text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is 192.0.2.1 in other clothes.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _texts(task_input: EnrichInput) -> Iterator[tuple[str, str]]:
    alert = task_input.alert
    if alert is not None:
        for name in ("src_ip", "dest_ip", "host", "signature", "category"):
            value = getattr(alert, name)
            if value:
                yield name, value
        yield from _request(alert.details.get("http"))
        yield from _leaves(alert.details, "details")
    if task_input.text:
        yield "text", task_input.text


def _request(http: Any) -> Iterable[tuple[str, str]]:
    """EVE keeps host and path apart; together they are a URL."""
    match http:
        case {"hostname": str(host), "url": str(path)} if path.startswith("/"):
            return [("details/http/url", f"http://{host}{path}")]
    return []


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with its path; an alert's details are bounded in depth."""
    match value:
        case dict():
            for key, each in value.items():
                yield from _leaves(each, f"{path}/{key}")
        case list():
            for each in value:
                yield from _leaves(each, path)
        case str():
            yield path, value


@dataclass
class _Collection:
    """Indicators of one run, each once."""

    found: dict[tuple[Kind, str], Indicator] = field(default_factory=dict)
    truncated: bool = False

    def add(self, new: Indicator) -> None:
        """Count it with its like."""
        key = (new.kind, new.value)
        old = self.found.get(key)
        if old is None:
            if len(self.found) >= MOST_INDICATORS:
                self.truncated = True
                return
            self.found[key] = new
            return
        places = dict.fromkeys([*old.places, *new.places])
        self.found[key] = old.model_copy(
            update={
                "count": old.count + 1,
                "defanged": old.defanged or new.defanged,
                "places": list(places)[:MOST_PLACES],
            }
        )

    def result(self) -> Indicators:
        """Everything found."""
        indicators = list(self.found.values())
        return Indicators(
            indicators=indicators,
            # A file's hash and a fingerprint mean the same everywhere.
            worth_asking=[each.value for each in indicators if each.scope in {None, Scope.PUBLIC}],
            truncated=self.truncated,
        )
