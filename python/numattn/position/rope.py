"""Angles of rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import integers, size
from numattn.position.rope_config import rope_settings
from numattn.position.rope_scaling import (
    SCALINGS,
    Parameters,
    attention_factor,
    dynamic,
    longrope,
    plain_frequencies,
)
from numattn.position.sinusoidal import wavelength_base


class Rope:
    """Rotary positions: pair i of a head turns by ``position · w_i``, ``w_i = base^(-2i/dim)``.

    Makes the tables that :func:`numattn.apply_rope` takes.

    Parameters
    ----------
    dim : int
        Elements of a head that turn, an even number; with ``partial_rotary_factor`` in
        ``scaling``, the elements of a head, of which that part turns.
    base : float
        Ratio of the longest to the shortest wavelength. ``rope_theta`` in ``scaling`` stands for
        it, and must not contradict another number given here.
    scaling : mapping, optional
        How frequencies are stretched to longer contexts, under the names of a Hugging Face
        configuration's ``rope_scaling`` or ``rope_parameters``. ``rope_type`` (or ``type``) is

        - ``"default"``: as trained;
        - ``"linear"``: ``factor``;
        - ``"dynamic"`` (NTK): ``factor``, ``max_position_embeddings`` (or
          ``original_max_position_embeddings``);
        - ``"yarn"``: ``factor``, ``original_max_position_embeddings``; if wanted ``beta_fast``,
          ``beta_slow``, ``truncate``, ``mscale`` and ``mscale_all_dim``, ``attention_factor``;
        - ``"llama3"``: ``factor``, ``low_freq_factor``, ``high_freq_factor``,
          ``original_max_position_embeddings``;
        - ``"longrope"``: ``short_factor``, ``long_factor``, ``original_max_position_embeddings``,
          and ``attention_factor``, ``factor`` or ``max_position_embeddings``;
        - ``"proportional"``: ``partial_rotary_factor``, ``factor``.

        Other keys are ignored.
    interleaved : bool
        Whether pairs are neighbours (GPT-J, GPT-NeoX's alternative, ONNX's ``interleaved``) or
        lie dim/2 apart (Llama). For the caller, who hands it to :func:`numattn.apply_rope`: the
        tables are the same.

    Attributes
    ----------
    dim : int
        Elements that turn: twice the last length of the tables.
    base : float
    interleaved : bool
    attention_factor : float
        What cosines and sines are multiplied by (YaRN, LongRoPE); 1 otherwise.
    depends_on_length : bool
        Whether frequencies change with the length of the sequence (``"dynamic"``, ``"longrope"``).
    switch_length : int or None
        The longest sequence that is turned by the first of two sets of frequencies
        (``"longrope"``): all of a longer one is turned by the second.

    Raises
    ------
    ValueError
        The type of scaling is unknown, a number that it needs is missing or out of range, or
        ``dim`` is not even.
    TypeError
        A number is none.

    Notes
    -----
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021). The sources
    of the scalings stand with their formulas in ``numattn.position.rope_scaling``.

    Examples
    --------
    >>> from numattn.position import Rope
    >>> cos, sin = Rope(4, scaling={"rope_type": "linear", "factor": 2.0}).tables([0, 2])
    >>> cos.round(3)
    array([[1.  , 1.  ],
           [0.54, 1.  ]], dtype=float32)
    """

    __slots__ = (
        "_fixed", "_scaling", "attention_factor", "base", "depends_on_length", "dim", "interleaved",
        "switch_length",
    )  # fmt: skip

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10000.0,
        scaling: Mapping[str, Any] | None = None,
        interleaved: bool = False,
    ) -> None:
        given = {} if scaling is None else dict(scaling)
        kind = given.get("rope_type", given.get("type")) or "default"
        if kind not in SCALINGS:
            raise ValueError(f"unknown type of scaling {kind!r}; known are {', '.join(SCALINGS)}")
        self._scaling = Parameters(kind, given)
        self.base: float = _base_of(base, self._scaling)
        self.dim: int = _turning_elements(dim, self._scaling)
        self.interleaved: bool = bool(interleaved)
        self.attention_factor: float = attention_factor(self._scaling)
        self.depends_on_length: bool = SCALINGS[kind] in (dynamic, longrope)
        self._fixed = self.frequencies()  # whatever is missing is missed here
        self.switch_length: int | None = None
        if SCALINGS[kind] is longrope:
            self.switch_length = int(self._scaling.trained_length())

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        layer_type: str | None = None,
        interleaved: bool = False,
    ) -> Rope:
        """The rotary positions of a Hugging Face model, from its whole ``config.json``.

        Read are ``head_dim`` (or ``hidden_size // num_attention_heads``), ``rope_scaling`` or else
        ``rope_parameters``, ``rope_theta`` (GPT-NeoX: ``rotary_emb_base``),
        ``partial_rotary_factor`` (``rotary_pct``), ``max_position_embeddings`` and
        ``original_max_position_embeddings``; ``rotary_dim`` (GPT-J, MiniMax) and
        ``qk_rope_head_dim`` (DeepSeek), the elements that turn; and the two bases of ModernBERT's,
        Gemma 3's and OLMo 3's layers.

        Parameters
        ----------
        config : mapping
            What ``json.load`` returns.
        layer_type : str, optional
            Which parameters, where a configuration has them by type of layer
            (``"full_attention"``, ``"sliding_attention"``).
        interleaved : bool
            As for the class; no configuration says it.

        Returns
        -------
        Rope

        Raises
        ------
        ValueError
            As for the class; the size of a head cannot be told; names contradict one another; one
            with "rope" or "rotary" in it is not known; or ``layer_type`` is missing or unknown.

        Examples
        --------
        >>> from numattn.position import Rope
        >>> Rope.from_config({"head_dim": 64, "rope_theta": 500000.0, "rope_scaling": None})
        Rope(64, base=500000.0)
        """
        elements, scaling = rope_settings(config, layer_type)
        return cls(elements, scaling=scaling, interleaved=interleaved)

    def __repr__(self) -> str:
        text = f"Rope({self.dim}, base={self.base}"
        if self._scaling.kind != "default":
            text += f", scaling={dict(self._scaling.given)}"
        return text + (", interleaved=True)" if self.interleaved else ")")

    def frequencies(self, length: int | None = None) -> NDArray[np.float64]:
        """Radians per position of each pair.

        Parameters
        ----------
        length : int, optional
            Length of the sequence, on which ``"dynamic"`` and ``"longrope"`` depend; 1 by default,
            which stands for any within the trained length.

        Returns
        -------
        float64 array of shape (dim / 2,)

        Raises
        ------
        ValueError
            ``length`` is less than 1.

        Examples
        --------
        >>> from numattn.position import Rope
        >>> Rope(4).frequencies()
        array([1.  , 0.01])
        """
        count = 1 if length is None else size("length", length, least=1)
        plain = plain_frequencies(self.dim, self.base)
        return SCALINGS[self._scaling.kind](plain, self.base, self._scaling, count)

    def tables(
        self, positions: ArrayLike, *, length: ArrayLike | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines of the angles of positions.

        Parameters
        ----------
        positions : int array of any shape
            May be negative: rotations by a difference are all that scores see.
        length : int, or int array of shape (B,) for positions (B, ...), optional
            Length of the sequence that the positions are part of, on which ``"dynamic"`` and
            ``"longrope"`` depend, or of each of B sequences. By default the largest position and
            one. Give it where a sequence comes in parts, for parts turned with different
            frequencies do not fit.

        Returns
        -------
        cos, sin : float32 arrays of shape (\\*positions.shape, dim / 2)
            Times the attention factor; angles are computed in float64 and the tables rounded once.

        Raises
        ------
        TypeError
            Positions are not integers.
        ValueError
            ``length`` does not hold the positions, or there is not one for each sequence.

        Examples
        --------
        >>> from numattn.position import Rope
        >>> cos, sin = Rope(4).tables([0, 1])
        >>> sin.round(3)
        array([[0.   , 0.   ],
               [0.841, 0.01 ]], dtype=float32)
        """
        places = integers("positions", positions)
        angles = places[..., np.newaxis] * self._frequencies_of(places, length)
        factor = self.attention_factor
        return (
            (np.cos(angles) * factor).astype(np.float32),
            (np.sin(angles) * factor).astype(np.float32),
        )

    def _frequencies_of(
        self, places: NDArray[np.int64], length: ArrayLike | None
    ) -> NDArray[np.float64]:
        """Frequencies that broadcast to (*places.shape, dim / 2)."""
        if length is None and not self.depends_on_length:
            return self._fixed
        if length is None:
            return self.frequencies(int(places.max(initial=0)) + 1)
        lengths = integers("length", length)
        if lengths.shape not in ((), places.shape[:1]):
            raise ValueError(
                f"length must be one number, or one for each row of positions {places.shape}, "
                f"not of shape {lengths.shape}"
            )
        each = lengths.reshape(lengths.shape + (1,) * (places.ndim - lengths.ndim))
        beyond = places >= each
        if beyond.any():
            row = np.argwhere(beyond)[0]
            raise ValueError(
                f"length {np.broadcast_to(each, places.shape)[tuple(row)]} does not hold position "
                f"{places[tuple(row)]}"
            )
        if not self.depends_on_length:
            return self._fixed
        rows = [self.frequencies(int(one)) for one in lengths.reshape(-1)]
        return np.reshape(rows, (*each.shape, len(self._fixed)))


def _base_of(base: float, scaling: Parameters) -> float:
    given = wavelength_base(base)
    if not scaling.has("rope_theta"):
        return given
    theta = wavelength_base(scaling.positive("rope_theta"))
    if given not in (10000.0, theta):
        raise ValueError(f"base {given} contradicts rope_theta {theta} of the scaling")
    return theta


def _turning_elements(dim: int, scaling: Parameters) -> int:
    elements = size("dim", dim, least=1)
    part = scaling.positive("partial_rotary_factor", 1.0)
    if part > 1:
        raise ValueError(f"partial_rotary_factor of the scaling must be at most 1, not {part}")
    if scaling.kind != "proportional":  # which keeps pairs that do not turn
        elements = int(elements * part)
    if elements < 2 or elements % 2:
        raise ValueError(f"dim must be an even number of elements that turn, not {elements}")
    return elements
