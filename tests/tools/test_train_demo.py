from pathlib import Path

import pytest

from tools.make_demo import DemoOptions, make_demo
from tools.train_demo import main
from vrekit.core.spec import RepresentationSpec
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    video = make_demo(folder, DemoOptions(seconds=0.8, fps=20, width=96, height=54, jobs=1, truth=False))
    representations = (
        RepresentationSpec(name="rgb", type="color/rgb"),
        RepresentationSpec(name="canny", type="edges/canny"),
    )
    export(ExportRequest(video=str(video), dataset=folder / "dataset", representations=representations))
    return folder / "dataset"


def test_the_loss_falls_across_a_restored_loader(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(dataset), "--steps", "12", "--batch-size", "5"]) == 0
    said = capsys.readouterr().out
    assert "step 6: loader state saved" in said
    before, after = said.splitlines()[-1].split(" in ")[0].removeprefix("loss ").split(" -> ")
    assert float(after) < float(before)


def test_a_batch_larger_than_the_dataset_is_refused(dataset: Path) -> None:
    with pytest.raises(SystemExit, match="fewer frames than one batch of 64"):
        main([str(dataset), "--steps", "10", "--batch-size", "64"])
