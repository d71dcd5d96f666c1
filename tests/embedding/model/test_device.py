"""Device and floating-point type, each as this machine's answers would have it."""

import pytest
import torch

from tp_retrieval import InputError
from tp_retrieval.embedding.model import device

CPU = torch.device("cpu")


def test_dtypes_by_name():
    assert device.resolve_dtype("bfloat16", CPU) is torch.bfloat16
    assert device.resolve_dtype("float32", CPU) is torch.float32
    assert device.resolve_dtype("float16", CPU) is torch.float16
    assert device.resolve_dtype(torch.float16, CPU) is torch.float16


@pytest.mark.parametrize("wrong", ["int8", "nonsense", "Tensor", "AUTO", ""])
def test_a_name_of_no_floating_point_type_is_refused_with_what_there_is(wrong):
    with pytest.raises(InputError, match=f"dtype: '{wrong}' must be auto, float32, bfloat16 or float16"):
        device.resolve_dtype(wrong, CPU)


@pytest.mark.parametrize(("fast", "want"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_auto_is_bfloat16_where_it_is_faster_on_that_device(monkeypatch, kind, fast, want):
    monkeypatch.setattr(device, "_bfloat16_pays", lambda asked: fast if asked == kind else not fast)
    assert device.resolve_dtype("auto", torch.device(kind)) is want


@pytest.mark.parametrize(
    ("cuda", "mps", "want"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_default_is_the_first_device_there_is(monkeypatch, cuda, mps, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(device.resolve_device(None)) == want


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked_without_emulation_and_another_accelerator_never(monkeypatch, supported):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: (asked.append(options), supported)[1])
    pays = device._bfloat16_pays.__wrapped__
    assert pays("cuda") is supported
    assert pays("mps") is False
    assert asked == [{"including_emulation": False}]


@pytest.mark.parametrize(("bfloat16", "pays"), [(0.5, True), (0.79, True), (0.81, False), (1.0, False), (2.0, False)])
def test_a_processor_multiplies_bfloat16_where_it_takes_less_than_four_fifths(monkeypatch, bfloat16, pays):
    clock, shapes = [0.0], set()

    def product(left, right):
        shapes.add((*left.shape, *right.shape))
        slow = 10.0 if clock[0] == 0.0 else 1.0  # the first product of a process is no measure
        clock[0] += slow * (bfloat16 if left.dtype is torch.bfloat16 else 1.0)

    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "mm", product)
    assert device._bfloat16_pays.__wrapped__("cpu") is pays
    assert shapes == {(512, 512, 512, 512)}
