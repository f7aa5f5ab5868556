from __future__ import annotations

import pytest

from unscene.ops.dispatch import use_plain


@pytest.mark.parametrize(("value", "plain"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_the_environment_decides_at_every_call(monkeypatch: pytest.MonkeyPatch, value: str | None, plain: bool) -> None:
    monkeypatch.delenv("UNSCENE_PLAIN", raising=False)
    assert not use_plain()
    if value is not None:
        monkeypatch.setenv("UNSCENE_PLAIN", value)
    assert use_plain() is plain
