"""Files that start several processes, and what a launcher must not change."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from popmargin.config import RunConfig
from popmargin.errors import ConfigError, RunError
from popmargin.training.arguments import training_arguments
from popmargin.training.divided import refuse_other_division
from popmargin.training.launch_files import launch_file, launch_files

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.parametrize("name", launch_files())
def test_launch_files_are_what_their_programs_read(name: str) -> None:
    file = launch_file(name)
    if file.suffix == ".yaml":
        read = load_config_from_file(str(file))  # refuses unknown keys
        assert read.mixed_precision == "no" and not read.use_cpu
        assert (read.fsdp_config or {}).get("fsdp_version", 2) == 2
        assert (read.distributed_type == "FSDP") == (name == "fsdp2.yaml")
    elif file.suffix == ".json":
        zero = json.loads(file.read_text())["zero_optimization"]
        assert zero["stage"] == int(name[4])
        assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (zero["stage"] == 3)
    else:
        subprocess.run(["bash", "-n", str(file)], check=True)
    assert f"--launch-file {name}" in PAGE.read_text()


def test_an_unknown_launch_file_is_told_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"no launch file 'fsdp.yaml'.*fsdp2\.yaml"):
        launch_file("fsdp.yaml")


def test_a_precision_of_accelerate_alone_is_refused(
    tmp_path: Path, configure: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy would be rounded to bf16 and its reference not: its reward would not begin at zero."""
    settings = configure().train
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match=r"mixed_precision is bf16.*model\.precision"):
        training_arguments(settings, 0, tmp_path)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert training_arguments(settings, 0, tmp_path).seed == 0


def trainer_of(*, fsdp: bool = False, zero: bool = True, optim: str = "adamw_torch", **config: Any) -> Any:
    """What is asked of the trainer of two processes."""
    return SimpleNamespace(
        is_fsdp_enabled=fsdp,
        is_deepspeed_enabled=zero,
        args=SimpleNamespace(world_size=2, optim=optim),
        accelerator=SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))),
    )


@pytest.mark.parametrize(
    "files, fsdp, zero, said",
    [
        (["pytorch_model_fsdp.bin"], True, False, None),
        (["pytorch_model_fsdp_0/.metadata"], False, False, "with FSDP, and this one is with whole weights"),
        (["model.safetensors"], True, False, "with whole weights, and this one is with FSDP"),
        (["model.safetensors"], False, False, None),
        ([f"global_step2/bf16_zero_pp_rank_{n}_mp_rank_00_optim_states.pt" for n in (0, 1)], False, True, None),
        ([f"global_step2/zero_pp_rank_{n}_mp_rank_00_optim_states.pt" for n in (0, 1, 2)], False, True, None),
    ],
)
def test_a_checkpoint_of_another_kind_of_sharding_is_refused(
    tmp_path: Path, files: list[str], fsdp: bool, zero: bool, said: str | None
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    trainer = trainer_of(fsdp=fsdp, zero=zero)
    if said is None:
        refuse_other_division(trainer, tmp_path)
    else:
        with pytest.raises(RunError, match=said):
            refuse_other_division(trainer, tmp_path)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"optim": "adamw_bnb_8bit"}, "with the optimizer adamw_bnb_8bit DeepSpeed cannot give them to 2"),
        ({"optimizer": {"type": "Lion"}}, "an optimizer of its own configuration"),
        ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, "offloaded to NVMe"),
    ],
)
def test_optimizer_states_that_cannot_move_to_other_processes(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """DeepSpeed would stop with a KeyError, or go on with states of zero."""
    folder = tmp_path / "global_step2"
    folder.mkdir()
    (folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    with pytest.raises(RunError, match=rf"in parts of 1 process, .*{said}.* Go on with 1"):
        refuse_other_division(trainer_of(**changes), tmp_path)
    (folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt").touch()
    refuse_other_division(trainer_of(**changes), tmp_path)
