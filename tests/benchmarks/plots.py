"""The results of tests/bench as plots: `plots.py RESULTS.json FOLDER`. Needs matplotlib; the same results give the same bytes."""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from matplotlib import pyplot, ticker  # noqa: E402

from benchmarks.brokers import ALL, FLOOR, REAL  # noqa: E402
from benchmarks.measure import SUBSCRIBERS, SUBSCRIPTIONS  # noqa: E402
from benchmarks.tables import ratio, short  # noqa: E402

# Told apart by people who don't see red and green alike (Okabe and Ito's colours).
COLOURS = dict(zip(ALL, ["#999999", "#0072b2", "#56b4e9", "#d55e00", "#e69f00"]))
STYLE = {
    "svg.hashsalt": "bugle",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def save(figure, folder, name):
    # Without a date, so that what didn't change isn't a change.
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    pyplot.close(figure)


def throughput(rows, folder):
    """Bars from the top down: each row's median ratio to the floor, with the range of the rounds."""
    rows = [row for row in rows if row["base"] is not None]
    figure, axes = pyplot.subplots(figsize=(9, 8.5))
    height, at, ticks = 0.8, 0.0, []
    for row in rows:
        shown = [(name, ratio(rows, row, name)) for name in REAL]
        shown = [(name, values) for name, values in shown if values]
        first = at
        for name, (median, least, most) in shown:
            axes.barh(at, median, height, color=COLOURS[name])
            axes.plot([least, most], [at, at], color="black", linewidth=1)
            axes.text(most + 0.01, at, f"{median:.2f}", va="center", fontsize=8)
            at += height
        ticks.append(((first + at - height) / 2, row["name"]))
        at += height
    axes.axvline(1, color=COLOURS[FLOOR], linestyle="--", linewidth=1)
    axes.axvline(1 / 1.4, color=COLOURS[FLOOR], linestyle=":", linewidth=1)
    axes.text(1 / 1.4, -height, "target at QoS 0 ", ha="right", fontsize=8, color="#555555")
    axes.text(1, -height, "floor ", ha="right", fontsize=8, color="#555555")
    axes.set_yticks(*zip(*ticks))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0)
    axes.set_xlabel("deliveries per CPU-second of the broker, as a ratio to the copy-only floor; lines: range of the rounds")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in REAL]
    axes.legend(handles, REAL, loc="upper center", bbox_to_anchor=(0.5, 1.06), ncols=len(REAL), frameon=False)
    save(figure, folder, "throughput")


def latency(shapes, folder):
    """Curves over quantiles, each of them the median of the rounds."""
    figure, panels = pyplot.subplots(1, len(shapes), figsize=(9, 4), sharey=True)
    shown = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999]
    for shape, axes in zip(shapes, panels):
        for name in ALL:
            curves = [dict(map(tuple, one["curve"])) for one in shape["values"].get(name, [])]
            if not curves:
                continue
            values = [statistics.median(curve[quantile] for curve in curves) / 1000 for quantile in shown]
            axes.plot([1 / (1 - quantile) for quantile in shown], values, color=COLOURS[name], label=name, marker=".")
        axes.set_xscale("log")
        axes.set_yscale("log")
        named = [(2, "50%"), (10, "90%"), (100, "99%"), (1000, "99.9%")]
        axes.set_xticks(*zip(*named))
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        axes.axhline(5, color="#555555", linestyle=":", linewidth=1)
        axes.set_title(shape["name"], fontsize=10)
        axes.grid(True, which="both", axis="y", color="#e5e5e5", linewidth=0.5)
    panels[0].set_ylabel("ms, from when it should have left")
    figure.supxlabel("of 20,000 deliveries a second, QoS 0, so many take at most; dotted: the target for 99%", fontsize=10)
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save(figure, folder, "latency")


def memory(results, folder):
    """What stays in memory: connections, subscriptions, retained messages."""
    kept, connecting = results["kept"], results["connecting"]
    subscriptions = lambda name: [one["bytes_per_subscription"] for one in kept[name]["publishes"] if one][-1:]
    retained = lambda name: kept[name]["retained"]
    panels = [
        ("KiB an idle connection", ALL, lambda name: connecting[name]["idle_kib"]),
        ("bytes a subscription", REAL, lambda name: (subscriptions(name) or [None])[0]),
        (
            "bytes a retained message",
            REAL,
            lambda name: retained(name)["bytes_per_message"] if retained(name) and retained(name)["replayed"] else None,
        ),
    ]
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(9, 2.8))
    for axes, (title, names, value) in zip(all_axes, panels):
        values = [(name, value(name)) for name in names]
        values = [(name, amount) for name, amount in values if amount]
        axes.barh([name for name, _ in values], [amount for _, amount in values], color=[COLOURS[name] for name, _ in values])
        for place, (_, amount) in enumerate(values):
            axes.text(amount, place, f" {short(amount)}", va="center", fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.25)
    figure.tight_layout()
    save(figure, folder, "memory")


def matching(kept, folder):
    """What a publish costs the broker's process, by how many subscriptions there are."""
    figure, axes = pyplot.subplots(figsize=(5, 3.2))
    for name in REAL:
        points = [
            (filters * SUBSCRIBERS, 1e6 / process["deliveries_per_cpu_second"])
            for filters, process in zip(SUBSCRIPTIONS, kept[name]["publishes"])
            if process and process["deliveries_per_cpu_second"]
        ]
        if points:
            axes.plot(*zip(*points), color=COLOURS[name], label=name, marker="o")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("subscriptions of 1000 clients, exact and with wildcards")
    axes.set_ylabel("CPU us a publish with one match")
    axes.grid(True, which="both", axis="y", color="#e5e5e5", linewidth=0.5)
    axes.legend(frameon=False, fontsize=8)
    save(figure, folder, "matching")


def main():
    results, folder = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    pyplot.rcParams.update(STYLE)
    throughput(results["throughput"], folder)
    latency(results["latency"], folder)
    memory(results, folder)
    matching(results["kept"], folder)


if __name__ == "__main__":
    main()
