"""Makes the sample alerts that `aurora demo` runs on: `python tests/make_sample.py`.

One morning at a small company, as its Suricata sensor would tell it. All of it is invented: the
signatures are ours (ids in the local range), the addresses are private or from the documentation
ranges, the names are reserved ones. Seeded, so the same file comes out everywhere; a test compares.

The story, on workstation fin-ws-17 (10.20.4.17):
  07:12  a mail's link opens a page that looks like the company's own login
  07:14  a document with a macro comes down from there
  07:16  beaconing begins, every two minutes, over HTTP and later over TLS
  08:05  tickets of service accounts are asked of the domain controller in a burst
  08:31  memory of the login process is copied to a share
  08:52  administrative shares of other machines, then a service is made on the file server
  09:40  the file server uploads gigabytes, and tunnels in DNS what does not fit through the proxy
Around it the noise of every day: scanners, policy, a printer that cannot speak SNMP, odd TLS.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SEED = 20260311
FILE = Path(__file__).parents[1] / "orchestrator" / "cli" / "samples" / "alerts.jsonl"
BEGIN = datetime(2026, 3, 11, 6, 0, tzinfo=UTC)

WORKSTATION, CONTROLLER, FILE_SERVER, MAIL = "10.20.4.17", "10.10.0.10", "10.10.0.20", "10.10.0.30"
WEB, RESOLVER, PRINTER, PRINT_SERVER = "10.10.0.80", "10.10.0.53", "10.30.0.5", "10.10.0.40"
PHISHING, BEACON, DROP = "203.0.113.66", "203.0.113.80", "192.0.2.44"
AGENT = "Mozilla/5.0 (sample; nothing real)"


@dataclass(frozen=True)
class Kind:
    """A signature of ours. `severity`: Suricata's, 1 is the most serious."""

    number: int
    signature: str
    category: str
    severity: int
    action: str = "allowed"


LOOKALIKE = Kind(1_000_101, "AURORA PHISH Lookalike login page opened from mail", "Phishing", 2)
MACRO = Kind(1_000_102, "AURORA PHISH Macro document downloaded", "Phishing", 1)
HTTP_BEACON = Kind(1_000_201, "AURORA C2 Regular HTTP beacon", "Command and control", 1)
TLS_BEACON = Kind(
    1_000_202, "AURORA C2 Beacon over TLS to a fresh domain", "Command and control", 2
)
TICKETS = Kind(1_000_301, "AURORA CRED Burst of service ticket requests", "Credential theft", 2)
DUMP = Kind(1_000_302, "AURORA CRED Login process memory written to share", "Credential theft", 1)
SHARE = Kind(1_000_401, "AURORA LATERAL Administrative share opened", "Lateral movement", 2)
SERVICE = Kind(1_000_402, "AURORA LATERAL Remote service created", "Lateral movement", 1)
UPLOAD = Kind(1_000_501, "AURORA EXFIL Large upload to unknown host", "Exfiltration", 1)
TUNNEL = Kind(1_000_502, "AURORA EXFIL Long labels, DNS tunnel likely", "Exfiltration", 2)
PORT_SWEEP = Kind(1_000_601, "AURORA SCAN Sweep over many ports", "Reconnaissance", 3)
WEB_PROBE = Kind(1_000_602, "AURORA SCAN Web probe for admin pages", "Reconnaissance", 3)
GUESSING = Kind(1_000_603, "AURORA SCAN SSH password guessing", "Reconnaissance", 2, "blocked")
FILE_SHARING = Kind(1_000_701, "AURORA POLICY File sharing site visited", "Policy", 3)
CLEARTEXT = Kind(1_000_702, "AURORA POLICY Cleartext password in FTP", "Policy", 2)
REMOTE_HELP = Kind(1_000_703, "AURORA POLICY Remote help tool in use", "Policy", 3)
BAD_SNMP = Kind(1_000_801, "AURORA PROTO Malformed SNMP answer", "Protocol irregularity", 3)
EXPIRED = Kind(1_000_901, "AURORA TLS Certificate expired", "Odd TLS", 3)
OLD_TLS = Kind(1_000_902, "AURORA TLS Version 1.0 still spoken", "Odd TLS", 3)
SELF_SIGNED = Kind(1_000_903, "AURORA TLS Self-signed certificate", "Odd TLS", 3)


class Morning:
    """Draws the events of one morning.

    Only `random()` is drawn from: its sequence is the one that Python promises to keep.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, limit: int) -> int:
        """0 to `limit` - 1."""
        return int(self._random() * limit)

    def event(
        self,
        at: timedelta,
        kind: Kind,
        ends: tuple[str, str],
        port: int,
        *,
        proto: str = "TCP",
        app: str | None = None,
        direction: str = "to_server",
        **objects: Any,
    ) -> dict[str, Any]:
        """One alert as Suricata's eve-log writes it; `ends`: sender and receiver of the packet."""
        moment = BEGIN + at + timedelta(microseconds=self.below(1_000_000))
        high = 49_152 + self.below(16_000)
        ports = (port, high) if direction == "to_client" else (high, port)
        return {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
            "flow_id": 10**15 + self.below(10**15),
            "event_type": "alert",
            "src_ip": ends[0],
            "src_port": ports[0],
            "dest_ip": ends[1],
            "dest_port": ports[1],
            "proto": proto,
            "host": "sensor-01",
            "alert": {
                "action": kind.action,
                "gid": 1,
                "signature_id": kind.number,
                "rev": 1,
                "signature": kind.signature,
                "category": kind.category,
                "severity": kind.severity,
            },
            **({"app_proto": app} if app else {}),
            "direction": direction,
            "flow": self._flow(moment),
            **objects,
        }

    def _flow(self, moment: datetime) -> dict[str, Any]:
        packets = 3 + self.below(20)
        return {
            "pkts_toserver": packets,
            "pkts_toclient": packets - 1,
            "bytes_toserver": packets * (80 + self.below(400)),
            "bytes_toclient": packets * (80 + self.below(900)),
            "start": (moment - timedelta(milliseconds=20 + self.below(900))).strftime(
                "%Y-%m-%dT%H:%M:%S.%f+0000"
            ),
        }

    def intrusion(self) -> Iterator[dict[str, Any]]:
        """From the mail to the domain controller."""
        site = "login.portal-example.test"
        page, document = _http(site, "/signin?user=finance"), _http(site, "/invoice-0311.docm")
        yield self.event(_at(7, 12), LOOKALIKE, (WORKSTATION, PHISHING), 80, app="http", http=page)
        yield self.event(
            _at(7, 14), MACRO, (PHISHING, WORKSTATION), 80,
            app="http", direction="to_client", http=document,
        )  # fmt: skip
        for beat in range(45):
            at = _at(7, 16) + timedelta(seconds=120 * beat + self.below(5))
            call = _http("cdn-metrics.example.net", f"/v1/pixel?n={beat}")
            yield self.event(at, HTTP_BEACON, (WORKSTATION, BEACON), 80, app="http", http=call)
        for beat in range(20):
            at = _at(8, 48) + timedelta(seconds=240 * beat + self.below(9))
            tls = _tls("metrics-edge.example.org", "CN=metrics-edge.example.org")
            yield self.event(at, TLS_BEACON, (WORKSTATION, BEACON), 443, app="tls", tls=tls)
        for number in range(12):
            at = _at(8, 5) + timedelta(seconds=2 * number)
            ticket = {"msg_type": "KRB_TGS_REP", "sname": f"svc-{number:02d}/srv.corp.example"}
            yield self.event(at, TICKETS, (WORKSTATION, CONTROLLER), 88, app="krb5", krb5=ticket)
        for number in range(2):
            written = _smb("SMB2_COMMAND_WRITE", f"temp\\debug{number}.dmp", "drop")
            yield self.event(
                _at(8, 31 + number), DUMP, (WORKSTATION, FILE_SERVER), 445, app="smb", smb=written
            )

    def spread(self) -> Iterator[dict[str, Any]]:
        """From the domain controller's secrets to the file server, and out."""
        for number in range(9):
            machine = FILE_SERVER if number == 8 else f"10.20.4.{30 + number}"
            opened = _smb("SMB2_COMMAND_TREE_CONNECT", "", "ADMIN$")
            yield self.event(
                _at(8, 52 + number), SHARE, (WORKSTATION, machine), 445, app="smb", smb=opened
            )
        for number in range(3):
            made = {"request": "CREATESERVICE", "interface": "svcctl"}
            yield self.event(
                _at(9, 3 + number), SERVICE, (WORKSTATION, FILE_SERVER), 445,
                app="dcerpc", dcerpc=made,
            )  # fmt: skip
        for number in range(6):
            tls = _tls("drop.example.com", "CN=drop.example.com")
            yield self.event(
                _at(9, 40 + 4 * number), UPLOAD, (FILE_SERVER, DROP), 443, app="tls", tls=tls
            )
        for number in range(16):
            label = f"{self.below(2**52):013x}{self.below(2**52):013x}"
            query = {"type": "query", "rrname": f"{label}.t.drop.example.com", "rrtype": "TXT"}
            at = _at(9, 48) + timedelta(seconds=15 * number)
            yield self.event(
                at, TUNNEL, (FILE_SERVER, RESOLVER), 53, proto="UDP", app="dns", dns=query
            )

    def scanners(self) -> Iterator[dict[str, Any]]:
        """What knocks at every door all day."""
        for _ in range(34):
            scanner = f"198.51.100.{20 + self.below(6)}"
            yield self.event(self._any_time(), PORT_SWEEP, (scanner, WEB), 1 + self.below(9_000))
        for _ in range(18):
            path = ("/admin/", "/old/login", "/backup.zip", "/status")[self.below(4)]
            probe = _http("www.corp.example", path) | {"status": 404}
            yield self.event(
                self._any_time(), WEB_PROBE, ("198.51.100.77", WEB), 80, app="http", http=probe
            )
        for number in range(24):
            at = _at(6, 40) + timedelta(seconds=7 * number)
            yield self.event(at, GUESSING, ("203.0.113.9", "10.10.0.90"), 22, app="ssh")

    def everyday(self) -> Iterator[dict[str, Any]]:
        """Policy, the printer, odd TLS."""
        for _ in range(14):
            tls = _tls("share.example.org", "CN=share.example.org")
            ends = (self._workstation(), "203.0.113.120")
            yield self.event(self._any_time(), FILE_SHARING, ends, 443, app="tls", tls=tls)
        for _ in range(5):
            yield self.event(
                self._any_time(), CLEARTEXT, ("10.20.7.3", "10.10.0.60"), 21, app="ftp"
            )
        for _ in range(4):
            tls = _tls("relay.help-desk.example", "CN=relay.help-desk.example")
            ends = (self._workstation(), "203.0.113.140")
            yield self.event(self._any_time(), REMOTE_HELP, ends, 443, app="tls", tls=tls)
        for number in range(40):
            at = _at(7, 50) + timedelta(minutes=2 * number, seconds=self.below(20))
            answer = {"version": 1, "community": "public", "pdu_type": "response"}
            yield self.event(
                at, BAD_SNMP, (PRINTER, PRINT_SERVER), 161,
                proto="UDP", app="snmp", direction="to_client", snmp=answer,
            )  # fmt: skip
        for kind, server, name, count in (
            (EXPIRED, "10.10.0.81", "intranet.corp.example", 12),
            (OLD_TLS, "10.30.0.9", "scanner.corp.example", 8),
            (SELF_SIGNED, "192.0.2.200", "appliance.example.com", 10),
        ):
            for _ in range(count):
                tls = _tls(name, f"CN={name}", "TLSv1" if kind is OLD_TLS else "TLS 1.2")
                yield self.event(
                    self._any_time(), kind, (server, self._workstation()), 443,
                    app="tls", direction="to_client", tls=tls,
                )  # fmt: skip

    def _any_time(self) -> timedelta:
        return timedelta(seconds=self.below(int(timedelta(hours=4, minutes=30).total_seconds())))

    def _workstation(self) -> str:
        return f"10.20.{1 + self.below(9)}.{10 + self.below(40)}"


def _at(hour: int, minute: int) -> timedelta:
    return timedelta(hours=hour, minutes=minute) - timedelta(hours=BEGIN.hour)


def _http(hostname: str, url: str) -> dict[str, Any]:
    return {
        "hostname": hostname,
        "url": url,
        "http_user_agent": AGENT,
        "http_method": "GET",
        "protocol": "HTTP/1.1",
        "status": 200,
    }


def _tls(sni: str, subject: str, version: str = "TLS 1.2") -> dict[str, Any]:
    return {"sni": sni, "subject": subject, "issuerdn": subject, "version": version}


def _smb(command: str, filename: str, share: str) -> dict[str, Any]:
    return {
        "dialect": "3.11",
        "command": command,
        "filename": filename,
        "share": f"\\\\srv.corp.example\\{share}",
    }


def lines() -> list[str]:
    """The file's lines, in order of time."""
    morning = Morning(SEED)
    events = [
        *morning.intrusion(),
        *morning.spread(),
        *morning.scanners(),
        *morning.everyday(),
    ]
    # Ties are broken by the flow, so that the order is one order.
    events.sort(key=lambda event: (event["timestamp"], event["flow_id"]))
    return [json.dumps(event) for event in events]


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text("".join(f"{line}\n" for line in lines()), encoding="ascii")
    print(f"{FILE}: {len(lines())} alerts")
