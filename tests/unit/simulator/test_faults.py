from __future__ import annotations

import signal

import pytest

from exporter.simulator.faults import Crash, Faults, Plan, parse_body, parse_crash, parse_flag


@pytest.mark.parametrize(
    ("flag", "plan"),
    [
        ("wedge", Plan(0.0, {"wedge": True}, None)),
        ("wedge=false@2", Plan(2.0, {"wedge": "false"}, None)),
        ("slow=3@1.5", Plan(1.5, {"slow": "3"}, None)),
        ("error-rate=0.25", Plan(0.0, {"error_rate": "0.25"}, None)),
        ("metrics=garbage", Plan(0.0, {"metrics": "garbage"}, None)),
        ("crash", Plan(0.0, {}, Crash(exit_code=1))),
        ("crash=SIGKILL@5", Plan(5.0, {}, Crash(signal=signal.SIGKILL))),
    ],
)
def test_a_flag_names_a_fault_its_value_and_its_time(flag: str, plan: Plan) -> None:
    assert parse_flag(flag) == plan


@pytest.mark.parametrize(
    "flag", ["", "nope", "slow=0", "slow=x", "slow=nan", "error-rate=2", "health=bad", "wedge=maybe", "wedge@soon", "crash=999", "crash=SIGNONE"]
)  # fmt: skip
def test_a_wrong_flag_is_refused_at_once(flag: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_flag(flag)


def test_a_body_changes_what_it_names_and_leaves_the_rest() -> None:
    plan = parse_body({"slow": 2, "health": "fail", "after": 3})
    faults = Faults(wedge=True).changed(plan.changes)
    assert plan.after == 3.0
    assert faults == Faults(wedge=True, slow=2.0, health="fail")


@pytest.mark.parametrize("body", [[], "wedge", {"wedge": 2}, {"after": -1}, {"slow": True}, {"crash": None}])
def test_a_wrong_body_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_body(body)


def test_a_crash_is_an_exit_code_a_signal_or_the_engine_core() -> None:
    assert parse_crash(0) == Crash(exit_code=0)
    assert parse_crash("kill") == Crash(signal=signal.SIGKILL)
    assert parse_crash("engine-core").is_engine_core
    assert not parse_crash("SIGSEGV").is_engine_core
