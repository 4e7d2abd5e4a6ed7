"""What each process of a communicator checks: attention of its own tokens beside that of one.

mpirun -n 4 python -m mpi4py tests/mpi_ranks.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import numattn as na
import numattn.compat.mpi as nm

TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
ROUNDOFF = 2.0**-24

CASES: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"is_causal": True, "window": (20, 0)},
    {"is_causal": True, "window": (400, None)},
    {"window": (30, 10)},
    {"window": (None, 3)},
    {"is_causal": True, "softcap": 3.0, "scale": 0.3},
    {"alibi_slopes": np.array([0.1, 0.2, 0.3, 0.4], np.float32)},
    {"is_causal": True, "sinks": np.array([0.5, -1, 2, 0], np.float32)},
    {"sinks": np.array([0.5, -1, 2, 0], np.float32)},
]


def dtypes() -> list[np.dtype[Any]]:
    try:
        import ml_dtypes
    except ImportError:
        return [np.dtype(np.float32), np.dtype(np.float16)]
    return [*map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16))]


def close(
    found: np.ndarray, expected: np.ndarray, dtype: np.dtype[Any], logit: float = 0.0
) -> None:
    """`logit`: the largest, where it is large. Either side rounds it to float32."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    error = np.abs(found.astype(np.float32) - expected.astype(np.float32)).max(initial=0)
    assert error <= TOLERANCE[dtype.name] + logit * ROUNDOFF, (error, dtype.name)


class Checks:
    """What one process of a communicator does, while the others do the same."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.size, self.rank = comm, comm.Get_size(), comm.Get_rank()

    def all(self, lengths: tuple[int, ...] = (0, 3, 64, 203)) -> None:
        for dtype in dtypes():
            for score in CASES:
                for length in lengths:
                    self.case(length, dtype, score)
        self.cross()
        self.balance()
        self.errors()

    def case(self, length: int, dtype: np.dtype[Any], score: dict[str, Any]) -> None:
        """Both forms, of grouped heads; values are wider than keys."""
        rng = np.random.default_rng(length)
        shapes = (2, 4, length, 16), (2, 2, length, 16), (2, 2, length, 24)
        whole = [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]
        expected, sums = na.attention(*whole, return_lse=True, **score)
        mine = nm.positions(length, self.size, self.rank)
        parts = [nm.split(x, self.comm) for x in whole]
        options = {"comm": self.comm, "return_lse": True, **score}
        largest = length * max(score.get("alibi_slopes", [0.0]))
        found, lse = nm.ring_attention(*parts, **options)
        close(found, expected[..., mine, :], dtype, largest)
        close(lse, sums[..., mine], np.dtype(np.float32))
        assert nm.join(found, self.comm)[..., mine, :].tobytes() == found.tobytes()
        found, lse = nm.gather_attention(*parts, **options)
        close(found, expected[..., mine, :], dtype, largest)
        if length // (2 * self.size) > 8:
            assert found.tobytes() == expected[..., mine, :].tobytes()
            assert lse.tobytes() == sums[..., mine].tobytes()

    def cross(self) -> None:
        """Queries of another length than keys, without positions; and three axes."""
        rng = np.random.default_rng(1)
        whole = [rng.standard_normal((4, n, 16), np.float32) for n in (37, 101, 101)]
        expected = na.attention(*whole)
        for form in (nm.ring_attention, nm.gather_attention):
            o = form(*(nm.split(x, self.comm) for x in whole), comm=self.comm)
            close(nm.join(o, self.comm), expected, np.dtype(np.float32))

    def balance(self) -> None:
        """Of causal work all have the same share, to a hundredth."""
        length = 4096
        work = sum(int(position) + 1 for position in nm.positions(length, self.size, self.rank))
        mean = length * (length + 1) / 2 / self.size
        assert abs(work / mean - 1) < 0.01

    def refused(self, kind: type[Exception], words: str, *arrays: Any, **score: Any) -> None:
        """A fault of one process must be an error of each, and leave nothing on its way."""
        for form in (nm.ring_attention, nm.gather_attention):
            try:
                form(*arrays, comm=self.comm, **score)
            except kind as error:
                assert words in str(error), error
            else:
                raise AssertionError(words)

    def errors(self) -> None:
        is_last = self.rank == self.size - 1
        x = np.zeros((1, 2, 8, 16), np.float32)
        odd = x.astype(np.float64) if is_last else x
        self.refused(TypeError, "float64, which is never cast silently", odd, x, x)
        odd = x[:, :, :5] if is_last else x
        self.refused(ValueError, "k and v of as many tokens", x, odd, x)
        self.refused(ValueError, "need as many queries as keys", x[:, :, :4], x, x, is_causal=True)
        self.refused(ValueError, "window sides must be", x, x, x, window=(-3 if is_last else 4, 0))
        self.refused(ValueError, "scale must be one number", x, x, x, scale=np.ones(2, np.float32))
        if self.size == 1:
            return
        self.refused(ValueError, "positions() says which", odd, odd, odd)
        odd = x[:, :1] if is_last else x
        self.refused(ValueError, "processes must give the same but for tokens", x, odd, odd)
        self.refused(ValueError, "processes must give the same", x, x, x, is_causal=is_last)


def main() -> None:
    from mpi4py import MPI

    checks = Checks(MPI.COMM_WORLD)
    checks.all()
    checks.comm.Barrier()
    if checks.rank == 0:
        print(f"{checks.size} processes agree with one")


if __name__ == "__main__":
    main()
