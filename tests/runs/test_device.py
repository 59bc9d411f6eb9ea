"""The device of a run is named before it starts, and refused in one line where it cannot do what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alexlab.config import Accelerator, ConfigError, TrainerConfig
from alexlab.runs import device
from alexlab.runs.device import Device, driver_version, find_device

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."


@pytest.fixture(autouse=True)
def _anew():
    driver_version.cache_clear()
    yield
    driver_version.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with these GPUs, as far as torch is asked."""

    def has(
        number: int, name: str = "NVIDIA A100", capability: tuple[int, int] = (8, 0), driver: str | None = "580.65.06"
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(device, "driver_version", lambda: driver)
        monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))

    return has


def test_a_gpu_is_named_with_its_driver(machine):
    machine(2)
    assert find_device(TrainerConfig()) == Device("NVIDIA A100, driver 580.65.06, CUDA 13.0", "NVIDIA A100")
    assert str(find_device(TrainerConfig(devices=2))) == "2 x NVIDIA A100, driver 580.65.06, CUDA 13.0"


def test_a_cpu_is_named_with_its_threads(machine):
    machine(0, driver=None)
    assert find_device(TrainerConfig()) == Device("CPU, 1 thread", "cpu")  # of tests/conftest.py
    machine(1)
    assert find_device(TrainerConfig(accelerator=Accelerator.cpu)) == Device("CPU, 1 thread", "cpu")  # as asked for


def test_an_apple_gpu_is_not_used(machine, monkeypatch: pytest.MonkeyPatch):
    machine(0, driver=None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(TrainerConfig()) == Device("CPU, 1 thread", "cpu")
    with pytest.raises(ConfigError, match=r"trainer.accelerator=gpu: PyTorch sees no GPU here"):
        find_device(TrainerConfig(accelerator=Accelerator.gpu))


@pytest.mark.parametrize("says", [RuntimeError(TOO_OLD), AssertionError("Torch not compiled with CUDA enabled")])
def test_why_not_the_gpu_that_the_machine_has(machine, monkeypatch: pytest.MonkeyPatch, says: Exception):
    def init() -> None:
        raise says

    machine(0)
    monkeypatch.setattr(torch.cuda, "init", init)
    found = find_device(TrainerConfig())
    assert found.name == "CPU, 1 thread"
    assert found.unused_gpu is not None
    assert str(says).split(". ")[0] in found.unused_gpu
    assert "driver 580.65.06, PyTorch for CUDA 13.0" in found.unused_gpu
    with pytest.raises(ConfigError, match="accelerator=gpu: PyTorch sees no GPU") as refused:
        find_device(TrainerConfig(accelerator=Accelerator.gpu))
    assert str(says).split(". ")[0] in str(refused.value)
    assert "leave it out for the CPU" in str(refused.value)


@pytest.mark.parametrize(
    ("trainer", "gpus", "capability", "message"),
    [
        (TrainerConfig(devices=3), 2, (8, 0), "trainer.devices=3: PyTorch sees 2 GPUs here; lower it"),
        (TrainerConfig(devices=2), 1, (8, 0), "trainer.devices=2: PyTorch sees 1 GPU here; lower it"),
        (TrainerConfig(precision="tf32-true"), 0, (0, 0), "trainer.precision=tf32-true: needs a GPU"),
        (TrainerConfig(precision="16-mixed"), 0, (0, 0), "trainer.precision=16-mixed: needs a GPU"),
        (TrainerConfig(precision="bf16-mixed"), 1, (7, 0), "trainer.precision=bf16-mixed: NVIDIA A100 .*7.0.*; use"),
        (TrainerConfig(precision="tf32-true"), 1, (7, 5), "trainer.precision=tf32-true: NVIDIA A100 .*7.5.*; use"),
        (TrainerConfig(accelerator=Accelerator.gpu), 0, (0, 0), "trainer.accelerator=gpu: PyTorch sees no GPU"),
    ],
    ids=str,
)
def test_refused(machine, trainer: TrainerConfig, gpus: int, capability: tuple[int, int], message: str):
    machine(gpus, capability=capability)
    with pytest.raises(ConfigError, match=message) as refused:
        find_device(trainer)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("precision", "gpus", "capability"), [("16-mixed", 1, (7, 0)), ("bf16-mixed", 0, (0, 0)), ("tf32-true", 1, (9, 0))]
)
def test_accepted(machine, precision: str, gpus: int, capability: tuple[int, int]):
    machine(gpus, capability=capability)
    find_device(TrainerConfig(precision=precision))


def test_a_gpu_that_computes_nothing(machine, monkeypatch: pytest.MonkeyPatch):
    def ones(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")

    machine(1, "Tesla K80", (3, 7))
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(ConfigError, match=r"Tesla K80 cannot be used .*no kernel image.*device\)") as refused:
        find_device(TrainerConfig())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("text", "version"), [(OPEN, "580.65.06"), (CLOSED, "535.183.01")])
def test_the_drivers_version(text: str, version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert driver_version() == version


def test_the_drivers_version_where_only_its_program_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read_text(*_: object, **__: object) -> str:
        raise FileNotFoundError

    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 550.90.07\necho 550.90.07\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(Path, "read_text", read_text)
    assert driver_version() == "550.90.07"
    driver_version.cache_clear()
    program.write_text("#!/bin/sh\nexit 9\n")
    assert driver_version() is None
