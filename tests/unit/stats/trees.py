"""Cgroup trees and /proc files of a machine that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    5000      50    0    0    0     0          0         0     5000      50    0    0    0     0       0          0
  eth0: 1000000    2000    3    4    0     0          0         0   500000    1000    5    6    0     0       0          0
veth12:     900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0
"""  # noqa: E501 - as the kernel writes it


def write(top: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        file = top / name.lstrip("/")  # of the top itself
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def version_1(mount: Path, path: str, cpu_ns: int = 5_000_000_000) -> None:
    write(
        mount,
        {
            f"cpuacct/{path}/cpuacct.usage": f"{cpu_ns}\n",
            f"cpuacct/{path}/cpuacct.stat": "user 300\nsystem 200\n",
            f"cpu/{path}/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n",
            f"cpu/{path}/cpu.shares": "512\n",
            f"cpu/{path}/cpu.cfs_quota_us": "50000\n",
            f"cpu/{path}/cpu.cfs_period_us": "100000\n",
            f"memory/{path}/memory.usage_in_bytes": "1000000\n",
            f"memory/{path}/memory.limit_in_bytes": "4000000\n",
            f"memory/{path}/memory.memsw.limit_in_bytes": "9223372036854771712\n",
            f"memory/{path}/memory.max_usage_in_bytes": "2000000\n",
            f"memory/{path}/memory.failcnt": "7\n",
            f"memory/{path}/memory.stat": "cache 1\ntotal_cache 600000\ntotal_rss 300000\ntotal_mapped_file 4096\n"
            "total_swap 8192\ntotal_pgfault 90\ntotal_pgmajfault 9\ntotal_inactive_file 400000\n",
            f"memory/{path}/cgroup.procs": "42\n",
            f"pids/{path}/pids.current": "3\n",
            f"pids/{path}/pids.max": "100\n",
            f"blkio/{path}/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n"
            "8:0 Total 12288\nTotal 12288\n",
            f"blkio/{path}/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        },
    )


def version_2(mount: Path, path: str, cpu_us: int = 5_000_000) -> None:
    write(
        mount,
        {
            "cgroup.controllers": "cpu memory pids io\n",
            f"{path}/cpu.stat": f"usage_usec {cpu_us}\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\n"
            "nr_throttled 4\nthrottled_usec 1500000\n",
            f"{path}/cpu.max": "50000 100000\n",
            f"{path}/cpu.weight": "20\n",
            f"{path}/memory.current": "1000000\n",
            f"{path}/memory.max": "4000000\n",
            f"{path}/memory.peak": "2000000\n",
            f"{path}/memory.swap.current": "8192\n",
            f"{path}/memory.swap.max": "max\n",
            f"{path}/memory.events": "low 0\nhigh 0\nmax 7\noom 0\n",
            f"{path}/memory.stat": "anon 300000\nfile 600000\nfile_mapped 4096\ninactive_file 400000\npgfault 90\n"
            "pgmajfault 9\n",
            f"{path}/pids.current": "3\n",
            f"{path}/pids.max": "100\n",
            f"{path}/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
            f"{path}/cgroup.procs": "42\n",
        },
    )
