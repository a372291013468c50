"""The vectorised recurrence against torch's own."""

from __future__ import annotations

import torch

from models.expert.recurrence import FeatureGru, _Recurrence


def _torch_gru(grus: FeatureGru, feature: int) -> torch.nn.GRU:
    gru = torch.nn.GRU(1, grus.weight_hidden.shape[1], batch_first=True).double()
    with torch.no_grad():
        gru.weight_ih_l0.copy_(grus.weight_input[feature].unsqueeze(1))
        gru.weight_hh_l0.copy_(grus.weight_hidden[feature].T)
        gru.bias_ih_l0.copy_(grus.bias_input[feature])
        gru.bias_hh_l0.copy_(grus.bias_hidden[feature])
    return gru


def test_each_feature_has_the_states_of_a_torch_gru_of_its_own() -> None:
    torch.manual_seed(0)
    grus, values = FeatureGru(3, 8).double(), torch.randn(4, 6, 3, dtype=torch.float64)
    states = grus(values)
    for feature in range(3):
        torch.testing.assert_close(states[feature], _torch_gru(grus, feature)(values[..., [feature]])[0])


def test_the_weights_get_the_gradients_that_torch_computes() -> None:
    torch.manual_seed(1)
    grus, values = FeatureGru(2, 5).double(), torch.randn(3, 4, 2, dtype=torch.float64)
    aim = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    (grus(values) * aim).sum().backward()
    for feature in range(2):
        gru = _torch_gru(grus, feature)
        (gru(values[..., [feature]])[0] * aim[feature]).sum().backward()
        torch.testing.assert_close(grus.weight_hidden.grad[feature], gru.weight_hh_l0.grad.T)
        torch.testing.assert_close(grus.weight_input.grad[feature], gru.weight_ih_l0.grad.squeeze(1))
        torch.testing.assert_close(grus.bias_input.grad[feature], gru.bias_ih_l0.grad)
        torch.testing.assert_close(grus.bias_hidden.grad[feature], gru.bias_hh_l0.grad)


def test_the_written_out_backward_pass_agrees_with_finite_differences() -> None:
    torch.manual_seed(2)
    grus = FeatureGru(2, 3).double()
    values = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    weights = [parameter.detach().requires_grad_() for parameter in grus.parameters()]
    assert torch.autograd.gradcheck(_Recurrence.apply, (values, *weights))
