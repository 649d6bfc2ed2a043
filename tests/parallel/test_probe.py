"""The probe of bits."""

import pytest
import torch
from torch import Tensor

from entracte.models.transformer import TransformerConfig
from entracte.parallel import probe
from entracte.parallel.probe import BitsProbe, SharedShape
from entracte.synthetic import demo_config

CONFIG = TransformerConfig.from_header(demo_config.TRANSFORMER)
SHAPE = SharedShape(rows=2, tokens=19, audio=5, text=16, ranks=2)


def differing() -> list[str]:
    with torch.inference_mode():
        return BitsProbe(CONFIG, SHAPE, torch.device("cpu"), torch.float32).differing()


def test_what_depends_on_rows_or_heads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, attend = probe.F.linear, probe.attend

    def by_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear(x, weight, bias) * 0 + x.shape[1]

    def by_shape(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v) * 0 + q.shape[1] + q.shape[2]

    monkeypatch.setattr(probe.F, "linear", by_rows)
    monkeypatch.setattr(probe, "attend", by_shape)
    found = differing()
    assert "products of 128 x 512" in found
    assert "attention among the video, by heads" in found
    assert "attention of the video to the text, by tokens" in found
    assert len(found) == 10
    monkeypatch.setattr(probe.F, "linear", lambda x, w, b: linear(x, w, b) * 0)
    monkeypatch.setattr(probe, "attend", lambda q, k, v: attend(q, k, v) * 0)
    assert differing() == []
