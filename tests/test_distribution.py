"""What is built from the checkout: the sdist holds everything, and the wheel made from it works elsewhere."""

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINKED = ("configs", "readers", "representations", "writers")


@dataclass(frozen=True)
class Built:
    """The two files that a release consists of."""

    sdist: Path
    wheel: Path

    def sdist_files(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.split("/", 1)[1] for name in archive.getnames()}

    def wheel_files(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


def _build(source: Path, target: Path, *options: str) -> list[Path]:
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted(target.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An sdist of the checkout, and a wheel made from that sdist."""
    wheel, sdist = _build(ROOT, tmp_path_factory.mktemp("dist"))
    return Built(sdist, wheel)


def _package_files() -> set[str]:
    """Every file of the package, those behind its links too, as `vrekit/…`."""
    found = set()
    for folder, _, names in os.walk(ROOT / "vrekit", followlinks=True):
        if "__pycache__" not in folder:
            found |= {(Path(folder) / name).relative_to(ROOT).as_posix() for name in names}
    return found


def test_the_wheel_holds_the_package(built: Built) -> None:
    packed = {name for name in built.wheel_files() if not name.startswith(f"vrekit-{_version()}.dist-info/")}
    assert packed == _package_files()
    assert {"vrekit/configs/quickstart.yaml", "vrekit/py.typed", "vrekit/writers/webdataset/writer.py"} <= packed


def test_the_checkout_and_the_sdist_give_the_same_wheel(built: Built, tmp_path: Path) -> None:
    (wheel,) = _build(ROOT, tmp_path, "--wheel")
    assert wheel.read_bytes() == built.wheel.read_bytes()


def test_the_sdist_holds_what_the_tests_need(built: Built) -> None:
    packed = built.sdist_files()
    assert _package_files() <= packed
    assert {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "tests/conftest.py", "docs/cli.md"} <= packed
    assert not {name for name in packed if name.startswith(tuple(f"{folder}/" for folder in LINKED))}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_the_sdist_holds_every_file_of_git(built: Built) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = set(listed.splitlines()) - {f"vrekit/{folder}" for folder in LINKED}
    tracked = {f"vrekit/{name}" if name.startswith(LINKED) else name for name in tracked if (ROOT / name).exists()}
    assert tracked <= built.sdist_files()


def _version() -> str:
    (version,) = re.findall(r'__version__ = "(.+)"', (ROOT / "vrekit" / "__init__.py").read_text(encoding="utf-8"))
    return str(version)


def test_the_metadata_is_valid(built: Built) -> None:
    from packaging.metadata import Metadata

    with zipfile.ZipFile(built.wheel) as archive:
        raw = archive.read(f"vrekit-{_version()}.dist-info/METADATA")
    metadata = Metadata.from_email(raw, validate=True)
    assert (metadata.name, str(metadata.version)) == ("vrekit", _version())
    assert metadata.description_content_type == "text/markdown"
    assert "# vrekit" in message_from_bytes(raw).get_payload()
    assert metadata.license_expression == "Apache-2.0"
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in (metadata.classifiers or [])


READ = """
import json, sys
from vrekit.readers import FrameDataset
sample = FrameDataset("out")[3]
files = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "vrekit"}
print(json.dumps({"shapes": {name: list(sample[name].shape) for name in ("rgb", "canny", "flow")}, "files": files}))
"""


@pytest.mark.slow
def test_the_wheel_works_elsewhere(built: Built, tmp_path: Path, clip_array: NDArray[np.uint8]) -> None:
    """Installed beside the environment's packages, it exports and reads without a file of the checkout."""
    target, work = tmp_path / "installed", tmp_path / "work"
    install = [
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--quiet",
        "--target",
        str(target),
        str(built.wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    work.mkdir()
    np.save(work / "square.npy", clip_array[:10])

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, *arguments]
        result = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    vrekit = str(target / "bin" / "vrekit")
    assert "quickstart" in run(vrekit, "list", "configs")
    run(vrekit, "export", "square.npy", "-o", "out", "--config", "quickstart", "--no-progress")
    read = json.loads(run("-c", READ))
    assert read["shapes"] == {"rgb": [32, 48, 3], "canny": [32, 48], "flow": [32, 48, 2]}
    outside = {name: file for name, file in read["files"].items() if not Path(file).is_relative_to(target)}
    assert not outside


IMPORT_NAMES = {  # of distributions whose module has another name
    "cv2": "opencv-python-headless",
    "lance": "pylance",
    "PIL": "pillow",
    "pydantic_core": "pydantic",  # always installed with it, and never without
    "yaml": "pyyaml",
}
DECLARED_FOR_USERS = {"webdataset"}  # docs/reading.md reads datasets with it


def _imported() -> set[str]:
    modules: set[str] = set()
    for name in _package_files():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    modules.add((node.module or "").split(".")[0])
                elif isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
    return {IMPORT_NAMES.get(module, module) for module in modules - sys.stdlib_module_names - {"vrekit"}}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    extras = [one for name, some in PROJECT["optional-dependencies"].items() if name != "dev" for one in some]
    declared = {re.split(r"[^\w.-]", requirement)[0] for requirement in [*PROJECT["dependencies"], *extras]}
    assert declared - DECLARED_FOR_USERS == _imported()
