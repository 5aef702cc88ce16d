"""Complete small runs on a CPU: resume, two processes, distillation, loss balancing."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import RGB, Multiclass, Multilabel, Regression
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import Distillation, TaughtBy, TrainingStage, load_config
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataloader import Loader, draw_epoch
from spatialnet_training.data.datasets import TrainingData, load_published, load_split, load_unlabelled, published_heads
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.distillation.teachers import Teacher
from spatialnet_training.loop.licensing import licence
from spatialnet_training.loop.prediction import predict
from spatialnet_training.loop.run_inputs import load_teacher, stored_side
from spatialnet_training.loop.trainer import Trainer
from spatialnet_training.loop.training_run import train
from spatialnet_training.loop.watcher import Watcher
from spatialnet_training.losses.multitask import UNLABELLED
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.checkpoint_paths import is_checkpoint, located
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.plots import read_log
from training_fixtures import TINY_RUN, own_images

TAXONOMY = load_taxonomy()
SHIPPED = ("distillation", "folder", "folder-s", "robust", "spatialnet-ms", "spatialnet-vit", "student", "teacher")


@pytest.fixture(scope="module")
def data(data_root: Path) -> TrainingData:
    return load_published({name: data_root / file for name, file in TINY_RUN.data.items()}, 64)


@pytest.fixture(scope="module")
def teacher(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY_RUN, data, tmp_path_factory.mktemp("teacher"), "test")


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_network(path)[0].state_dict().values() for path in (a, b))
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_sampling_gives_small_sets_their_share(data_root: Path) -> None:
    samples = load_split({name: data_root / file for name, file in TINY_RUN.data.items()}, TAXONOMY, "train", 32)
    shares = {}
    for power in (0.0, 0.6, 1.0):
        drawn = draw_epoch(samples.data_set, 2, 1000, power, np.random.default_rng(0))
        shares[power] = float((samples.data_set[drawn] == 1).mean())
        assert len(drawn) == 1000
    assert shares[0.0] == pytest.approx(0.5, abs=0.01)
    assert shares[1.0] == pytest.approx((samples.data_set == 1).mean(), abs=0.01)
    assert shares[1.0] < shares[0.6] < shares[0.0]


@pytest.mark.parametrize("count", [9600, 12800, 15360, 20000])
def test_an_epoch_has_the_requested_number_of_images(count: int) -> None:
    """A shorter epoch would have an incomplete last batch, after minutes of training."""
    sizes = (15395, 1200, 1584, 1830)  # the published data sets
    for power in (0.0, 0.3, 0.4, 0.45, 0.6, 1.0):
        drawn = draw_epoch(np.repeat(np.arange(4), sizes), 4, count, power, np.random.default_rng(0))
        assert len(drawn) == count
        assert drawn.max() < sum(sizes)


def test_two_processes_see_the_halves_of_the_same_batches(data: TrainingData) -> None:
    config = replace(
        TINY_RUN, stages=(TrainingStage(size=32, epochs=1, mixup_share=0.5, cutmix_share=0.5),), group_dropout=0.3
    )
    whole = Loader(config, data.train).epoch(0)
    halves = zip(*(Loader(config, data.train, rank=rank, processes=2).epoch(0) for rank in (0, 1)), strict=True)
    for batch, (first, second) in zip(whole, halves, strict=True):
        assert torch.equal(batch.x, torch.cat([first.x, second.x]))
        assert batch.mix == first.mix == second.mix is not None
        for head, target in batch.targets.items():
            assert torch.equal(target, torch.cat([first.targets[head], second.targets[head]]))


def test_a_run_interrupted_and_resumed_is_the_same_bit_for_bit(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    class Interrupt(Watcher):
        def epoch(self, figures: dict[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY_RUN, data, tmp_path / "parts", "test", Interrupt())
    (tmp_path / "parts" / "log.csv").unlink()  # as a kill between the two would leave it
    again = train(TINY_RUN, data, tmp_path / "parts", "test")
    assert same_weights(again, teacher)
    assert [row["epoch"] for row in read_log(again.parent / "log.csv")] == [1, 2]
    _, spec, provenance = load_network(again)
    assert spec == load_network(teacher)[1]
    assert provenance.data[0].startswith("eurosat: ")
    assert provenance.source == "from scratch"
    assert spec.input.shape == (48, 48, 3)
    assert [head.name for head in spec.heads] == [head.name for head in published_heads(TAXONOMY, ("eurosat", "ucmerced"))]
    kinds = {"objects": Multilabel, "object_kinds": Regression}
    assert all(isinstance(head, kinds.get(head.name, Multiclass)) for head in spec.heads)


def test_another_run_does_not_resume_from_the_checkpoint(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    """Otherwise it would end at once, and its record would list images that were not used."""
    out = teacher.parent
    before = (out / "last.ckpt").read_bytes()
    with pytest.raises(
        UsageError, match='another \'backbone\': "student-1m" in the folder, "student-2m" now; name another folder'
    ):
        train(replace(TINY_RUN, backbone="student-2m"), data, out, "test")
    with pytest.raises(UsageError, match="another 'start': \"\" in the folder, "):
        train(replace(TINY_RUN, start=str(teacher)), data, out, "test")
    fewer = dataclasses.replace(data, train=data.train.subset(range(len(data.train) - 1)))
    with pytest.raises(UsageError, match=r"another 'data': .\"eurosat: "):
        train(TINY_RUN, fewer, out, "test")
    corrected = {name: values.copy() for name, values in data.train.targets.items()}
    corrected["land_use"][0] += 1
    mended = dataclasses.replace(data, train=dataclasses.replace(data.train, targets=corrected))
    with pytest.raises(UsageError, match="another 'labels'"):
        train(TINY_RUN, mended, out, "test")
    with pytest.raises(UsageError, match="another 'learning_rate'"):
        train(replace(TINY_RUN, learning_rate=1.0), data, out, "test")
    gentler = tuple(replace(stage, augmentation=0.125) for stage in TINY_RUN.stages)
    with pytest.raises(UsageError, match="another 'stages'"):
        train(replace(TINY_RUN, stages=gentler), data, out, "test")
    assert (out / "last.ckpt").read_bytes() == before
    longer = replace(TINY_RUN, stages=(*TINY_RUN.stages, replace(TINY_RUN.stages[-1], epochs=1)))
    shutil.copytree(out, tmp_path / "longer")
    train(longer, data, tmp_path / "longer", "test")
    assert len(read_log(tmp_path / "longer" / "log.csv")) == longer.epochs


def test_resuming_after_the_first_epoch_changes_nothing(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    class StopAfterSaving(Watcher):
        def steps(self, epoch: int, count: int):  # type: ignore[no-untyped-def]
            if epoch == 1 and not (tmp_path / "second").exists():
                raise KeyboardInterrupt
            return super().steps(epoch, count)

    with pytest.raises(KeyboardInterrupt):
        train(TINY_RUN, data, tmp_path / "parts", "test", StopAfterSaving())
    assert (tmp_path / "parts" / "last.ckpt").exists()
    assert same_weights(train(TINY_RUN, data, tmp_path / "parts", "test"), teacher)
    assert [row["epoch"] for row in read_log(tmp_path / "parts" / "log.csv")] == [1, 2]


TWO_PROCESSES = """
import sys
from pathlib import Path
import msgspec, torch
from spatialnet_training.config import TrainConfig, TrainingStage
from spatialnet_training.data.datasets import load_published
from spatialnet_training.loop.training_run import train
torch.set_num_threads(1)
root, out, balance = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
config = TrainConfig(name="two", backbone="timm:vit_tiny_patch16_224", data={"eurosat": "eurosat.zip", "ucmerced":
"ucmerced.zip"},
    stages=(TrainingStage(size=32, epochs=1, cutmix_share=0.3),), epoch_images=32, batch=8, learning_rate=1e-4, balance=balance)
train(config, load_published({n: root / f for n, f in config.data.items()}, 32), out, "test")
"""


@pytest.mark.parametrize("balance", ["uncertainty", "pcgrad"])
def test_two_processes_learn_what_one_does(data_root: Path, tmp_path: Path, balance: str) -> None:
    """A plain ViT has no batch statistics, so the sums are the same but for their order."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {key: value for key, value in os.environ.items() if key != "WORLD_SIZE"} | {"OMP_NUM_THREADS": "1"}
    arguments = [str(script), str(data_root)]
    subprocess.run([sys.executable, *arguments, str(tmp_path / "one"), balance], check=True, env=environment)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    subprocess.run([*launcher, *arguments, str(tmp_path / "two"), balance], check=True, env=environment, timeout=200)
    one, two = (load_network(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=2e-5, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}")
    assert len((tmp_path / "two" / "log.csv").read_text().splitlines()) == 2


def test_training_learns(data_root: Path) -> None:
    """A few images of EuroSAT are learned within seconds: loop, loss and averaged weights work together."""
    samples = load_split({"eurosat": data_root / "eurosat.zip"}, TAXONOMY, "train", 64).subset(range(0, 200, 3))
    config = replace(TINY_RUN, stages=(TrainingStage(size=32, epochs=12),), epoch_images=64, mixup_share=0.0, ema_decay=0.8)
    torch.manual_seed(0)
    outputs = {head.name: head.width for head in published_heads(TAXONOMY, ("eurosat",))}
    trainer = Trainer(config, SpatialNet(config.backbone, outputs, 32), samples)
    losses = [trainer.train_epoch()["loss"] for _ in range(config.epochs)]
    assert losses[-1] < 0.75 * losses[0]
    answers = predict(trainer.averaged.module, samples, 32)["land_use_eurosat"].argmax(1).numpy()
    assert (answers == samples.targets["land_use_eurosat"]).mean() > 0.4  # chance is 0.1 to 0.2
    assert math.isclose(trainer.rate(), 0, abs_tol=1e-9)


def agreement(student: Path, teacher: Path, data: TrainingData) -> float:
    answers = [predict(load_network(path)[0], data.train, 48)["land_use"].softmax(1) for path in (student, teacher)]
    return float((answers[0] - answers[1]).abs().sum(1).mean())


def test_a_student_becomes_like_its_teachers_without_any_label(
    data: TrainingData, data_root: Path, teacher: Path, tmp_path: Path
) -> None:
    """Only soft labels, half of the images from an unlabelled folder, and the same teacher twice."""
    base = replace(
        TINY_RUN, seed=5, stages=(TrainingStage(size=48, epochs=6),), mixup_share=0.0, ema_decay=0.8, learning_rate=3e-3
    )
    settings = Distillation(
        teachers=(str(teacher), str(teacher)), share=1.0, relations=10.0, other_heads_weight=1.0,
        unlabelled=str(data_root / "ucmerced.zip"), unlabelled_terms="somebody's (CC-0)", unlabelled_share=0.5, unlabelled_tile=32,
    )  # fmt: skip
    started = replace(base, distillation=settings, weights_terms="begun with mine (MIT)")
    taught = train(started, data, tmp_path / "taught", "test")
    alone = train(base, data, tmp_path / "alone", "test")
    assert agreement(taught, teacher, data) < 0.5 * agreement(alone, teacher, data)
    origin = load_network(taught)[2]
    assert "distilled from" in origin.source
    tiles = load_unlabelled(data_root / "ucmerced.zip", 64, tile=32)
    assert f"ucmerced: {len(tiles)} unlabelled" in origin.data
    assert origin.licence == licence(data.grant, [*data.terms, "somebody's (CC-0)", "begun with mine (MIT)"])
    train(replace(started, weights_terms="begun with theirs (MIT)"), data, tmp_path / "taught", "test")  # is done at once
    assert load_network(taught)[2].licence.endswith(", begun with theirs (MIT)")


def test_a_network_inherits_the_licence_terms_of_its_start(
    data: TrainingData, data_root: Path, teacher: Path, tmp_path: Path
) -> None:
    """A user's own network inherits the licence terms of the shipped one."""
    own = load_own(own_images(tmp_path, broken=False), 64)
    config = replace(
        TINY_RUN, start=str(teacher), weights_terms="begun with mine (MIT)", stages=(TrainingStage(size=48, epochs=1),)
    )
    once = train(config, own, tmp_path / "once", "test")
    assert load_network(once)[2].licence == (
        "as given by the owner of the images; trained on mine (yours), begun with mine (MIT), EuroSAT (MIT), UC Merced "
        "(public domain)"
    )
    again = train(replace(config, start=str(once), weights_terms=""), data, tmp_path / "again", "test")
    assert load_network(again)[2].licence == (
        "Apache-2.0; trained on EuroSAT (MIT), UC Merced (public domain), mine (yours), begun with mine (MIT)"
    )
    with pytest.raises(UsageError, match=r"nowhere: no such checkpoint.*shipped one .*spatialnet-m.*--start scratch"):
        train(replace(config, start="nowhere"), data, tmp_path / "nowhere", "test")


def test_a_teacher_sees_its_students_views_at_its_own_size(data: TrainingData, teacher: Path) -> None:
    settings = Distillation(teachers=(str(teacher),))
    stages = (TrainingStage(size=32, epochs=1),)
    config = replace(TINY_RUN, distillation=settings, stages=stages, epoch_images=64, images_on_device=True)
    tutor, _, _ = load_network(teacher)
    student = SpatialNet(config.backbone, {head.name: head.width for head in data.heads}, 32)
    seen: list[torch.Tensor] = []
    trainer = Trainer(config, student, data.train, [Teacher(tutor, 64)])
    for network in (student, tutor):
        network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    trainer.train_epoch()
    for small, large in zip(seen[::2], seen[1::2], strict=True):
        assert (small.shape[-1], large.shape[-1]) == (32, 64)
        difference = small - torch.nn.functional.avg_pool2d(large, 2)
        assert difference.abs().mean() < 0.1 * large.std()  # the same view, colour, rectangle and mixture
    assert stored_side(config) == 128
    assert stored_side(replace(config, stored_side=160)) == 160
    assert load_teacher(TaughtBy(str(teacher)), data, (RGB,)).size == 48  # as its run's last stage
    enlarged = TaughtBy(str(teacher), size=192)
    assert load_teacher(enlarged, data, (RGB,)).size == 192
    assert stored_side(replace(config, distillation=Distillation(teachers=(enlarged,)))) == 192


def test_expected_counts_follow_the_labels(data: TrainingData, tmp_path: Path) -> None:
    """The object head is fixed to predict nothing; so the count is learned from unlabelled images."""
    only = {head.name: 0.0 for head in data.heads} | {"object_kinds": 1.0}
    config = replace(
        TINY_RUN, head_weights=only, adapt="probe", mixup_share=0.0, learning_rate=0.1, weight_decay=0.0, ema_decay=0.5,
        counts={"object_kinds": "objects"},
    )  # fmt: skip
    torch.manual_seed(0)
    network = SpatialNet(config.backbone, {head.name: head.width for head in data.heads}, 32)
    with torch.no_grad():
        for parameter in network.heads["objects"].parameters():
            parameter.zero_()
        list(network.heads["objects"].parameters())[-1].fill_(-9.0)
    uncounted = {name: np.full_like(values, UNLABELLED) for name, values in data.train.targets.items()}
    samples = dataclasses.replace(data.train, targets=uncounted)
    trainer = Trainer(config, network, samples)
    for _ in range(config.epochs):
        trainer.train_epoch()
    said = predict(trainer.network, data.holdout, 32)
    assert said["object_kinds"].sigmoid().max() < 0.1
    assert said["objects"].sigmoid().max() < 0.001  # the counted labels get no gradient from it
    for wrong in ({"object_kinds": "land_use"}, {"settlement": "objects"}, {"ships": "objects"}):
        with pytest.raises(UsageError, match=r"cannot count .*; this run's heads are land_use, "):
            train(replace(config, counts=wrong), data, tmp_path, "test")


def test_the_device_cache_gives_the_same_batches(data: TrainingData, data_root: Path) -> None:
    settings = Distillation(teachers=("unused",), unlabelled_share=0.5)
    config = replace(TINY_RUN, cutmix_share=0.5, distillation=settings)
    unlabelled = load_unlabelled(data_root / "ucmerced.zip", 64)
    host = Loader(config, data.train, unlabelled).epoch(0)
    device = Loader(replace(config, images_on_device=True), data.train, unlabelled, device=torch.device("cpu")).epoch(0)
    for a, b in zip(host, device, strict=True):
        assert a.mix == b.mix
        assert all(torch.equal(a.targets[head], b.targets[head]) for head in a.targets)
        assert (a.x - b.x).abs().mean() < 0.02


def test_a_student_may_teach_itself(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    config = replace(TINY_RUN, distillation=Distillation(teachers=("self",), share=0.5))
    network = train(config, data, tmp_path, "test")
    assert load_network(network)[2].source == "from scratch, distilled from itself"
    assert not same_weights(network, teacher)


def test_a_teacher_of_one_data_set_teaches_a_student_of_two(data: TrainingData, data_root: Path, tmp_path: Path) -> None:
    """It does not have the other data set's head, and its own would be wrong there."""
    one_set = load_published({"ucmerced": data_root / "ucmerced.zip"}, 64)
    assert (one_set.grant, one_set.terms) == ("Apache-2.0", ("UC Merced (public domain)",))
    teacher = train(replace(TINY_RUN, data={"ucmerced": "ucmerced.zip"}), one_set, tmp_path / "teacher", "test")
    told = ("self", TaughtBy(str(teacher), datasets=("ucmerced",), weight=2.0))
    settings = Distillation(teachers=told, relations=1.0, unlabelled_terms="of pictures that are not there")
    taught = train(replace(TINY_RUN, distillation=settings), data, tmp_path / "taught", "test")
    origin = load_network(taught)[2]
    assert origin.source == "from scratch, distilled from itself, teacher (of ucmerced)"
    assert origin.licence == licence(data.grant, data.terms)
    wrong = Distillation(teachers=(TaughtBy(str(teacher), datasets=("mars",)),))
    with pytest.raises(UsageError, match="its data set 'mars'"):
        train(replace(TINY_RUN, distillation=wrong), data, tmp_path / "wrong", "test")


def test_a_teacher_of_other_labels_is_refused(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    config = replace(TINY_RUN, distillation=Distillation(teachers=(str(teacher),)))
    reordered = replace(data.heads[0], labels=tuple(reversed(data.heads[0].labels)))
    other = TrainingData((reordered, *data.heads[1:]), data.train, data.holdout, "", ())
    with pytest.raises(UsageError, match="its labels of 'land_use' are not the student's"):
        train(config, other, tmp_path, "test")
    mine = TrainingData((Multiclass(name="mine", labels=("a", "b")),), data.train, data.holdout, "", ())
    with pytest.raises(UsageError, match=r"teaches land_use, .*; the student learns mine"):
        train(config, mine, tmp_path, "test")


@pytest.mark.parametrize("balance", ["uncertainty", "pcgrad"])
def test_other_balances_of_the_tasks_learn_too(data: TrainingData, balance: str) -> None:
    config = replace(TINY_RUN, balance=balance, stages=(TrainingStage(size=32, epochs=4),), mixup_share=0.0)
    torch.manual_seed(0)
    trainer = Trainer(config, SpatialNet(config.backbone, {t.name: t.width for t in data.heads}, 32), data.train)
    losses = [trainer.train_epoch()["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert bool((trainer.log_variances != 0).any()) == (balance == "uncertainty")


def test_a_frozen_backbone_does_not_change(data: TrainingData, teacher: Path, tmp_path: Path) -> None:
    config = replace(TINY_RUN, adapt="frozen", seed=9, start=str(teacher))
    network = load_network(train(config, data, tmp_path, "test"))[0].state_dict()
    for name, value in load_network(teacher)[0].state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(network[name], value), name
    assert not torch.equal(network["heads.land_use.weight"], load_network(teacher)[0].state_dict()["heads.land_use.weight"])


def test_a_missing_modality_is_learnt_and_survives_the_checkpoint(data_root: Path, tmp_path: Path) -> None:
    groups = ("rgb", "synthetic_thermal")
    config = replace(TINY_RUN, groups=groups, group_dropout=0.3, data={"eurosat": "eurosat.zip"})
    from spatialnet_training.data.bands import groups_named

    two = load_published({"eurosat": data_root / "eurosat.zip"}, 64, groups_named(groups))
    assert two.train.images[0].shape[2] == 4
    plain, degraded = (next(Loader(replace(config, degraded_share=share), two.train).epoch(0)).x for share in (0.0, 1.0))
    changed = (plain != degraded).flatten(2).any(dim=2)
    assert changed[:, :3].any()
    assert not changed[:, 3].any()  # a measured band stays as it is
    network, spec, _ = load_network(train(config, two, tmp_path, "test"))
    assert spec.input.channels == 4
    assert float(network.backbone.embedding.absent.detach().abs().sum()) > 0


def test_a_configuration_is_checked_before_anything_is_loaded(data: TrainingData, tmp_path: Path) -> None:
    text = 'name = "x"\nbackbone = "student-2m"\nstages = [{ size = 32, epochs = 1 }]\nlerning_rate = 1\n[data]\n'
    (tmp_path / "typo.toml").write_text(text)
    with pytest.raises(UsageError, match="lerning_rate"):
        read_config(str(tmp_path / "typo.toml"))
    (tmp_path / "odd.toml").write_text(text.replace("lerning_rate = 1", "batch = 33"))
    with pytest.raises(UsageError, match="give an even number"):
        read_config(str(tmp_path / "odd.toml"))
    (tmp_path / "size.toml").write_text(text.replace("size = 32", "size = 40").replace("lerning_rate", "learning_rate"))
    with pytest.raises(UsageError, match="give a multiple of 16"):
        read_config(str(tmp_path / "size.toml"))
    radar = "learning_rate = 1\ngroups = ['sar']\ndegraded_share = 0.5"
    (tmp_path / "radar.toml").write_text(text.replace("lerning_rate = 1", radar))
    with pytest.raises(UsageError, match="degrades the group rgb, but groups are sar"):
        read_config(str(tmp_path / "radar.toml"))
    itself = 'learning_rate = 1\n[distillation]\nteachers = [{ checkpoint = "self", size = 64 }]'
    (tmp_path / "self.toml").write_text(text.replace("lerning_rate = 1", itself))
    with pytest.raises(UsageError, match="'self' has size 64; it gets the student's input"):
        read_config(str(tmp_path / "self.toml"))
    with pytest.raises(UsageError, match=r"shipped: .*student"):
        read_config("nowhere")
    with pytest.raises(UsageError, match="no preset 'huge'"):
        train(replace(TINY_RUN, backbone="huge"), data, tmp_path / "run", "")
    with pytest.raises(DataRefused, match="no such data set"):
        load_published({"eurosat": tmp_path / "nowhere.zip"}, 32)
    with pytest.raises(UsageError, match="no data set 'mars'"):
        load_published({"mars": tmp_path}, 32)


def test_the_command_line_overrides_any_key(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('name = "x"\nbackbone = "student-2m"\nstages = [{ size = 32, epochs = 1 }]\n[data]\n')
    teachers = 'distillation.teachers=["a.pt", { checkpoint = "b.pt", datasets = ["aid"], weight = 3.0 }]'
    overrides = ("seed=7", "backbone=timm:resnet18", "head_weights.objects = 2.5", teachers)
    config = load_config(tmp_path / "run.toml", overrides)
    assert (config.seed, config.backbone, config.head_weights) == (7, "timm:resnet18", {"objects": 2.5})
    assert config.distillation == Distillation(teachers=("a.pt", TaughtBy("b.pt", datasets=("aid",), weight=3.0)))
    assert [each.checkpoint for each in config.distillation.taught_by] == ["a.pt", "b.pt"]
    with pytest.raises(UsageError, match="give key=value"):
        load_config(tmp_path / "run.toml", ("seed",))
    with pytest.raises(ValueError, match="sneed"):
        load_config(tmp_path / "run.toml", ("sneed=1",))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_is_valid(name: str) -> None:
    config = read_config(name)
    assert config.epochs > 0
    taught_by = config.distillation.taught_by if config.distillation else ()
    for checkpoint in filter(None, (config.start, *(each.checkpoint for each in taught_by))):
        assert checkpoint.startswith("runs/") or is_checkpoint(located(checkpoint)), checkpoint


def test_every_shipped_configuration_is_in_the_list_above() -> None:
    import spatialnet_training

    folder = Path(spatialnet_training.__file__).parent / "configs"
    assert {path.stem for path in folder.glob("*.toml")} == set(SHIPPED)


def test_a_runs_card_says_what_it_reaches_and_how_it_was_made(teacher: Path) -> None:
    page = (teacher.parent / "card.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    for said in ("student-1m", "land_use_ucmerced", "seed", "epoch_images = 48", "cutmix_share = 0.5", "eurosat: "):
        assert said in page
    assert (teacher.parent / "curves.png").stat().st_size > 10_000
    assert (teacher.parent / "confusion.png").stat().st_size > 10_000
    assert "{{" not in page
    assert "http" not in page


def test_torchrun_starts_the_command_and_one_process_speaks(data_root: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "WORLD_SIZE"} | {"OMP_NUM_THREADS": "1"}
    small = [
        "stages=[{size=32, epochs=1}]",
        "epoch_images=16",
        "batch=8",
        'data={eurosat="eurosat.zip"}',
        "backbone=student-1m",
    ]
    overrides = [argument for each in small for argument in ("--set", each)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "spatialnet_edge"]
    arguments = [
        *launcher,
        "train",
        "--data-root",
        str(data_root),
        "--output",
        str(tmp_path / "run"),
        "--config",
        "studies/ablation",
        *overrides,
    ]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "run" / "model.safetensors")]
    assert done.stderr.count("training on eurosat") == 1
