"""Makes tests/checkpoints/golden/*.pt with PyTorch: python make_torch_files.py.

The same numbers in every file, so that what is read can be compared without PyTorch.
"""

import collections
import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parent / "golden"


class Config:
    """What a checkpoint of someone's holds beside the weights; it is not there when it is read."""

    def __init__(self):
        self.widths = (3, 4)


def state():
    grid = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    layers = collections.OrderedDict()
    layers["plain"] = grid + 0.5
    layers["transposed"] = grid.T
    layers["shared"] = layers["transposed"]
    layers["part"] = grid[1:, ::2]
    layers["parameter"] = torch.nn.Parameter(grid[0] * 2)
    layers["half"] = grid.half()
    layers["bfloat16"] = grid.bfloat16()
    layers["float8"] = grid.to(torch.float8_e4m3fn)
    layers["whole"] = grid.long()
    layers["flags"] = grid > 5
    layers["scalar"] = torch.tensor(7)
    layers["empty"] = torch.zeros(0, 3)
    layers["complex"] = torch.complex(grid, -grid)
    return layers


def main():
    plain = state()
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    torch.save(plain, GOLDEN / "state.pt")
    torch.save(plain, GOLDEN / "protocol4.pt", pickle_protocol=4)
    torch.save(
        {
            "epoch": 3,
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "config": Config(),
        },
        GOLDEN / "training.pt",
    )
    torch.save(model, GOLDEN / "module.pt")
    torch.save(plain, GOLDEN / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(model).save(GOLDEN / "script.pt")
    expected = {name: value.tolist() for name, value in model.state_dict().items()}
    torch.save(
        {"encoder": {"w": plain["plain"]}, "decoder": {"w": plain["half"]}}, GOLDEN / "nested.pt"
    )
    (GOLDEN / "training.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
