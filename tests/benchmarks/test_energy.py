"""Energy measurement with simulated programs and files of devices."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from spatialnet_benchmarks import energy
from spatialnet_benchmarks.energy import BOARD_POWER, open_meters
from spatialnet_benchmarks.html_report import draw_energy
from spatialnet_training.plots import figure

ORIN = "01-01-2026 00:00:00 RAM 2448/7620MB CPU [0%@729] VDD_IN 4565mW/4560mW VDD_CPU_GPU_CV 1000mW/1000mW"


def test_nothing_measurable_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_meters() as meters:
        assert meters == []
    assert energy.gpu_memory_mb() is None


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages of which each counts up to 10 J; the core of one of them is no package."""
    for zone, microjoules in (("intel-rapl:0", 9_000_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 9)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("9999999\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    return tmp_path


def test_rapl_sums_its_packages_over_the_end_of_their_counters(packages: Path) -> None:
    meter = energy.Rapl()
    assert meter.joules() == 0
    (packages / "intel-rapl:0" / "energy_uj").write_text("1500000\n")
    (packages / "intel-rapl:1" / "energy_uj").write_text("2250000\n")
    assert meter.joules() == 2.75
    assert meter.joules() == 2.75


def test_a_frame_costs_what_the_meters_counted_meanwhile(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(packages))
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def work() -> int:
        counter = packages / "intel-rapl:1" / "energy_uj"
        counter.write_text(str(int(counter.read_text()) + 1_000))
        return 4

    assert energy.energy_a_frame(work, 0.05) == {energy.Rapl.of: pytest.approx(0.00025)}


def test_tegrastats_power_is_summed_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!{sys.executable}\nimport time\nwhile True: print('{ORIN}', flush=True); time.sleep(0.02)\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    meter = energy.Tegrastats()
    started, before = time.monotonic(), meter.joules()
    time.sleep(0.5)
    spent, seconds = meter.joules() - before, time.monotonic() - started
    meter.close()
    assert spent == pytest.approx(4.565 * seconds, rel=0.25)


@pytest.mark.parametrize(("line", "milliwatts"), [(ORIN, "4565"), ("POM_5V_IN 2532/2498 POM_5V_GPU 0/0", "2532")])
def test_both_spellings_of_the_rail_are_known(line: str, milliwatts: str) -> None:
    found = BOARD_POWER.search(line)
    assert found is not None
    assert found[1] == milliwatts


def test_a_single_rail_is_not_used_as_module_power() -> None:
    assert BOARD_POWER.search("VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 4230mW/4230mW") is None


def test_nvml_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = ModuleType("pynvml")
    nvml.__dict__.update(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda device: 12_500,
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=250_000_000),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert energy.Nvml().joules() == 12.5
    assert energy.gpu_memory_mb() == 250.0


def test_the_page_draws_a_bar_for_each_meter_or_says_that_there_is_none() -> None:
    pyplot, made, axes = figure(1, 2, (6, 3))
    draw_energy(axes[0, 0], {"the GPU's board (NVML)": 0.02, "the processor packages (RAPL)": 0.01})
    draw_energy(axes[0, 1], "not measurable on this computer")
    assert [bar.get_width() for bar in axes[0, 0].patches] == [0.02, 0.01]
    assert not axes[0, 1].patches
    assert axes[0, 1].texts[0].get_text() == "not measurable on this computer"
    pyplot.close(made)
