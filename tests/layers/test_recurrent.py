from __future__ import annotations

import pytest
import torch

from specinspect.checkpoint.model import ModuleFacts
from tests.layers.build import by_name, find, headers, reasons, weight


def test_lstm_gates_reproduce_torch() -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, bias=False)
    state = module.state_dict()
    found = by_name(find(headers(module)))
    gates = {
        (which, gate): weight(found[f"weight_{which}_l0.{gate}"], state)
        for which in ("ih", "hh")
        for gate in "ifgo"
    }
    x, h, c = torch.randn(1, 3), torch.randn(1, 5), torch.randn(1, 5)
    i, f, g, o = (x @ gates["ih", gate].T + h @ gates["hh", gate].T for gate in "ifgo")
    after = f.sigmoid() * c + i.sigmoid() * g.tanh()
    out, _ = module(x[None], (h[None], c[None]))
    torch.testing.assert_close(out[0], o.sigmoid() * after.tanh())


def test_gru_gates_reproduce_torch() -> None:
    torch.manual_seed(0)
    module = torch.nn.GRUCell(3, 5, bias=False)
    state = module.state_dict()
    found = by_name(find(headers(module)))
    x, h = torch.randn(1, 3), torch.randn(1, 5)
    gx = {gate: x @ weight(found[f"weight_ih.{gate}"], state).T for gate in "rzn"}
    gh = {gate: h @ weight(found[f"weight_hh.{gate}"], state).T for gate in "rzn"}
    r, z = (gx["r"] + gh["r"]).sigmoid(), (gx["z"] + gh["z"]).sigmoid()
    torch.testing.assert_close(module(x, h), (1 - z) * (gx["n"] + r * gh["n"]).tanh() + z * h)


def test_bidirectional_lstm_with_projection() -> None:
    module = torch.nn.LSTM(6, 10, num_layers=2, bidirectional=True, proj_size=4, device="meta")
    found = find({f"rnn.{name}": header for name, header in headers(module).items()})
    layers = by_name(found)
    assert len(layers) == 4 * (4 + 4 + 1)
    assert {layer.kind for layer in found.layers} == {"recurrent"}
    assert layers["rnn.weight_ih_l1_reverse.o"].matrix_shape == (10, 8)
    assert layers["rnn.weight_hh_l0.i"].matrix_shape == (10, 4)
    assert layers["rnn.weight_hr_l1"].matrix_shape == (4, 10)
    assert layers["rnn.weight_hh_l0.i"].assumptions == (
        "taken as LSTM from its shapes, gates in torch's order",
    )
    assert reasons(found)["rnn.bias_ih_l0"] == "bias of rnn.weight_ih_l0"


def test_plain_rnn_is_one_map() -> None:
    found = find(headers(torch.nn.RNN(3, 5, device="meta")))
    assert [layer.matrix_shape for layer in found.layers] == [(5, 3), (5, 5)]


def test_the_type_decides_where_it_is_known() -> None:
    tensors = headers(torch.nn.GRU(3, 5, device="meta"))
    found = find(tensors, modules={"": ModuleFacts("GRU", {})})
    assert all(layer.assumptions == () for layer in found.layers)


@pytest.mark.parametrize("shape", [(7, 5), (25, 5)])
def test_odd_shapes_stay_whole(shape: tuple[int, int]) -> None:
    found = find({"r.weight_ih_l0": (shape[0], 3), "r.weight_hh_l0": shape})
    assert len(found.layers) == 2
    assert "gates not separated" in found.layers[1].assumptions[0]
