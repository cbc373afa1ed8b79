"""Second derivatives are right, or refused; a gradient is never treated as a constant."""

import pytest
import torch
from torch.autograd import forward_ad, functional
from torch.nn.functional import normalize

from loco.losses import build_loss
from loco.losses.first_order import first_order
from tests.unit.losses.batches import patches

REFUSED = "cannot be differentiated|cannot be transformed"


def loss_of(name):
    """Return features (8, 4), and the loss of some patches as a function of them."""
    features, points, *_ = patches(8, 1)
    return lambda x: build_loss(name, rho=0.8, kappa=3.0, tau=0.1)(x, points)[0], features


def penalised(loss, features):
    """Return the gradient of the loss plus the squared norm of its gradient."""
    features = features.clone().requires_grad_()
    value = loss(features)
    (gradient,) = torch.autograd.grad(value, features, create_graph=True)
    (value + 100 * (gradient**2).sum()).backward()
    return features.grad


WAYS = {
    "gradient penalty": penalised,
    "penalty on a network": lambda loss, x: penalised(
        lambda w: loss(normalize(x @ w, dim=1)), torch.eye(x.shape[1]).double()
    ),
    "functional.hessian": functional.hessian,
    "functional.hessian, vectorised": lambda loss, x: functional.hessian(loss, x, vectorize=True),
    "functional.hvp": lambda loss, x: functional.hvp(loss, x, torch.ones_like(x)),
    "functional.vhp": lambda loss, x: functional.vhp(loss, x, torch.ones_like(x)),
    "functional.jvp": lambda loss, x: functional.jvp(loss, x, torch.ones_like(x)),
    "gradgradcheck": lambda loss, x: torch.autograd.gradgradcheck(loss, x.clone().requires_grad_()),
    "func.grad": lambda loss, x: torch.func.grad(loss)(x),
    "func.hessian": lambda loss, x: torch.func.hessian(loss)(x),
    "func.jacfwd": lambda loss, x: torch.func.jacfwd(loss)(x),
    "func.jacrev": lambda loss, x: torch.func.jacrev(loss)(x),
    "func.vmap": lambda loss, x: torch.func.vmap(loss)(x[None]),
}


@pytest.mark.parametrize("name", ["exact", "sampled"])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_loss_cannot_do_is_refused(name, way):
    loss, features = loss_of(name)
    with pytest.raises(RuntimeError, match=REFUSED):
        WAYS[way](loss, features)


@pytest.mark.parametrize("name", ["dense", "info_nce", "landmarks", "sup_con"])
def test_second_derivatives_of_the_others(name):
    loss, features = loss_of(name)
    assert torch.autograd.gradgradcheck(loss, features.clone().requires_grad_())
    hessian = functional.hessian(loss, features)
    assert hessian.norm() > 0.01
    torch.testing.assert_close(torch.func.grad(loss)(features), functional.jacobian(loss, features))


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("name", ["exact", "sampled"])
def test_a_graph_that_is_not_used_does_no_harm(name):
    loss, features = loss_of(name)
    plain, graphed = (features.clone().requires_grad_() for _ in range(2))
    loss(plain).backward()
    loss(graphed).backward(create_graph=True)
    assert torch.equal(plain.grad, graphed.grad)


def test_a_second_derivative_of_another_term_is_none_of_its_business():
    loss, features = loss_of("exact")
    x = features.clone().requires_grad_()
    value, other = loss(x), (x**4).sum()
    (gradient,) = torch.autograd.grad(other, x, create_graph=True)
    (value + gradient.sum()).backward()
    own = features.clone().requires_grad_()
    loss(own).backward()
    torch.testing.assert_close(x.grad, own.grad + 12 * features**2)


class Square(torch.autograd.Function):
    """x^2, whose gradient 2 x seems constant if the incoming gradient is constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @first_order
    def backward(ctx, grad):
        return (2 * ctx.saved_tensors[0] * grad,)


def test_the_decorator_by_itself():
    x = torch.tensor(3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(Square.apply(x), x, create_graph=True)
    assert gradient == 6
    with pytest.raises(RuntimeError, match="cannot be differentiated"):
        torch.autograd.grad(gradient, x)
    assert torch.autograd.gradcheck(Square.apply, x.double().detach().requires_grad_())


def in_forward_mode(loss, features):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(loss(forward_ad.make_dual(features, torch.ones_like(features)))).tangent


@pytest.mark.parametrize("name", ["dense", "info_nce", "landmarks", "sup_con"])
def test_transforms_of_a_loss_that_was_built_before(name):
    features, points, *_ = patches(8, 1)
    criterion = build_loss(name, rho=0.8, kappa=3.0, tau=0.1)
    start = {key: value.clone() for key, value in criterion.state_dict().items()}

    def loss(x):
        return criterion(x, points, image_ids=torch.arange(8))[0]

    found = []
    for way in (
        lambda: functional.jacobian(loss, features),
        lambda: torch.func.grad(loss)(features),
        lambda: torch.func.jacrev(loss)(features),
        lambda: torch.func.jvp(loss, (features,), (torch.ones_like(features),))[1],
        lambda: in_forward_mode(loss, features),
    ):
        criterion.load_state_dict(start)  # the same draws in each call
        found.append(way())
        assert all(value == 1 for value in criterion.state_dict().values())  # calls are counted
    gradient, *others = found
    for other in others:
        torch.testing.assert_close(other, gradient if other.ndim else gradient.sum())


@pytest.mark.parametrize("name", ["exact", "sampled"])
def test_derivatives_in_forward_mode_are_refused(name):
    loss, features = loss_of(name)
    with pytest.raises(RuntimeError, match="no forward-mode derivatives"):
        in_forward_mode(loss, features)


@pytest.mark.parametrize("name", ["dense", "exact", "info_nce", "landmarks", "sampled", "sup_con"])
def test_vmap_is_refused(name):
    loss, features = loss_of(name)
    for transform in (torch.func.vmap(loss), torch.func.vmap(torch.func.grad(loss))):
        with pytest.raises(RuntimeError, match=r"cannot be transformed by torch\.func\.vmap"):
            transform(features[None])
