"""What tests/bench measures: the rows, and the runs of `bugle bench` that fill them with values."""

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.brokers import ALL, BUGLES, FLOOR, PEERS, REAL, RUMQTTD, Broker

FANOUT = ["fanout", "--subscribers", "1000", "--window", "16"]
PAIRS = ["--pairs", "50", "--window", "64"]
GROUPS = ["groups", "--members", "200", "--window", "16"]


@dataclass
class Row:
    """A load of which deliveries per CPU-second are told."""

    name: str
    what: list
    brokers: tuple
    # The row whose floor it is held against.
    base: int | None
    # Part of --quick.
    quick: bool = False
    scheme: str = "mqtt"


ROWS = [
    Row("fan-out 1 to 1000, QoS 0, window 1", [*FANOUT[:3], "--window", "1"], ALL, 0),
    Row("fan-out 1 to 1000, QoS 0", FANOUT, ALL, 1, True),
    Row("fan-out 1 to 1000, QoS 1", [*FANOUT, "--qos", "1"], REAL, 1, True),
    Row("50 pairs, QoS 0", ["pairs", *PAIRS], ALL, 3, True),
    Row("50 pairs, QoS 1", ["pairs", *PAIRS, "--qos", "1"], REAL, 3, True),
    Row("signals: fan-out 1 to 1000, QoS 0", [*FANOUT, "--signals"], BUGLES, 1, True),
    Row("signals: fan-out 1 to 1000, QoS 1", [*FANOUT, "--signals", "--qos", "1"], BUGLES, 1),
    Row("signals: 50 pairs, QoS 0", ["unicast", *PAIRS], BUGLES, 3, True),
    Row("signals: only 8 of 200, QoS 0", [*GROUPS, "--only", "8"], BUGLES, None),
    Row("signals: only 128 of 200, QoS 0", [*GROUPS, "--only", "128"], BUGLES, None),
    Row("signals: all of 200 but 8, QoS 0", [*GROUPS, "--except", "8"], BUGLES, None),
    Row("signals: all of 200 but 128, QoS 0", [*GROUPS, "--except", "128"], BUGLES, None),
    Row("devices: fan-out 1 to 1000", [*FANOUT, "--signals"], BUGLES, 1, True, "device"),
    Row("devices: 50 pairs", ["unicast", *PAIRS], BUGLES, 3, False, "device"),
    Row("devices: only 128 of 200", [*GROUPS, "--only", "128"], BUGLES, None, False, "device"),
]
# 20,000 deliveries a second, in large and in small messages.
RATED = [
    ("1 to 1000, 20 messages a second", ["fanout", "--subscribers", "1000", "--rate", "20"]),
    ("1 to 100, 200 messages a second", ["fanout", "--subscribers", "100", "--rate", "200"]),
]
# 25,000 deliveries of 2 KiB a second to the fast ones: 3.5 MB for each slow one, which reads 10 kB a second meanwhile.
SLOW = ["fanout", "--subscribers", "50", "--rate", "500", "--payload", "2048", "--qos", "1", "--seconds", "3"]
SLOW_READERS = ["--slow", "10", "--slow-rate", "10000"]
# Filters of each client. There are as many clients each time, so that a publish is a write to one of as many sockets.
SUBSCRIPTIONS = [1, 10, 1000]
SUBSCRIBERS = 1000
# rumqttd takes minutes and some 7 KiB a filter for more.
RUMQTTD_SUBSCRIPTIONS = 10_000
STORM_RATE = 2000
RETAINED = 50_000
# Past all of a run's own time-outs.
HANGS = 300


class Runs:
    """Runs `bugle bench` and remembers what went wrong: with a peer, that is a finding and no failure."""

    def __init__(self, bugle):
        self.bugle = bugle
        self.failures, self.findings = [], []

    def run(self, broker, what, scheme="mqtt"):
        command = [self.bugle, "bench", *what, "--target", f"{scheme}://127.0.0.1:{broker.port}"]
        command += ["--pid", str(broker.process.pid), "--json"]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
        except subprocess.TimeoutExpired:
            self.went_wrong(broker, what, f"no end within {HANGS} s")
            return None
        result = json.loads(ended.stdout) if ended.stdout.startswith("{") else None
        if ended.returncode != 0:
            self.went_wrong(broker, what, ended.stderr.strip() or explained(result))
        return result

    def went_wrong(self, broker, what, why):
        text = f"{broker.name}: {' '.join(what)}: {why}"
        (self.findings if broker.name in PEERS else self.failures).append(text)


def explained(result):
    """Why a run that has a result ended with 1."""
    if not result:
        return "no result"
    if "replayed" in result:
        return f"a new subscriber got {result['replayed']} of {result['expected']} retained messages"
    if "alive" in result:
        return f"{result['alive']} of {result['connections']} connections stayed"
    if "connected" in result:
        return f"{result['connected']} connected, {result['failed']} failed: {result['why']}"
    gave_up = "; nothing came any more" if result["timed_out"] else ""
    return f"{result['missing']} of {result['expected']} deliveries missing{gave_up}"


def alternating(brokers, rounds):
    for turn in range(rounds):
        for place in range(len(brokers)):
            yield brokers[(turn + place) % len(brokers)]


def progress(what):
    print(f"  {what}", file=sys.stderr, flush=True)


def throughput(runs, brokers, options):
    timing = ["--seconds", str(options.seconds), "--warm-up", "0.3"]
    measured = []
    for index, row in enumerate(ROWS):
        if options.quick and not row.quick:
            continue
        values = {}
        for broker in alternating([broker for broker in brokers if broker.name in row.brokers], options.rounds):
            result = runs.run(broker, [*row.what, *timing], row.scheme)
            value = result and result["process"]["deliveries_per_cpu_second"]
            if value:
                values.setdefault(broker.name, []).append(value)
        measured.append({"index": index, "name": row.name, "base": row.base, "values": values})
        progress(row.name)
    return measured


def latency(runs, brokers, options):
    timing = ["--seconds", str(options.seconds), "--warm-up", "0.3"]
    measured = []
    for name, what in RATED:
        values = {}
        for broker in alternating(brokers, options.rounds):
            result = runs.run(broker, [*what, *timing])
            if result:
                values.setdefault(broker.name, []).append(result["latency_us"])
        measured.append({"name": name, "values": values})
        progress(name)
    return measured


def slow_readers(runs, programs, scratch, options):
    """The fast ones with and without slow ones; what the slow ones lose, and what the broker says of it."""
    measured = {name: [] for name in REAL}
    for name in alternating(REAL, options.rounds):
        with Broker(name, programs, scratch, bounded=True) as broker:
            alone = runs.run(broker, SLOW)
            among = runs.run(broker, [*SLOW, *SLOW_READERS])
            if not alone or not among:
                continue
            counted, slow = broker.messages_dropped(), among["slow"]
            measured[name].append({
                "p99_alone": alone["latency_us"]["p99"],
                "p99_among": among["latency_us"]["p99"],
                "lost": slow["lost"],
                "due": slow["lost"] + slow["received"],
                "closed": slow["closed"],
                "counted": counted,
                "fast_missing": among["missing"],
            })
            if name in BUGLES and counted != slow["lost"] + among["missing"]:
                lost = slow["lost"] + among["missing"]
                runs.went_wrong(broker, SLOW, f"{lost} messages were lost, and {counted} are counted in /metrics")
    progress("slow readers")
    return measured


def fresh(runs, name, programs, scratch, what):
    """In a process of its own, since one that has served others has memory to use again."""
    with Broker(name, programs, scratch) as broker:
        return runs.run(broker, what)


def connections(runs, programs, scratch, options):
    measured = {}
    for name in ALL:
        idle = fresh(runs, name, programs, scratch, ["idle", "--connections", str(options.connections)])
        storms, rated = [], []
        for _ in range(options.rounds):
            with Broker(name, programs, scratch) as broker:
                storms.append(runs.run(broker, ["storm", "--connections", "2000"]))
                rated.append(runs.run(broker, ["storm", "--connections", "2000", "--rate", str(STORM_RATE)]))
        with Broker(name, programs, scratch) as broker:
            what = [runs.bugle, "bench", "idle", "--connections", "1", "--keep-alive", "0", "--settle", "0"]
            what += ["--target", f"mqtt://127.0.0.1:{broker.port}", "--pid", str(broker.process.pid)]
            takes_none = subprocess.run(what, capture_output=True, timeout=HANGS, check=False).returncode == 0
        measured[name] = {
            "idle_kib": idle and idle["kib_per_connection"],
            "per_second": [one["connections_per_second"] for one in storms if one],
            "rated_p99": [one["latency_us"]["p99"] for one in rated if one],
            "keep_alive_0": takes_none,
        }
        progress(f"connections: {name}")
    return measured


def kept(runs, programs, scratch, options):
    """Subscriptions and retained messages. The floor has neither wildcards nor retained messages."""
    timing = ["--seconds", str(options.seconds), "--warm-up", "0.3"]
    measured = {}
    for name in REAL:
        publishes = []
        for filters in SUBSCRIPTIONS:
            if name == RUMQTTD and filters * SUBSCRIBERS > RUMQTTD_SUBSCRIPTIONS:
                publishes.append(None)
                continue
            what = ["subscriptions", "--filters", str(filters), "--clients", str(SUBSCRIBERS), *timing]
            result = fresh(runs, name, programs, scratch, what)
            publishes.append(result and result["process"])
        retained = fresh(runs, name, programs, scratch, ["retained", "--messages", str(RETAINED)])
        measured[name] = {"publishes": publishes, "retained": retained}
        progress(f"subscriptions and retained messages: {name}")
    return measured
