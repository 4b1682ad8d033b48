"""How alike two representations of the same messages are."""

from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of (n, d1) and (n, d2) (Kornblith et al. 2019, equation 3).

    1 for representations equal up to rotation and one scale, near 0 for unrelated ones when n is
    large against d; float64.
    """
    if len(x) != len(y):
        raise ValueError(f"linear_cka: {len(x)} and {len(y)} rows; need the same messages")
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    cross = (x.T @ y).square().sum()
    return float(cross / ((x.T @ x).norm() * (y.T @ y).norm()))
