import pytest

from entracte.errors import RequestError
from entracte.machine.cards import CARDS, RATE_NAMES, card, card_for_device
from entracte.units import GIB

GB = 10**9


@pytest.mark.parametrize("each", CARDS, ids=lambda each: each.name)
def test_every_card_is_found_by_all_its_names(each) -> None:
    for name in (each.name, *each.aliases, *each.devices):
        for spelled in (name, name.upper(), name.replace("-", "_"), name.replace("-", " ")):
            assert card(spelled, 64 * GB).name == each.name
    for device in each.devices:
        assert card_for_device(device) == each


def test_practical_rates_are_below_the_data_sheet_and_above_half_of_it() -> None:
    for each in CARDS:
        made = card(each.name, 64 * GB)
        assert 0.5 * each.flops < made.rates.matmul < each.flops
        assert made.rates.merge < made.rates.matmul
        assert 0.5 * each.bandwidth < made.rates.device_copy < each.bandwidth
        assert made.rates.pageable < made.rates.h2d == made.rates.d2h < 64e9
        assert made.origins.keys() == set(RATE_NAMES)
        assert made.host_memory == 64 * GB
        assert not made.unified
        assert made.pinned_memory is None


def test_the_h200_is_what_was_measured_on_it() -> None:
    made = card("H200", 128 * GB)
    assert made.rates.matmul == pytest.approx(790e12)
    assert made.rates.device_copy == pytest.approx(4.3e12)
    assert made.rates.pageable == 2.8e9
    assert 140 * GB < made.device_memory < 151 * GB
    assert {n for n, o in made.origins.items() if o == "measured"} == {"matmul", "device_copy"}
    # The LoRA's merge of 14.6 TFLOP is estimated at 30 to 37 ms.
    assert 0.030 < 14.6e12 / made.rates.merge < 0.037


def test_no_other_card_claims_to_be_measured() -> None:
    for each in CARDS:
        if each.name != "h200":
            made = card(each.name, GB)
            assert made.origins["matmul"] == made.origins["device_copy"] == "data sheet"
            assert made.origins["merge"] == made.origins["disk"] == "assumed"


def test_cards_with_names_that_begin_alike_are_told_apart() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "h100-80gb",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA A100-SXM4-40GB": "a100-40gb",
        "NVIDIA A100-SXM4-80GB": "a100-80gb",
        "NVIDIA A10": "a10",
        "NVIDIA L4": "l4",
        "NVIDIA L40S": "l40s",
        "NVIDIA GeForce RTX 4090": "rtx-4090",
        "NVIDIA GeForce RTX 5070 Ti": "rtx-5070-ti",
    }
    for device, name in names.items():
        found = card_for_device(device)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "Tesla T4",
        "",
    ],
)
def test_what_is_not_in_the_table_is_not_guessed(device: str) -> None:
    assert card_for_device(device) is None


def test_overrides_are_given() -> None:
    made = card("rtx-4090", 32 * GB, device_memory=20 * GB, pinned_memory=GB, h2d=12e9, matmul=1e14)
    assert made.device_memory == 20 * GB
    assert made.pinned_memory == GB
    assert made.rates.h2d == 12e9
    assert made.rates.d2h == 25e9
    assert made.rates.merge == pytest.approx(0.6e14)  # follows the rate that was given
    assert {n for n, o in made.origins.items() if o == "given"} == {"h2d", "matmul"}


def test_memory_is_what_cuda_reports() -> None:
    for each in CARDS:
        assert card(each.name, GB).device_memory == int(each.memory * GIB)


@pytest.mark.parametrize(
    ("name", "nearest"), [("rtx-4091", "rtx-4090"), ("h10", "h100-80gb"), ("RTX A600", "rtx-a6000")]
)
def test_an_unknown_card(name: str, nearest: str) -> None:
    with pytest.raises(RequestError) as raised:
        card(name, GB)
    asked, _, known = str(raised.value).partition("Known are ")
    assert repr(name) in asked
    assert f"{nearest} " in asked.replace("?", " ")
    assert all(each.name in known for each in CARDS)


def test_a_card_like_none() -> None:
    with pytest.raises(RequestError, match=r"^no card 'qqqq' is known; Known are b200"):
        card("qqqq", GB)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be(value: float) -> None:
    with pytest.raises(RequestError, match="h2d must be above 0"):
        card("h200", GB, h2d=value)


def test_an_unknown_override() -> None:
    with pytest.raises(RequestError, match="a card has no 'speed'"):
        card("h200", GB, speed=1.0)
