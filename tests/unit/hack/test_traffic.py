"""What a node asks of the API server, from the audit log's lines and from those of `ss`."""

from __future__ import annotations

import json
from pathlib import Path

from hack.traffic import Asked, requests, sockets_of

SS = """\
ESTAB 0 0 127.0.0.1:40001 127.0.0.1:6443 users:(("python",pid=7,fd=9))
\t cubic wscale:7,7 rto:204 bytes_sent:812 bytes_retrans:5 bytes_acked:812 bytes_received:4096 segs_out:9
ESTAB 0 0 127.0.0.1:40002 127.0.0.1:6443 users:(("kubelet",pid=70,fd=9))
\t cubic bytes_sent:1 bytes_received:2
ESTAB 0 0 127.0.0.1:40003 127.0.0.1:6443 users:(("python",pid=7,fd=10),("python",pid=8,fd=10))
\t cubic rto:204 segs_out:9
"""


def line(user: str, verb: str, stage: str = "ResponseComplete", **about: str) -> str:
    return json.dumps({"user": {"username": user}, "verb": verb, "stage": stage, "objectRef": about})


def test_sockets_of_others_do_not_count_and_a_counter_that_is_not_there_is_zero() -> None:
    found = dict(sockets_of(SS.splitlines(), frozenset({7})))
    assert found == {"127.0.0.1:40001 127.0.0.1:6443": (812, 4096), "127.0.0.1:40003 127.0.0.1:6443": (0, 0)}


def test_a_watch_counts_when_it_begins_and_everything_else_when_it_ends(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    node = "system:node:one"
    log.write_text(
        "\n".join(
            [
                line(node, "watch", "ResponseStarted", resource="pods"),
                line(node, "watch", resource="pods"),
                line(node, "patch", resource="pods", subresource="status"),
                line("admin", "get", resource="pods"),
                "",
            ]
        )
    )
    assert requests(log) == {Asked("one", "watch", "pods"): 1, Asked("one", "patch", "pods/status"): 1}


def test_only_the_lines_from_a_place_on_count_and_one_that_is_cut_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(f"{line('system:node:one', 'get', resource='nodes')}\n")
    begin = log.stat().st_size
    with log.open("a") as file:
        file.write(f'{line("system:node:one", "update", resource="leases")}\n{{"user": {{"username"')
    assert requests(log, begin) == {Asked("one", "update", "leases"): 1}
    assert requests(log, begin + 5) == {}
