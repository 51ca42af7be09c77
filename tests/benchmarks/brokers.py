"""The brokers that tests/bench measures: how each is built or found, configured, started and ended.

All listen on free ports of 127.0.0.1, with no persistence and no log. What is configured is said here and in
docs/benchmarks.md; the rest is as each comes.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CORES = os.cpu_count() or 1
FLOOR, MOSQUITTO, RUMQTTD = "floor", "Mosquitto", "rumqttd"
BUGLE_1, BUGLE_N = "Bugle, 1 shard", f"Bugle, {max(CORES, 2)} shards"
BUGLES = (BUGLE_1, BUGLE_N)
PEERS = (MOSQUITTO, RUMQTTD)
REAL = (*BUGLES, *PEERS)
ALL = (FLOOR, *REAL)
# A rumqttd keeps for its slowest reader so many bytes of each filter, in ten segments.
RUMQTTD_LOG = 100 * 1024 * 1024
# What a Bugle keeps for a slow reader by default.
BOUNDED_LOG = 1024 * 1024


def target_folder():
    return (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()


def build_bugle():
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "bugle"], cwd=ROOT, check=True)
    return target_folder() / "release" / "bugle"


def build_rumqttd():
    """From crates.io, with the lock file of tests/rumqttd-peer."""
    folder = target_folder() / "peers"
    manifest = ROOT / "tests" / "rumqttd-peer" / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder / "release" / "rumqttd-peer"


def find_mosquitto():
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")


def versions(programs):
    """What the peers call themselves."""
    said = subprocess.run([programs[MOSQUITTO], "-h"], capture_output=True, text=True, check=False).stdout
    mosquitto = said.splitlines()[0].replace("mosquitto version", "Mosquitto") if said else MOSQUITTO
    lock = (ROOT / "tests" / "rumqttd-peer" / "Cargo.lock").read_text()
    rumqttd = lock.split('name = "rumqttd"\nversion = "')[1].split('"')[0]
    return f"{mosquitto}, rumqttd {rumqttd}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A broker's process, ended with the block. A `bounded` one keeps little for slow readers."""

    def __init__(self, name, programs, scratch, bounded=False):
        self.name, self.scratch = name, scratch
        self.port, self.admin = free_port(), free_port()
        address = f"127.0.0.1:{self.port}"
        program = programs[name]
        if name == FLOOR:
            command = [program, "bench", "floor", "--listen", address]
        elif name == MOSQUITTO:
            # Without Nagle's delay, as the others; its queues as they come only where that is what is measured.
            limits = "sys_interval 1\n" if bounded else "max_queued_messages 0\nmax_inflight_messages 0\n"
            command = [program, "-c", self.config(
                f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n"
                f"set_tcp_nodelay true\n{limits}"
            )]
        elif name == RUMQTTD:
            command = [program, self.config(rumqttd_config(self.port, BOUNDED_LOG if bounded else RUMQTTD_LOG))]
        else:
            # One sender of signals may only send 100 a second by default, and one client have 1024 filters.
            config = self.config("[limits]\nsignals_per_second = 1000000\n")
            shards = "1" if name == BUGLE_1 else str(max(CORES, 2))
            command = [program, "--log", "error", "serve", "--config", config, "--listen", address]
            command += ["--admin", f"127.0.0.1:{self.admin}", "--shards", shards]
        self.log = open(scratch / f"{self.port}.log", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def config(self, text):
        """A file with this text."""
        file = self.scratch / f"{self.port}.toml"
        file.write_text(text)
        return file

    def __enter__(self):
        for _ in range(100):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        said = pathlib.Path(self.log.name).read_text(errors="replace")
        sys.exit(f"{self.name} did not start:\n{said}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def messages_dropped(self):
        """How many messages for slow readers it says that it dropped; None if it doesn't say."""
        if self.name in BUGLES:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            key = 'bugle_publishes_dropped_total{reason="overflow"} '
            return sum(int(line[len(key):]) for line in lines if line.startswith(key))
        client = shutil.which("mosquitto_sub")
        if self.name == MOSQUITTO and client:
            # It publishes its counters once a second.
            time.sleep(2)
            topic = "$SYS/broker/publish/messages/dropped"
            command = [client, "-p", str(self.port), "-t", topic, "-C", "1", "-W", "5"]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            return int(said) if said.isdigit() else None
        return None


def rumqttd_config(port, log):
    """3.1.1 and 5 have ports of their own; 5 isn't measured. Its counts of packets are as it ships them, and so is its
    limit of a payload. New connections don't wait for each other, as they would by default."""
    server = lambda version, listen: (
        f'[{version}.1]\nname = "{version}"\nlisten = "127.0.0.1:{listen}"\nnext_connection_delay_ms = 0\n'
        f"[{version}.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n"
        "max_inflight_count = 100\ndynamic_filters = true\n"
    )
    return (
        "id = 0\n[router]\nid = 0\nmax_connections = 60100\nmax_outgoing_packet_count = 200\n"
        f"max_segment_size = {log // 10}\nmax_segment_count = 10\n{server('v4', port)}{server('v5', free_port())}"
    )
