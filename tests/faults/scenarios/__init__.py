"""All scenarios by name."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios.alert_storm import AlertStorm
from tests.faults.scenarios.api_kill import ApiKill
from tests.faults.scenarios.backlog import Backlog
from tests.faults.scenarios.clock_jumps import ClockJumps
from tests.faults.scenarios.disk_full import DiskFull
from tests.faults.scenarios.duplicates import Duplicates
from tests.faults.scenarios.failover import Failover
from tests.faults.scenarios.flushall import FlushAll
from tests.faults.scenarios.group_destroyed import GroupDestroyed
from tests.faults.scenarios.malformed import Malformed
from tests.faults.scenarios.max_memory import MaxMemory
from tests.faults.scenarios.mix import Mix
from tests.faults.scenarios.model_kill import ModelKill
from tests.faults.scenarios.mqtt import MqttBroker
from tests.faults.scenarios.neighbour_kill import NeighbourKill
from tests.faults.scenarios.partition import Partition
from tests.faults.scenarios.payloads import Payloads
from tests.faults.scenarios.poison import Poison
from tests.faults.scenarios.postgres_cut import PostgresCut
from tests.faults.scenarios.postgres_kill import PostgresKill
from tests.faults.scenarios.power_loss import PowerLoss
from tests.faults.scenarios.recorder_fail_points import RecorderFailPoints
from tests.faults.scenarios.recorder_kill import RecorderKill
from tests.faults.scenarios.redis_restart import RedisRestart
from tests.faults.scenarios.reply_loss import ReplyLoss
from tests.faults.scenarios.rolling_restart import RollingRestart
from tests.faults.scenarios.schedulers import Schedulers
from tests.faults.scenarios.slow_postgres import SlowPostgres
from tests.faults.scenarios.soak import Soak
from tests.faults.scenarios.worker_fail_points import WorkerFailPoints
from tests.faults.scenarios.worker_kill import WorkerKill
from tests.faults.scenarios.zombie import Zombie

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        WorkerKill(), NeighbourKill(), RecorderKill(), Zombie(), FlushAll(), RedisRestart(),
        PowerLoss(), GroupDestroyed(), PostgresCut(), PostgresKill(), Poison(), Mix(),
        ReplyLoss(), Partition(), Failover(), ClockJumps(),
        RecorderFailPoints(), WorkerFailPoints(), ApiKill(), Schedulers(),
        Malformed(), Duplicates(), Payloads(), AlertStorm(), MqttBroker(),
        MaxMemory(), RollingRestart(), DiskFull(), Backlog(), SlowPostgres(), Soak(),
        ModelKill(),
    )
}  # fmt: skip
