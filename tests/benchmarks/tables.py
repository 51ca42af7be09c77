"""The results of tests/bench as tables for people, in Markdown."""

import statistics

from benchmarks.brokers import ALL, FLOOR, REAL
from benchmarks.measure import RETAINED, STORM_RATE, SUBSCRIBERS, SUBSCRIPTIONS

QUANTILES = [("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max"), ("generator late by", "generator_late")]


def short(number):
    if number is None:
        return "-"
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def tenths(number):
    return f"{number:.1f}"


def milliseconds(microseconds):
    return f"{microseconds / 1000:.1f}"


def median_and_range(values, show=short):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return show(values[0])
    return f"{show(statistics.median(values))} ({show(min(values))}-{show(max(values))})"


def table(head, lines):
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def ratio(rows, row, name):
    """To the floor of the row's shape: median, least and most; None where there is nothing to compare."""
    floors = [other["values"].get(FLOOR) for other in rows if other["index"] == row["base"]]
    values = row["values"].get(name)
    if not values or not floors or not floors[0] or name == FLOOR:
        return None
    floor = statistics.median(floors[0])
    return statistics.median(values) / floor, min(values) / floor, max(values) / floor


def throughput(rows):
    names = [name for name in ALL if any(name in row["values"] for row in rows)]
    lines = []
    for row in rows:
        cells = [row["name"]]
        for name in names:
            cell, against = median_and_range(row["values"].get(name, [])), ratio(rows, row, name)
            cells.append(f"{cell}, **{against[0]:.2f}**" if against else cell)
        lines.append(cells)
    return table(["deliveries per CPU-second of the broker", *names], lines)


def latency(shapes):
    lines = []
    for shape in shapes:
        for title, key in QUANTILES:
            of = lambda name: [one[key] for one in shape["values"].get(name, [])]
            lines.append([f"{shape['name']}: {title}", *(median_and_range(of(name), milliseconds) for name in ALL)])
    return table(["ms at 20,000 deliveries a second, QoS 0", *ALL], lines)


def slow_readers(measured):
    of = lambda name, key: [one[key] for one in measured[name]]
    counted = lambda name: "nowhere" if None in of(name, "counted") else median_and_range(of(name, "counted"))
    share = lambda name: f", {100 * sum(of(name, 'lost')) / max(sum(of(name, 'due')), 1):.0f}%"
    lines = [
        ["p99 of the fast, without slow ones, ms", *(median_and_range(of(name, "p99_alone"), milliseconds) for name in REAL)],
        ["p99 of the fast, among slow ones, ms", *(median_and_range(of(name, "p99_among"), milliseconds) for name in REAL)],
        ["lost by the fast", *(median_and_range(of(name, "fast_missing")) for name in REAL)],
        ["lost by the slow", *(median_and_range(of(name, "lost")) + share(name) for name in REAL)],
        ["of all these, counted by the broker", *(counted(name) for name in REAL)],
        ["slow ones closed by the broker", *(median_and_range(of(name, "closed")) for name in REAL)],
    ]
    return table(["50 fast and 10 slow readers, QoS 1", *REAL], lines)


def connections(measured, count):
    of = lambda key, show: [show(measured[name][key]) for name in ALL]
    lines = [
        [f"KiB per idle connection, of {count}", *of("idle_kib", lambda kib: "-" if kib is None else f"{kib:.2f}")],
        ["new connections a second, 64 at a time", *of("per_second", median_and_range)],
        [
            f"p99 of {STORM_RATE} new connections a second, open loop, ms",
            *of("rated_p99", lambda values: median_and_range(values, milliseconds)),
        ],
        ["keep-alive 0", *of("keep_alive_0", lambda takes: "taken" if takes else "refused")],
    ]
    return table(["connections", *ALL], lines)


def kept(measured):
    lines = []
    publish = lambda process: process and process["deliveries_per_cpu_second"] and 1e6 / process["deliveries_per_cpu_second"]
    for index, filters in enumerate(SUBSCRIPTIONS):
        costs = [publish(measured[name]["publishes"][index]) for name in REAL]
        shown = ["-" if cost is None else tenths(cost) for cost in costs]
        lines.append([f"CPU us a publish, among {filters * SUBSCRIBERS:,} subscriptions", *shown])
    most = [[one["bytes_per_subscription"] for one in measured[name]["publishes"] if one][-1:] for name in REAL]
    lines.append(["bytes a subscription, of the most", *(median_and_range(of) for of in most)])
    retained = [measured[name]["retained"] for name in REAL]
    bytes_each = lambda one: short(one["bytes_per_message"]) if one and one["replayed"] else "-"
    came = lambda one: f"{one['replayed']} of {one['expected']}" if one else "-"
    lines.append([f"bytes a retained message of 64 bytes, of {RETAINED:,}", *map(bytes_each, retained)])
    lines.append(["retained messages that a new subscriber got", *map(came, retained)])
    return table(["kept", *REAL], lines)
