"""A flow whose parameters ranks share by `fully_shard`, and its distributed checkpoints.

As a program, for torchrun, it is given a folder for the checkpoints.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import kappaflow as kf

FULL = states.StateDictOptions(full_state_dict=True)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def flow(seed=0):
    """Returns a flow of float64 off its start."""
    torch.manual_seed(seed)
    built = kf.real_nvp(4, depth=5, hidden=(7,), partition="random").double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return built


def optimizer_of(module):
    """Returns an optimizer that decays matrices alone."""
    groups = [[p for p in module.parameters() if (p.ndim > 1) == decayed] for decayed in (0, 1)]
    return torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for group, decay in zip(groups, (0.0, 0.1), strict=True)
        ],
        lr=1e-2,
    )


def trained(module, rows, steps=3):
    """Returns the optimizer after some steps."""
    optimizer = optimizer_of(module)
    for _ in range(steps):
        optimizer.zero_grad()
        (-module(rows).mean()).backward()
        optimizer.step()
    return optimizer


def sharded(seed=0, *, by_layer=False):
    """Returns a flow whose parameters the ranks share; by layer, each layer is gathered alone."""
    built = flow(seed)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    if by_layer:
        for layer in built.bijection[1]:
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
    return fully_shard(built, mesh=mesh)


def check(folder):
    """Trains, saves and loads shared flows, and compares them with ordinary ones."""
    count, rank = dist.get_world_size(), dist.get_rank()
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(3)).double()
    alone = flow()
    expected = trained(alone, rows)
    for by_layer in (False, True):
        shared = sharded(by_layer=by_layer)
        assert all(isinstance(p, DTensor) for p in shared.parameters())
        optimizer = trained(shared, rows[rank::count])  # gradients are averaged over the ranks
        full = states.get_model_state_dict(shared, options=FULL)
        assert list(full) == list(alone.state_dict())
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(full[name], tensor, **EXACT, msg=name)
        torch.testing.assert_close(shared(rows), alone(rows), **EXACT)
        _check_checkpoint(folder / f"{by_layer}", shared, optimizer, alone, rows)
        # Averages by the names of the parameters, loaded into a shared flow.
        halved = {name: 0.5 * p.detach() for name, p in alone.named_parameters()}
        other = sharded(1, by_layer=by_layer)
        states.set_model_state_dict(other, {**full, **halved}, options=FULL)
        for p, q in zip(other.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p.full_tensor(), 0.5 * q)
    reference = states.get_optimizer_state_dict(alone, expected)["state"]
    result = states.get_optimizer_state_dict(shared, optimizer, options=FULL)["state"]
    assert result.keys() == reference.keys() == dict(alone.named_parameters()).keys()


def _check_checkpoint(path, shared, optimizer, alone, rows):
    """Saves a shared flow with its optimizer, and loads both into a shared and an ordinary one."""
    model, moments = states.get_state_dict(shared, optimizer)
    dcp.save({"model": model, "optimizer": moments}, checkpoint_id=path)
    for other in (sharded(2), flow(2)):
        theirs = trained(other, rows, 1)
        model, moments = states.get_state_dict(other, theirs)
        state = {"model": model, "optimizer": moments}
        dcp.load(state, checkpoint_id=path)
        states.set_state_dict(
            other, theirs, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        torch.testing.assert_close(other(rows), alone(rows), **EXACT)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    check(Path(sys.argv[1]))
    dist.destroy_process_group()
