"""The downloaded network, rebuilt from its spec: python examples/load_model.py FOLDER [DATA_DIR]"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from cnn.models import build_network
from cnn.spec import TrainingSpec

folder, data_dir = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "epochd-data")
spec = TrainingSpec.model_validate_json((folder / "spec.json").read_bytes())
network = build_network(spec)
network.load_state_dict(load_file(folder / "model.safetensors"))
network.eval()

data = spec.dataset.load(data_dir)
with torch.inference_mode():
    predictions = torch.cat([network(images).argmax(1) for images in torch.from_numpy(data.test_images).split(500)])
print(int((predictions == torch.from_numpy(data.test_labels)).sum()) / len(predictions))
