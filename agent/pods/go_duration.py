"""Durations in the form that Go prints, which tools read out of the kubelet's events. Pure."""


def go_duration(seconds: float) -> str:
    """To the millisecond, never rounded up: 0s, 850ms, 1.25s, 1m2.5s, 1h0m0s."""
    millis = int(seconds * 1000)
    if millis == 0:
        return "0s"
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
