"""What a run of the suite showed, what a kubelet's run showed, and where the first falls behind the second. Pure.

In: Ginkgo's JSON report and the expectations recorded from a kubelet. Out: a table, and the specs that make it fail.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASSED = "passed"
NOT_RUN = "not run"
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Spec:
    """`state` in Ginkgo's words: passed, failed, skipped (by its own decision), timedout, panicked, interrupted …"""

    state: str
    seconds: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """`seconds`: of the whole suite; specs run side by side, so theirs add up to more."""

    seconds: float
    specs: Mapping[str, Spec]


@dataclass(frozen=True, slots=True)
class Difference:
    name: str
    kubelet: Spec
    ours: Spec

    @property
    def is_regression(self) -> bool:
        return self.kubelet.state == PASSED


def read_report(raw: bytes) -> Run:
    """Of Ginkgo's `--json-report`: the specs that ran, by their full text. Setting the suite up is no spec."""
    specs: dict[str, Spec] = {}
    seconds = 0.0
    for suite in json.loads(raw):
        seconds += suite["RunTime"] / 1e9
        for found in suite.get("SpecReports") or []:
            # What the filter left out was never attempted.
            if found["LeafNodeType"] == "It" and found.get("NumAttempts"):
                name = " ".join([*(found.get("ContainerHierarchyTexts") or []), found["LeafNodeText"]])
                specs[name] = Spec(found["State"], round(found["RunTime"] / 1e9, 1), _message(found))
    return Run(round(seconds, 1), specs)


def _message(found: Mapping[str, Any]) -> str:
    """The first line of the failure, short."""
    said = str((found.get("Failure") or {}).get("Message") or "").strip()
    return said.partition("\n")[0][:160]


def read_expectations(raw: bytes) -> Run:
    recorded = json.loads(raw)
    specs = {name: Spec(found["state"], found["seconds"]) for name, found in recorded["specs"].items()}
    return Run(recorded["seconds"], specs)


def write_expectations(run: Run, kubernetes: str) -> str:
    """For people to read and for git to compare: sorted, one spec a line, without messages."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps({'state': spec.state, 'seconds': spec.seconds})}"
        for name, spec in sorted(run.specs.items())
    ]
    head = f'{{\n "kubernetes": {json.dumps(kubernetes)},\n "seconds": {run.seconds},\n "specs": {{\n'
    return head + ",\n".join(lines) + "\n }\n}\n"


def updated(before: Run, run: Run, *, whole: bool) -> Run:
    """The expectations after one more run of the kubelet: a run of a part leaves the rest as it was."""
    return run if whole else Run(before.seconds, {**before.specs, **run.specs})


def selected(expected: Run, focus: str, skip: str) -> Run:
    """Those of the recorded specs that a run with these filters has to run; of a part nobody knows the time."""
    wanted, unwanted = re.compile(focus), re.compile(skip) if skip else None
    specs = {
        name: spec
        for name, spec in expected.specs.items()
        if wanted.search(name) and not (unwanted and unwanted.search(name))
    }
    return Run(expected.seconds if specs == expected.specs else 0.0, specs)


def compare(expected: Run, ours: Run) -> list[Difference]:
    """Specs that did not end as the kubelet's did, regressions first; one that only one of them ran is among them."""
    absent = Spec(NOT_RUN, 0.0)
    differences = [
        Difference(name, expected.specs.get(name, absent), ours.specs.get(name, absent))
        for name in sorted({*expected.specs, *ours.specs})
    ]
    changed = [found for found in differences if found.kubelet.state != found.ours.state]
    return sorted(changed, key=lambda found: not found.is_regression)


def table(expected: Run, ours: Run, differences: Sequence[Difference], *, every: bool = False) -> str:
    """Totals, then the specs that end differently; `every`: all specs with their times."""
    states = sorted({spec.state for run in (expected, ours) for spec in run.specs.values()}, key=lambda s: s != PASSED)
    lines = [f"{'':28}{'kubelet':>10}{'edgelet':>10}"]
    lines += [f"{state:28}{_count(expected, state):>10}{_count(ours, state):>10}" for state in states]
    common = [name for name, spec in ours.specs.items() if PASSED == spec.state == _state(expected, name)]
    spent = [sum(run.specs[name].seconds for name in common) for run in (expected, ours)]
    lines.append(f"{'seconds in specs both pass':28}{spent[0]:>10.0f}{spent[1]:>10.0f}{_ratio(*spent)}")
    if expected.seconds and ours.specs.keys() == expected.specs.keys():
        lines.append(
            f"{'seconds of the suite':28}{expected.seconds:>10.0f}{ours.seconds:>10.0f}"
            f"{_ratio(expected.seconds, ours.seconds)}"
        )
    shown = (
        [Difference(name, expected.specs.get(name, Spec(NOT_RUN, 0.0)), spec) for name, spec in ours.specs.items()]
        if every
        else differences
    )
    for found in shown:
        changed = found.kubelet.state != found.ours.state
        mark = "REGRESSION" if found.is_regression and changed else "differs" if changed else ""
        lines.append(f"{mark:11} {_cell(found.kubelet):>17} {_cell(found.ours):>17}  {found.name}")
        if found.ours.message:
            lines.append(f"{'':48} {found.ours.message}")
    return "\n".join(lines)


def as_json(expected: Run, ours: Run, differences: Sequence[Difference]) -> str:
    """For machines: what was compared and what came out of it."""
    return json.dumps(
        {
            "kubelet": asdict(expected),
            "edgelet": asdict(ours),
            "regressions": [found.name for found in differences if found.is_regression],
        },
        indent=1,
        sort_keys=True,
    )


def _count(run: Run, state: str) -> int:
    return sum(spec.state == state for spec in run.specs.values())


def _state(run: Run, name: str) -> str:
    return run.specs[name].state if name in run.specs else NOT_RUN


def _cell(spec: Spec) -> str:
    return spec.state if spec.state == NOT_RUN else f"{spec.state} {spec.seconds:g} s"


def _ratio(base: float, ours: float) -> str:
    return f"{ours / base:>10.2f}" if base else ""
