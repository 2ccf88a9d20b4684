"""The results side by side as text: one row a figure, the agent's ratio to the kubelet, and the runtime's floor."""

from collections.abc import Mapping

from hack.bench.results import NOISY, Results

KUBELET, AGENT, FLOOR = "kubelet", "edgelet", "runtime alone"


def table(results: Mapping[str, Results]) -> str:
    """Figures in the order in which they came; `~` marks one whose times are too far apart to be trusted."""
    agents = [name for name in results if name != FLOOR]
    floor = results[FLOOR].figures() if FLOOR in results else {}
    figures = {name: results[name].figures() for name in agents}
    noisy = {name: results[name].noisy() for name in agents}
    rows = list(dict.fromkeys(row for name in agents for row in figures[name]))
    compared = KUBELET in agents and AGENT in agents
    header = ["".ljust(44), *(f"{name:>11}" for name in agents), *(["ratio".rjust(9)] if compared else [])]
    lines = ["".join([*header, *([FLOOR.rjust(15)] if floor else [])])]
    for row in rows:
        cells = [_cell(figures[name].get(row), row in noisy[name]) for name in agents]
        if compared:
            base, ours = figures[KUBELET].get(row), figures[AGENT].get(row)
            cells.append(f"{ours / base:9.2f}" if base and ours is not None else f"{'-':>9}")
        if floor:
            cells.append(f"{_number(floor[row]):>15}" if row in floor else " " * 15)
        lines.append(row.ljust(44) + "".join(cells).rstrip())
    return "\n".join(lines)


def verdict(results: Mapping[str, Results]) -> str:
    """Why this run proves nothing; empty where it was quiet enough."""
    wide = [
        f"{name}: {row} ({100 * width:.0f} %)"
        for name, found in results.items()
        for row, width in found.noisy().items()
    ]
    if not wide:
        return ""
    return (
        f"NOT A GOOD RUN: the middle half of the times marked ~ is wider than {100 * NOISY:.0f} % of the median, so the"
        " machine was busy with something else. Measure again when it is quiet. " + "; ".join(wide)
    )


def _cell(value: float | None, noisy: bool) -> str:
    return f"{'-' if value is None else ('~' if noisy else '') + _number(value):>11}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
