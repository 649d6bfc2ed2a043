"""Random weights as files: what is read from them is what the random model has."""

from pathlib import Path

import pytest
import torch

from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.synthetic.random_file import Numbers, RandomFile
from entracte.synthetic.random_files import write_random_model, write_tensors
from entracte.synthetic.random_model import random_model


def test_a_file_has_what_was_written(tmp_path: Path) -> None:
    shapes = {"a.weight": (3, 5), "b.bias": (7,), "c.norm": (4,)}
    random = RandomFile(tmp_path / "none", shapes, Numbers(), {"sizes": [1]}, {"version": "2"})
    write_tensors(random, tmp_path / "random.safetensors")
    file = SafetensorsFile(tmp_path / "random.safetensors")
    assert dict(file.config) == {"sizes": [1]}
    assert file.metadata["version"] == "2"
    assert file.tensors.keys() == shapes.keys()
    for key in shapes:
        assert torch.equal(Located(file, key).tensor(), Located(random, key).tensor())


@pytest.mark.slow
def test_a_model_of_files_is_the_random_model(tmp_path: Path) -> None:
    write_random_model("medium", tmp_path / "files")
    found = open_model(str(tmp_path / "files"), ModelPaths(), distilled=False)
    random = random_model("medium", tmp_path / "none")
    assert found.distilled_lora is not None
    assert random.distilled_lora is not None
    assert found.distilled_lora[0].tensors.keys() == random.distilled_lora[0].tensors.keys()
    for name, component in random.components.items():
        tensors = found.components[name].tensors
        assert tensors.keys() == component.tensors.keys()
        for key, located in component.tensors.items():
            assert torch.equal(tensors[key].tensor(), located.tensor()), key
