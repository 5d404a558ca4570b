"""Which weights a model has, as a short string."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_variants import int8
from processes import Outcomes, values
from threads_as_ranks import as_ranks
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor  # the wrapping tensor that torch tests with

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import (
    extra_state_of,
    model_fingerprint,
    model_of_rank_zero,
    tensor_digest,
    weights_of,
)
from cval_torch.pool.ranks import Ranks


def test_batchnorm_statistics_are_rank_zeros_meanwhile_and_each_ones_own_afterwards(two: Outcomes) -> None:
    assert values(two, "other_batchnorm_statistics_are_rank_zeros_meanwhile") == [[True, True]] * 2


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1).half())


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_bit_of_any_tensor_changes_it(data: st.DataObject) -> None:
    model = net()
    before = model_fingerprint(model)
    assert re.fullmatch("[0-9a-f]{32}", before)
    tensors = [*model.parameters(), *model.buffers()]
    tensor = data.draw(st.sampled_from(tensors)).detach()
    numbers = tensor.view(-1).view(torch.uint8) if tensor.ndim else tensor.reshape(1).view(torch.uint8)
    place = data.draw(st.integers(0, len(numbers) - 1))
    numbers[place] ^= 1 << data.draw(st.integers(0, 7))
    assert model_fingerprint(model) != before
    model.load_state_dict(net().state_dict())
    assert model_fingerprint(model) == before


def test_names_shapes_and_precision_count_and_modes_do_not() -> None:
    model = net()
    before = model_fingerprint(model)
    assert model_fingerprint(net().eval().requires_grad_(False)) == before
    assert model_fingerprint(net().double()) != before
    renamed = nn.ModuleDict({"a": nn.Linear(2, 3)})
    assert model_fingerprint(renamed) != model_fingerprint(nn.ModuleDict({"b": renamed["a"]}))
    zeros = [nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)]
    for layer in zeros:
        nn.init.zeros_(layer.weight)
    assert model_fingerprint(zeros[0]) != model_fingerprint(zeros[1])


def test_strided_weights_are_their_numbers() -> None:
    model = nn.Linear(2, 3)
    other = nn.Linear(2, 3)
    other.weight.data = model.weight.detach().T.contiguous().T
    other.bias = model.bias
    assert not other.weight.is_contiguous()
    assert model_fingerprint(other) == model_fingerprint(model)


def test_packed_weights_extra_state_and_tied_weights_count() -> None:
    def packed(change: float) -> nn.Module:
        return int8(lambda head: head.fc6.weight[0, 0].add_(change))

    assert model_fingerprint(packed(0)) == model_fingerprint(packed(0))
    assert model_fingerprint(packed(0)) != model_fingerprint(packed(1))

    class WithExtra(nn.Module):
        def __init__(self, extra: torch.Tensor) -> None:
            super().__init__()
            self.extra = extra

        def get_extra_state(self) -> dict[str, list[torch.Tensor]]:
            return {"a": [self.extra]}

        def set_extra_state(self, state: object) -> None: ...

    assert weights_of(WithExtra(torch.zeros(2))).keys() == {"_extra_state['a'][0]"}
    assert model_fingerprint(WithExtra(torch.zeros(2))) != model_fingerprint(WithExtra(torch.ones(2)))
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert weights_of(tied).keys() == {"0.weight", "0.bias", "1.bias"}
    assert extra_state_of(tied) == {}


def test_a_state_dict_that_raises_is_no_error() -> None:
    model = nn.Linear(2, 2)

    def refuse(*_: object) -> None:
        raise RuntimeError("not to be saved")

    before = model_fingerprint(model)
    model.register_state_dict_pre_hook(refuse)
    assert model_fingerprint(model) == before


def test_compiled_parts_lazy_and_wrapping_tensors() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = model_fingerprint(plain)
    plain[0] = torch.compile(plain[0], backend="eager")
    assert model_fingerprint(plain) == before
    lazy = nn.LazyLinear(2)
    assert model_fingerprint(lazy) == model_fingerprint(nn.LazyLinear(2))
    wrapping = [TwoTensor(torch.ones(2), torch.full((2,), value)) for value in (1.0, 2.0, 2.0)]
    digests = [tensor_digest(each) for each in wrapping]
    assert digests[0] != digests[1] == digests[2]


@pytest.mark.parametrize("same", [True, False])
def test_buffers_are_rank_zeros_meanwhile(same: bool) -> None:
    """Each thread's model has means of its own; within the block they are rank 0's, and afterwards its own again."""

    models = [net() for _ in range(3)]  # not in the threads, which share one random state

    def work(ranks: Ranks) -> tuple[list[float], list[float]]:
        model = models[ranks.rank]
        model[1].running_mean.fill_(0 if same else ranks.rank + 1)
        with model_of_rank_zero(model, ranks, model_fingerprint):
            meanwhile = model[1].running_mean.tolist()
        return meanwhile, model[1].running_mean.tolist()

    outcomes = as_ranks(3, work)
    for rank, (meanwhile, afterwards) in enumerate(outcomes):
        assert meanwhile == [0.0 if same else 1.0] * 3
        assert afterwards == [0.0 if same else rank + 1.0] * 3


def test_other_weights_are_refused_and_buffers_put_back() -> None:
    kept: dict[int, float] = {}
    models = [net(), net()]

    def work(ranks: Ranks) -> None:
        model = models[ranks.rank]
        with torch.no_grad():
            model[0].bias.add_(ranks.rank)
        model[1].running_mean.fill_(ranks.rank + 1)
        try:
            with model_of_rank_zero(model, ranks, model_fingerprint):
                raise AssertionError("there is no one model")
        finally:
            kept[ranks.rank] = float(model[1].running_mean[0])

    for error in as_ranks(2, work):
        assert isinstance(error, InvalidInputError)
        assert "rank 1's model has other weights than rank 0's" in str(error)
    assert kept == {0: 1.0, 1: 2.0}


def test_one_process_looks_at_no_weight() -> None:
    def unasked(model: nn.Module) -> str:
        raise AssertionError

    with model_of_rank_zero(net(), Ranks(), unasked):
        pass
