"""numattn, called as a user would call it."""

from __future__ import annotations

from functools import partial, singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import (
    AttentionCase,
    Case,
    ConcurrentCase,
    EncoderCase,
    IntegerCase,
    IntegerEncoderCase,
    LayerCase,
    LinearCase,
    Operands,
    RaggedEncoderCase,
)
from concurrent_texts import from_threads
from contestant import Candidate, Recipe, Unsupported
from oracle import model_folder
from serving import (
    GenerationCase,
    HeldCase,
    IntegerGenerationCase,
    RaggedCase,
    ServingCase,
    llama_folder,
)


def single(result: NDArray[Any]) -> NDArray[np.float32]:
    return result.astype(np.float32)


class Numattn:
    """numattn itself; a row that it cannot run yet fails with the error that a user would see."""

    name = "numattn"

    def __init__(self, threads: int) -> None:
        import numattn

        self.library: Any = numattn
        self.threads = threads
        self.version = str(getattr(numattn, "__version__", "unknown"))

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        return [partial(self.candidate, case, dtype, operands)]

    @singledispatchmethod
    def candidate(self, case: object, dtype: str, operands: Operands) -> Candidate:
        """Our way to compute a row; a method for each kind of case."""
        raise Unsupported(f"nothing for {type(case).__name__}")

    def attention_keywords(self, case: AttentionCase, operands: Operands) -> dict[str, Any]:
        """The row's arguments, naming only what departs from the default."""
        keywords: dict[str, Any] = {"num_threads": self.threads}
        if case.causal:
            keywords["is_causal"] = True
        if case.window is not None:
            keywords["window"] = case.window
        if case.dense_mask:
            keywords["mask"] = operands["mask"]
        if case.precision != "highest":
            keywords["precision"] = case.precision
        return keywords

    @candidate.register
    def attention(self, case: AttentionCase, dtype: str, operands: Operands) -> Candidate:
        keywords = self.attention_keywords(case, operands)
        query, key, value = (operands[name] for name in ("query", "key", "value"))
        call = partial(self.library.attention, query, key, value, **keywords)
        return Candidate(self.kernel(case, operands), call, single)

    @candidate.register
    def linear(self, case: LinearCase, dtype: str, operands: Operands) -> Candidate:
        layer = self.library.Linear(operands["weight"], operands.get("bias"), **storage(dtype))
        call = partial(layer, operands["x"], activation=case.activation, num_threads=self.threads)
        return Candidate("Linear", call, single)

    @candidate.register
    def integer_linear(self, case: IntegerCase, dtype: str, operands: Operands) -> Candidate:
        layer = self.library.Linear(operands["weight"], operands["bias"], dtype=case.storage)
        call = partial(layer, operands["x"], activation=case.activation, num_threads=self.threads)
        return Candidate(f"Linear, {case.storage}", call, single)

    @candidate.register
    def layer(self, case: LayerCase, dtype: str, operands: Operands) -> Candidate:
        state = {name: array for name, array in operands.items() if name != "x"}
        layer = self.library.MultiHeadAttention.from_torch(state, case.heads, **storage(dtype))
        call = partial(layer, operands["x"], num_threads=self.threads)
        return Candidate("MultiHeadAttention", call, single)

    @candidate.register
    def encoder(self, case: EncoderCase, dtype: str, operands: Operands) -> Candidate:
        from numattn.models import Bert

        model = Bert.from_folder(model_folder(), **storage(dtype))
        call = partial(model, operands["token_ids"], num_threads=self.threads)
        return Candidate("models.Bert", call, single)

    @candidate.register
    def integer_encoder(
        self, case: IntegerEncoderCase, dtype: str, operands: Operands
    ) -> Candidate:
        from numattn.models import Bert

        model = Bert.from_folder(model_folder(), dtype="w8a8")
        call = partial(model, operands["token_ids"], num_threads=self.threads)
        return Candidate("models.Bert, w8a8", call, single)

    @candidate.register
    def ragged_encoder(self, case: RaggedEncoderCase, dtype: str, operands: Operands) -> Candidate:
        from numattn.models import Bert

        model = Bert.from_folder(model_folder(), **storage(dtype))
        call = partial(model, operands["token_ids"], case.lengths, num_threads=self.threads)
        return Candidate("models.Bert, lengths", call, lambda hidden: single(hidden[case.real]))

    @candidate.register
    def concurrent(self, case: ConcurrentCase, dtype: str, operands: Operands) -> Candidate:
        from numattn.models import Bert

        model = Bert.from_folder(model_folder(), **storage(dtype))
        run = from_threads(case, operands["token_ids"], partial(model, num_threads=1))
        return Candidate("models.Bert", run, lambda texts: single(np.concatenate(texts)))

    @candidate.register
    def ragged(self, case: RaggedCase, dtype: str, operands: Operands) -> Candidate:
        query, key, value = (operands[name] for name in ("query", "key", "value"))
        call = partial(
            self.library.attention_varlen,
            query, key, value, case.starts, case.starts, num_threads=self.threads,
        )  # fmt: skip
        return Candidate("attention_varlen", call, single)

    @candidate.register
    def held(self, case: HeldCase, dtype: str, operands: Operands) -> Candidate:
        return self.paged(case, operands) if case.page else self.integers(case, operands)

    def paged(self, case: HeldCase, operands: Operands) -> Candidate:
        call = partial(
            self.library.attention_paged,
            operands["query"], operands["key_pages"], operands["value_pages"],
            case.block_table, np.full(case.batch, case.keys), num_threads=self.threads,
        )  # fmt: skip
        return Candidate("attention_paged", call, single)

    def integers(self, case: HeldCase, operands: Operands) -> Candidate:
        call = partial(
            self.library.attention,
            operands["query"], operands["key_integers"], operands["value_integers"],
            k_scale=operands["key_scale"], v_scale=operands["value_scale"],
            num_threads=self.threads,
        )  # fmt: skip
        return Candidate("int8 keys and values", call, single)

    @candidate.register
    def generation(self, case: GenerationCase, dtype: str, operands: Operands) -> Candidate:
        from numattn.models import Llama

        kept = {"dtype": "int8"} if isinstance(case, IntegerGenerationCase) else storage(dtype)
        model = Llama.from_folder(llama_folder(case), **kept)
        cache = model.new_cache(1, capacity=case.context + 1)
        for layer in range(case.layers):
            cache.append(layer, operands["keys"][layer], operands["values"][layer])

        def step() -> NDArray[np.float32]:
            logits: NDArray[np.float32] = model(
                operands["token"], cache=cache, only_last=True, num_threads=self.threads
            )
            cache.truncate(case.context)
            return logits

        return Candidate("models.Llama, KVCache", step, single)

    def isa(self) -> str:
        return str(self.library.isa.current())

    def kernel(self, case: AttentionCase, operands: Operands) -> str:
        """The kernel and the ISA that `plan` names for this row."""
        plan = self.library.plan(
            case.query_shape,
            case.key_shape,
            dtype=operands["query"].dtype,
            **self.attention_keywords(case, operands),
        )
        return f"{plan.kernel} on {plan.isa}"


class InOnePiece:
    """numattn on keys and values side by side and in the row's dtype: what pages are held to."""

    name = "in one piece"

    def __init__(self, numattn: Numattn) -> None:
        self.numattn, self.version = numattn, numattn.version

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        return [partial(self.numattn.attention, case, dtype, operands)]


def storage(dtype: str) -> dict[str, str]:
    """The keyword that keeps weights in 16 bits; float32 is the default of every class."""
    return {} if dtype == "f32" else {"dtype": {"bf16": "bfloat16", "f16": "float16"}[dtype]}
