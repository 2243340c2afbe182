"""One of several processes that train together; prints what it ended with."""

from __future__ import annotations

import json
import sys

import torch
from opacus.accountants import RDPAccountant
from torch import nn

from vault.twin.train import Descent, private_training


def main() -> None:
    """Join the group at a file, train on this process's own people, print parameters and epsilon."""
    meeting, rank, processes, noise = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    torch.set_num_threads(1)
    torch.manual_seed(5)
    x = torch.randn(60, 3, 4)
    x[7] *= 100.0  # somebody far above the clip
    if processes > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    torch.manual_seed(rank)  # so that the starts differ
    model = nn.Linear(4, 8)
    rate = 1.0 if noise < 1e-3 else 0.3
    descent = Descent(noise_multiplier=noise, sample_rate=rate, steps=5, clip=0.5, learning_rate=1.0)
    private_training(model, lambda m, p: m(p["x"]).square().mean((1, 2)), {"x": x[rank::processes]}, descent, 60.0)
    accountant = RDPAccountant()
    accountant.history.append((noise, rate, descent.steps))
    sys.stdout.write(
        json.dumps(
            {
                "parameters": [value.detach().flatten().tolist() for value in model.parameters()],
                "epsilon": float(accountant.get_epsilon(delta=1e-6)) if noise > 1e-3 else None,
            }
        )
    )
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
