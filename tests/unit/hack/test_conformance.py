"""What a run of the upstream suite is compared with, and what makes it fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.binaries import BuildError
from hack.conformance import __main__ as conformance
from hack.conformance.images import names_by_program
from hack.conformance.results import (
    NOT_RUN,
    PASSED,
    Run,
    Spec,
    as_json,
    compare,
    read_expectations,
    read_report,
    selected,
    table,
    updated,
    write_expectations,
)


def _report(*specs: dict[str, object]) -> bytes:
    return json.dumps([{"RunTime": 90_400_000_000, "SpecReports": specs}]).encode()


def _spec(text: str, state: str, *, attempts: int = 1, message: str = "") -> dict[str, object]:
    return {
        "LeafNodeType": "It",
        "ContainerHierarchyTexts": ["[sig-node] Pods"],
        "LeafNodeText": text,
        "State": state,
        "RunTime": 2_340_000_000,
        "NumAttempts": attempts,
        "Failure": {"Message": message},
    }


def test_a_report_names_the_specs_that_ran_by_their_full_text() -> None:
    run = read_report(_report(_spec("starts", "passed"), _spec("ends", "failed", message="\nno\nmore")))
    assert run.seconds == 90.4
    assert run.specs == {
        "[sig-node] Pods starts": Spec("passed", 2.3),
        "[sig-node] Pods ends": Spec("failed", 2.3, "no"),
    }


def test_what_the_filter_left_out_is_no_result_and_what_a_spec_skips_itself_is_one() -> None:
    run = read_report(_report(_spec("left out", "skipped", attempts=0), _spec("not on Linux", "skipped")))
    assert list(run.specs) == ["[sig-node] Pods not on Linux"]


def test_setting_up_the_suite_is_no_spec() -> None:
    assert not read_report(_report({**_spec("", "passed"), "LeafNodeType": "SynchronizedBeforeSuite"})).specs


@pytest.mark.parametrize(
    ("kubelet", "ours", "regression"),
    [
        ("passed", "failed", True),
        ("passed", "skipped", True),
        ("passed", "timedout", True),
        ("passed", None, True),
        ("failed", "passed", False),
        ("failed", "skipped", False),
        (None, "failed", False),
    ],
)
def test_only_what_a_kubelet_passes_can_be_a_regression(
    kubelet: str | None, ours: str | None, regression: bool
) -> None:
    before = Run(1, {"spec": Spec(kubelet, 1)} if kubelet else {})
    after = Run(1, {"spec": Spec(ours, 1)} if ours else {})
    [found] = compare(before, after)
    assert found.is_regression is regression
    assert (found.kubelet.state, found.ours.state) == (kubelet or NOT_RUN, ours or NOT_RUN)
    assert json.loads(as_json(before, after, [found]))["regressions"] == (["spec"] if regression else [])


@pytest.mark.parametrize("state", ["passed", "failed", "skipped"])
def test_ending_as_the_kubelet_does_is_no_difference(state: str) -> None:
    assert compare(Run(1, {"spec": Spec(state, 1)}), Run(1, {"spec": Spec(state, 9)})) == []


def test_regressions_come_first() -> None:
    before = Run(1, {"a": Spec("failed", 1), "b": Spec(PASSED, 1)})
    after = Run(1, {"a": Spec(PASSED, 1), "b": Spec("failed", 1)})
    assert [found.name for found in compare(before, after)] == ["b", "a"]


def test_a_run_of_a_part_has_to_run_that_part_only() -> None:
    known = Run(1, {"[NodeConformance] a": Spec(PASSED, 1), "[NodeConformance] [Slow] b": Spec(PASSED, 1)})
    assert list(selected(known, r"\[NodeConformance\]", r"\[Slow\]").specs) == ["[NodeConformance] a"]
    part = selected(known, "b$", "")
    assert list(part.specs) == ["[NodeConformance] [Slow] b"]
    assert "seconds of the suite" not in table(part, part, [])
    assert "seconds of the suite" in table(known, known, [])


def test_a_part_recorded_again_leaves_the_rest() -> None:
    before = Run(100, {"a": Spec(PASSED, 1), "b": Spec(PASSED, 1)})
    part = Run(5, {"b": Spec("failed", 2)})
    assert updated(before, part, whole=False) == Run(100, {"a": Spec(PASSED, 1), "b": Spec("failed", 2)})
    assert updated(before, part, whole=True) is part


def test_what_is_recorded_is_read_again() -> None:
    run = Run(12.5, {'b "quoted"': Spec(PASSED, 1.5), "a": Spec("failed", 2.0)})
    assert read_expectations(write_expectations(run, "v1").encode()) == run


def test_the_table_shows_totals_times_and_every_difference() -> None:
    before = Run(100, {"a": Spec(PASSED, 10), "b": Spec(PASSED, 1)})
    after = Run(80, {"a": Spec(PASSED, 5), "b": Spec("failed", 2, "it broke")})
    shown = table(before, after, compare(before, after)).splitlines()
    assert shown[1].split() == ["passed", "2", "1"]
    assert shown[2].split() == ["failed", "0", "1"]
    assert shown[3].split()[-3:] == ["10", "5", "0.50"]
    assert shown[4].split()[-3:] == ["100", "80", "0.80"]
    assert shown[5].split() == ["REGRESSION", "passed", "1", "s", "failed", "2", "s", "b"]
    assert shown[6].strip() == "it broke"


def test_the_recorded_kubelet_covers_what_is_run_by_default() -> None:
    recorded = read_expectations(conformance.EXPECTATIONS.read_bytes())
    assert len(recorded.specs) > 200
    assert selected(recorded, conformance.FOCUS, conformance.SKIP).specs == recorded.specs


def test_images_of_other_registries_stay_away() -> None:
    suite = "registry.k8s.io/e2e-test-images"
    listed = [f"{suite}/agnhost:2.1", f"{suite}/agnhost:2.0", f"{suite}/volume/nfs:1", "gcr.io/private/agnhost:2.6"]
    assert names_by_program(listed) == {
        "agnhost": [f"{suite}/agnhost:2.1", f"{suite}/agnhost:2.0"],
        "volume/nfs": [f"{suite}/volume/nfs:1"],
    }


def test_a_cluster_that_cannot_start_is_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> Run:
        raise BuildError("no Go here")

    monkeypatch.setattr(conformance, "_run", fails)
    assert conformance.main(["--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: no Go here\n"


@pytest.mark.parametrize(("state", "code"), [("passed", 0), ("failed", 1)])
def test_a_regression_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, code: int) -> None:
    recorded = tmp_path / "kubelet.json"
    recorded.write_text(write_expectations(Run(1, {"[NodeConformance] a": Spec(PASSED, 1)}), "v1"))
    monkeypatch.setattr(conformance, "EXPECTATIONS", recorded)
    monkeypatch.setattr(conformance, "_run", lambda *_: Run(1, {"[NodeConformance] a": Spec(state, 1)}))
    assert conformance.main(["--output", str(tmp_path)]) == code
    assert json.loads((tmp_path / "results.json").read_text())["edgelet"]["specs"]["[NodeConformance] a"]


def test_a_run_of_the_kubelet_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = tmp_path / "kubelet.json"
    run = Run(7, {"[NodeConformance] a": Spec("failed", 1.5)})
    monkeypatch.setattr(conformance, "EXPECTATIONS", recorded)
    monkeypatch.setattr(conformance, "_run", lambda *_: run)
    assert conformance.main(["--agent", "kubelet", "--output", str(tmp_path)]) == 0
    assert read_expectations(recorded.read_bytes()) == run
