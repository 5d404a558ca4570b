"""A small network, plain or with compiled parts."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Two layers, the first frozen in eval mode."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), nn.Linear(2, 3)
        self.first.eval()

    def forward(self, x, *, scale=1.0):
        return {"out": [self.second(self.first(x)) * scale]}


def compiled(what: str) -> nn.Module:
    net = Net().eval()
    if what == "whole":
        net = torch.compile(net, backend="eager")
    elif what == "in place":
        net.compile(backend="eager")
    elif what == "holder of a recorded part":
        net.first = torch.compile(net.first, backend="eager")
    elif what == "another part":
        net.second = torch.compile(net.second, backend="eager")
    with torch.no_grad():
        net(torch.zeros(1, 2))  # hooks that come after the first compiled call are not seen
    return net
