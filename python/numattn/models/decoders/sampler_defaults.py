"""How a folder's generation_config.json says that tokens are to be chosen.

Without do_sample the likeliest is taken. With it, temperature, top_k (50 where it is not said, as
in transformers), top_p and min_p count; repetition_penalty counts always.
"""

from __future__ import annotations

from typing import Any

from ..files.settings import Settings, shown
from ..sampling import Sampler

# What else changes which tokens are chosen → values with which it does not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "penalty_alpha": (0.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ([], {}),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "exponential_decay_length_penalty": (),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
}


def sampler_of(settings: Settings, changes: dict[str, Any]) -> Sampler:
    """Return the sampler that settings ask for; changes are arguments that go before these.

    Raises
    ------
    TypeError
        If a change is no argument of `Sampler`, or of another type.
    ValueError
        If a setting or change is out of range, or a setting asks for what is not supported.
    """
    for name, neutral in NEUTRAL.items():
        value = settings.get(name)
        if value is not None and not any(value == each for each in neutral):
            raise ValueError(
                f"{settings.path}: {name} {shown(value)} is not supported: make a Sampler"
            )
    options: dict[str, Any] = {"temperature": 0.0}
    if settings.flag("do_sample", False):
        options = {
            "temperature": settings.number("temperature", 1.0),
            "top_k": settings.whole("top_k", 0, 50) or None,
            "top_p": settings.number("top_p", 1.0),
            "min_p": settings.optional_number("min_p"),
        }
    options["repetition_penalty"] = settings.number("repetition_penalty", 1.0)
    return Sampler(**{**options, **changes})
