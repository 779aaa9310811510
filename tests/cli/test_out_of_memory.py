"""A full memory is an error a user can act on; another RuntimeError is a defect and stays one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from secateur import cli


def _raising(error: RuntimeError) -> Any:
    def app(**_: Any) -> None:
        raise error

    return app


def test_full_memory_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.int8)
    monkeypatch.setattr(cli, "app", _raising(caught.value))
    assert cli.run(["inspect"]) == 2
    assert "out of memory" in capsys.readouterr().err


def test_other_errors_stay_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", _raising(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        cli.run(["inspect"])
