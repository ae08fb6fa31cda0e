import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, CodePrior, PixelModel
from keras_vqvae2.converters import convert_pytorch_vqvae2
from keras_vqvae2.converters.command import convert

torch = pytest.importorskip("torch")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_vqvae2.converters.command", *arguments],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_writes_a_preset_that_loads(golden, tmp_path):
    prefix = "state_dict."
    state = {
        key.removeprefix(prefix): value
        for key, value in golden("vqvae2_pytorch").items()
        if key.startswith(prefix)
    }
    torch.save(
        {"model": {f"module.{k}": torch.tensor(v) for k, v in state.items()}}, tmp_path / "a.pt"
    )
    preset = tmp_path / "preset"
    result = command(f"--checkpoint={tmp_path}/a.pt", f"--preset={preset}", "--image_size=64")
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout
    expected = convert_pytorch_vqvae2(state, (64, 64, 3)).get_weights()
    for a, b in zip(VQVAE2.from_preset(preset).get_weights(), expected):
        np.testing.assert_array_equal(a, b)


def test_the_network_is_told_by_its_keys(golden, tmp_path, monkeypatch, capsys):
    from safetensors.numpy import save_file

    files = {"llamagen_transformer": "state_dict.", "maskgit_transformer": "params."}
    files |= {"gated_pixelcnn_codes_pytorch": "state_dict."}
    for name, prefix in files.items():
        state = {
            key.removeprefix(prefix): value
            for key, value in golden(name).items()
            if key.startswith(prefix)
        }
        given = {"checkpoint": tmp_path / f"{name}.safetensors", "preset": tmp_path / name}
        given |= {"attention_heads": 4, "code_size": 4, "num_classes": 5}
        save_file(state, given["checkpoint"])
        monkeypatch.setattr("keras_vqvae2.converters.command.FLAGS", SimpleNamespace(**given))
        convert(None)
        prior = CodePrior.from_preset(tmp_path / name)
        assert type(prior).__name__ in capsys.readouterr().out and prior.code_shape == (4, 4)


def test_models_of_pixels_are_told_by_their_keys(golden, tmp_path, monkeypatch, capsys):
    from safetensors.numpy import save_file

    files = {"pixelcnnpp_pytorch": "state_dict.", "pixelcnnpp_tensorflow": "variables."}
    files |= {"pixelrnn_diagonal_bilstm_theano": "state_dict."}
    for name, prefix in files.items():
        data = golden(name)
        state = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
        given = {"checkpoint": tmp_path / f"{name}.safetensors", "preset": tmp_path / name}
        save_file(state, given["checkpoint"])
        given |= {"image_size": 8}
        monkeypatch.setattr("keras_vqvae2.converters.command.FLAGS", SimpleNamespace(**given))
        convert(None)
        model = PixelModel.from_preset(tmp_path / name)
        assert type(model).__name__ in capsys.readouterr().out and model.image_shape[0] == 8


def test_tokenizers_are_told_by_their_keys(tmp_path, monkeypatch):
    for prefix in ("encoder.down.0.block.0", "encoder.conv_blocks.0.res.0"):
        keys = (f"{prefix}.conv1.weight", "quantize.embedding.weight")
        torch.save({"state_dict": dict.fromkeys(keys, torch.ones(3))}, tmp_path / "last.ckpt")
        given = {"checkpoint": tmp_path / "last.ckpt", "preset": tmp_path / "preset"}
        given |= {"image_size": 8}
        monkeypatch.setattr("keras_vqvae2.converters.command.FLAGS", SimpleNamespace(**given))
        with pytest.raises(SystemExit, match=r"the keys \['encoder.conv_in.weight'\]"):
            convert(None)


def test_errors_are_one_sentence(tmp_path):
    result = command(f"--checkpoint={tmp_path}/nowhere.pt", f"--preset={tmp_path}/preset")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("keras-vqvae2-convert: Expected")
