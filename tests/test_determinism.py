"""Deterministic kernels: what is switched on within the block, and that nothing of it stays."""

import os

import pytest
import torch

from paced_rl.parameters import PolicyParameters
from paced_rl.policies import CUBLAS_VARIABLE, deterministic_algorithms
from paced_rl.preflight import PreflightError, check_determinism

Switches = tuple[bool, bool, bool, bool, bool, str | None]


def switches() -> Switches:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get(CUBLAS_VARIABLE),
    )


def fail_within() -> None:
    with deterministic_algorithms(True):
        raise AssertionError(switches())


@pytest.fixture(autouse=True)
def _no_workspace_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS_VARIABLE, raising=False)


def test_everything_is_on_within_and_as_before_afterwards() -> None:
    before = switches()
    with deterministic_algorithms(True):
        assert switches() == (True, False, True, False, False, ":4096:8")
        with deterministic_algorithms(True):
            assert switches() == (True, False, True, False, False, ":4096:8")
        assert switches() == (True, False, True, False, False, ":4096:8")
        with deterministic_algorithms(False):
            assert torch.are_deterministic_algorithms_enabled()
    assert switches() == before


def test_an_error_and_a_choice_of_the_user_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_VARIABLE, ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = switches()
        with pytest.raises(AssertionError, match="True, False, True, False, False, ':16:8'"):
            fail_within()
        assert switches() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_off_changes_nothing() -> None:
    before = switches()
    with deterministic_algorithms(False):
        assert switches() == before


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"),
    [("cpu", None, True), ("cuda", None, False), ("cuda:1", True, True), ("cpu", False, False)],
)
def test_null_is_decided_by_the_device(device: str, deterministic: bool | None, expected: bool) -> None:
    assert PolicyParameters(device=device, deterministic=deterministic).is_deterministic is expected


def test_a_workspace_that_is_not_fixed_is_refused() -> None:
    on_gpu = PolicyParameters(device="cuda", deterministic=True)
    with pytest.raises(PreflightError, match=r"CUBLAS_WORKSPACE_CONFIG=':0:0'.*one of :4096:8, :16:8"):
        check_determinism(on_gpu, {CUBLAS_VARIABLE: ":0:0"})
    check_determinism(on_gpu, {CUBLAS_VARIABLE: ":16:8"})
    check_determinism(on_gpu, {})
    for policy in (PolicyParameters(device="cuda"), PolicyParameters(device="cpu", deterministic=True)):
        check_determinism(policy, {CUBLAS_VARIABLE: ":0:0"})
