"""The results as one SVG: for each time its distribution, below them the memory over the run. No library, no script."""

from collections.abc import Iterable, Mapping, Sequence

from hack.bench.results import Results

COLOURS = ("#c2571a", "#1f6fb2", "#7a7a7a")
WIDTH, PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 980, 300, 170, 45
MEMORY_HEIGHT = 240
Line = Sequence[tuple[float, float]]


def chart(results: Mapping[str, Results]) -> str:
    """A picture for a browser or a page of documentation."""
    colours = dict(zip(results, COLOURS, strict=False))
    names = list(dict.fromkeys(name for found in results.values() for name, times in found.times.items() if times[3:]))
    parts = [_text(MARGIN, 20, "part of the times that were at most so long", 13)]
    for name, colour in colours.items():
        parts.append(_text(MARGIN + 420 + 140 * list(colours).index(name), 20, f"● {name}", 13, colour))
    below = 35
    for number, title in enumerate(names):
        x, y = MARGIN + number % 3 * (PANEL_WIDTH + 15), 35 + number // 3 * (PANEL_HEIGHT + 55)
        lines = {
            colours[who]: _distribution(found.times[title]) for who, found in results.items() if title in found.times
        }
        parts += _panel(x, y, PANEL_WIDTH - 40, PANEL_HEIGHT, title, lines)
        below = y + PANEL_HEIGHT + 55
    memory = {colours[who]: found.memory for who, found in results.items() if found.memory}
    if memory:
        title = "RSS in MiB, over the seconds of the run"
        parts += _panel(MARGIN, below, WIDTH - 2 * MARGIN, MEMORY_HEIGHT, title, memory)
        below += MEMORY_HEIGHT + 55
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {below}" width="{WIDTH}" height="{below}"'
        f' font-family="sans-serif"><rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _distribution(times: Sequence[float]) -> Line:
    ordered = sorted(times)
    return [(time, (number + 1) / len(ordered)) for number, time in enumerate(ordered)]


def _panel(x: float, y: float, width: float, height: float, title: str, lines: Mapping[str, Line]) -> Iterable[str]:
    right = max(point[0] for line in lines.values() for point in line) or 1.0
    top = max(point[1] for line in lines.values() for point in line) * 1.05 or 1.0
    yield _text(x, y + 12, title, 12)
    y += 20
    yield f'<path d="M{x:.1f} {y:.1f}v{height:.1f}h{width:.1f}" fill="none" stroke="#999999"/>'
    yield _text(x, y + height + 14, "0", 10)
    yield _text(x + width - 25, y + height + 14, f"{right:.0f}", 10)
    yield _text(x - 28, y + 8, f"{top:.0f}" if top > 2 else "100%", 10)
    for colour, line in lines.items():
        points = " ".join(f"{x + width * px / right:.1f},{y + height * (1 - py / top):.1f}" for px, py in line)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _text(x: float, y: float, text: str, size: int, colour: str = "#333333") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escaped}</text>'
