import pytest

from training import sizes


@pytest.mark.slow
def test_all_that_is_shipped_keeps_within_its_bound() -> None:
    found = sizes.costs()
    stored = sum(each.bytes for each in found)
    assert sizes.COMPRESSED * stored <= sizes.SHIPPED_BYTES
    assert {each.name for each in found if each.flops} >= {"text encoder", "stage 1", "vocoder"}
