"""Derive the polynomial constants of cpp/kernels/exp.h and cpp/kernels/activation.h.

Each fit solves a weighted minimax problem by Lawson iteration: least squares on a dense Chebyshev
grid, whose weights grow where the error is largest. Needs numpy and scipy.

    python tools/fit_polynomials.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import log_ndtr


def lawson(
    grid: np.ndarray, basis: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Coefficients c that minimise max |weight · (basis @ c − target)| over the grid."""
    importance = np.full(grid.size, 1.0 / grid.size)
    coefficients = np.zeros(basis.shape[1])
    for _ in range(400):
        root = np.sqrt(importance) * weight
        coefficients, *_ = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)
        error = np.abs(weight * (basis @ coefficients - target))
        importance *= error + 1e-3 * error.max()
        importance /= importance.sum()
    return coefficients


def chebyshev_grid(low: float, high: float, count: int = 4001) -> np.ndarray:
    """Chebyshev points of [low, high]: dense at the ends, where minimax errors peak."""
    angle = np.pi * (np.arange(count) + 0.5) / count
    return 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)


def show(name: str, coefficients: np.ndarray, error: float) -> None:
    """Print one fit as C++ constants, lowest power first."""
    print(f"{name}: largest error in exact arithmetic {error:.2e}")
    for power, value in enumerate(coefficients):
        print(f"    {float(np.float32(value))!r}f,  // power {power}")


def fit_exp2(low: float, high: float, degree: int) -> None:
    """2^f = 1 + f·Q(f) on [low, high], relative error; 2^0 = 1 exactly."""
    f = chebyshev_grid(low, high)
    powers = np.stack([f ** (k + 1) for k in range(degree)], axis=1)
    coefficients = lawson(f, powers, np.exp2(f) - 1, 1 / np.exp2(f))
    error = np.max(np.abs((powers @ coefficients + 1) / np.exp2(f) - 1))
    show(f"exp2 of degree {degree} on [{low}, {high}]", coefficients, error)


def fit_exp2_near(degree: int) -> None:
    """2^f on [0, 1], relative error, for results that are rounded to bfloat16."""
    f = chebyshev_grid(0.0, 1.0)
    powers = np.stack([f**k for k in range(degree + 1)], axis=1)
    coefficients = lawson(f, powers, np.exp2(f), 1 / np.exp2(f))
    error = np.max(np.abs(powers @ coefficients / np.exp2(f) - 1))
    show(f"exp2 of degree {degree} on [0, 1], 2^0 not exact", coefficients, error)


def fit_normal_tail_near(high: float, degree: int) -> None:
    """h(t) = log2(Phi(−t)) on [0, high], relative error of 2^h alike everywhere."""
    t = chebyshev_grid(0.0, high)
    target = log_ndtr(-t) / np.log(2)
    powers = np.stack([t**k for k in range(degree + 1)], axis=1)
    coefficients = lawson(t, powers, target, np.ones_like(t))
    error = np.max(np.abs(np.exp2(powers @ coefficients - target) - 1))
    show(f"log2 Phi(−t) of degree {degree} on [0, {high}]", coefficients, error)


def fit_normal_tail(high: float, degree: int, weight: Callable[[np.ndarray], np.ndarray]) -> None:
    """log2 of the normal tail, h(t) = log2(Phi(−t)), as a polynomial on [0, high]."""
    t = chebyshev_grid(0.0, high)
    target = log_ndtr(-t) / np.log(2)
    powers = np.stack([t**k for k in range(degree + 1)], axis=1)
    coefficients = lawson(t, powers, target, weight(t))
    fitted = np.exp2(powers @ coefficients)
    exact = np.exp2(target)
    show(f"log2 Phi(−t) on [0, {high}]", coefficients, np.max(t * np.abs(fitted - exact)))
    print(f"    relative error at the far end {abs(fitted[-1] / exact[-1] - 1):.1e}")
    t32 = t.astype(np.float32)
    value = np.full_like(t32, np.float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        value = value * t32 + np.float32(coefficient)
    rounded = np.max(t * np.abs(np.exp2(value.astype(float)) - exact))
    print(f"    largest t·error in float32 {rounded:.2e}")


if __name__ == "__main__":
    fit_exp2(0.0, 1.0, 5)
    fit_exp2(-0.5, 0.5, 5)
    for high, degree in ((6.0, 8), (8.0, 9), (10.0, 9), (10.0, 10)):
        fit_normal_tail(high, degree, lambda t: np.exp(log_ndtr(-t)) * np.maximum(t, 0.3) + 3e-6)
    fit_exp2_near(3)
    fit_normal_tail_near(8.0, 6)
