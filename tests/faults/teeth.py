"""The same scenario on a build without one of its guards: the verdict must turn red.

A checker that never failed is none.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.removal import Mutant, take_away
from tests.mutants.test_mutants import MUTANTS

OWN = {
    "nobody takes over from the dead": Mutant(
        "P5",
        "orchestrator/streams/consumer.py",
        "return await self._of_the_dead(free, known)",
        "return []",
        "worker-kill",
    ),
    "acknowledged when it is read": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "        self._small = 0 < len(deliveries) < SMALL\n",
        "        self._small = 0 < len(deliveries) < SMALL\n"
        "        await self.consumer.acknowledge(deliveries)\n",
        "recorder-kill",
    ),
    # Either of the two would do.
    "a group made anew skips what waits, and nobody publishes it again": Mutant(
        "P1",
        "orchestrator/streams/connection.py",
        'group, id="0", mkstream=True',
        'group, id="$", mkstream=True',
        "group-destroyed",
        also=(
            (
                "orchestrator/services/reconciler.py",
                "await every(SWEEP, self.sweep, stop=self._stop, name=self.name)",
                "await self._stop.sleep(86_400.0)",
            ),
        ),
    ),
    "acknowledged although not written": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "                said = True\n",
        "                said = True\n                return True\n",
        "postgres-cut",
    ),
    "a key that names no task": Mutant(
        "P1",
        "orchestrator/api/submitting.py",
        "            idempotency_key=body.idempotency_key,\n",
        "",
        "api-kill",
    ),
    "a tick belongs to nobody": Mutant(
        "P7",
        "migrations/versions/0001_the_record.py",
        '        sa.PrimaryKeyConstraint("schedule_id", "fire_at"),\n',
        "",
        "schedulers",
        # The lock alone would keep them apart, as long as none is stopped for too long.
        also=(
            ("orchestrator/db/ticks.py", 'ROW_LOCK = "FOR UPDATE SKIP LOCKED"', 'ROW_LOCK = ""'),
        ),
    ),
    "a tick without its task": Mutant(
        "P7",
        "orchestrator/db/ticks.py",
        "    ours = [fresh[schedule_id, fire_at] for schedule_id, fire_at in won]\n",
        '    await connection.execute(text("COMMIT"))\n'
        "    ours = [fresh[schedule_id, fire_at] for schedule_id, fire_at in won]\n",
        "schedulers",
    ),
    "what is refused is dropped": Mutant(
        "P10",
        "orchestrator/services/decoding.py",
        "letter=letter_of(delivery, found.reason, found.detail)",
        "letter=None",
        "malformed",
    ),
    "an act that is read again is another": Mutant(
        "P4",
        "orchestrator/services/auditor.py",
        "_entry(message.id, act)",
        "_entry(derived_id(delivery.stream, delivery.entry_id), act)",
        "duplicates",
    ),
    "an act of any size": Mutant(
        "P8",
        "orchestrator/services/auditor.py",
        "limit=self.max_payload,",
        "",
        "payloads",
    ),
    "a forked worker goes on": Mutant(
        "P6",
        "orchestrator/runtime/forked.py",
        "    if _forks != mine:\n",
        "    if False:\n",
        "poison",
    ),
    "each delivery is kept": Mutant(
        "P8",
        "orchestrator/runtime/dispatcher.py",
        "        flight.running = asyncio.create_task(self._fly(flight, agent))\n",
        "        flight.running = asyncio.create_task(self._fly(flight, agent))\n"
        # With 16 KiB of payload, so that five minutes are enough to see it.
        '        self.__dict__.setdefault("kept", []).append((flight, bytearray(16_384)))\n',
        "soak",
    ),
    "dead consumers are kept": Mutant(
        "P8",
        "orchestrator/streams/scripts/retire.lua",
        "if fields['pending'] == 0 and fields['idle']",
        "if false and fields['idle']",
        "soak",
    ),
    "nothing is finished at SIGTERM": Mutant(
        "P5",
        "orchestrator/runtime/dispatcher.py",
        "        while self._flights and time.monotonic() - began <",
        "        while False and time.monotonic() - began <",
        "rolling-restart",
    ),
    "completions are refused, too": Mutant(
        "P8",
        "orchestrator/streams/scripts/finish.lua",
        "#!lua flags=allow-oom",
        "#!lua",
        "maxmemory",
    ),
    "spending is told later": Mutant(
        "P4",
        "orchestrator/runtime/model_access.py",
        "        await asyncio.shield(telling)\n",
        "",
        "model-kill",
        also=(
            (
                "orchestrator/runtime/model_access.py",
                "        for failures in itertools.count():\n",
                "        await asyncio.sleep(1.0)\n        for failures in itertools.count():\n",
            ),
        ),
    ),
    "descriptors are kept": Mutant(
        "P8",
        "orchestrator/api/routes/health.py",
        "        await streams.commands.ping()\n",
        '        await streams.commands.ping()\n        __import__("os").dup(0)\n',
        "soak",
    ),
}
GUARDS = {**MUTANTS, **OWN}


def run_without(guard: str, arguments: Sequence[str]) -> int:
    """Run this program in a copy of the tree without the guard; its exit code."""
    with tempfile.TemporaryDirectory(prefix="aurora-faults-without-") as directory:
        copy = Path(directory)
        take_away(GUARDS[guard], copy)
        return subprocess.run(
            [sys.executable, "-m", "tests.faults", *arguments],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            check=False,
        ).returncode
