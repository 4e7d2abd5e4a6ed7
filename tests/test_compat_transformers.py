"""numattn as an attention implementation of transformers, beside "eager", class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="4.53")

import numattn.compat.transformers as nt  # noqa: E402
from tiny_transformers import (  # noqa: E402
    DECODERS,
    ENCODERS,
    GEMMA,
    GROUPED,
    HALVES,
    IMAGE,
    IMAGES,
    PLAIN,
    SLIDING,
    TRANSLATORS,
)

pytestmark = pytest.mark.slow

TOLERANCE = 2e-6
"""Of the largest number: eager differs from itself by a third of that, summed in another order."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower with more, and far slower where others compute, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every mask that numattn was called with, under a name of its own."""
    seen: list[Any] = []

    def counted(*arguments: Any, **others: Any) -> Any:
        seen.append(arguments[4] if len(arguments) > 4 else others["attention_mask"])
        return nt.attention_forward(*arguments, **others)

    nt.register()
    transformers.AttentionInterface.register("counted", counted)
    transformers.AttentionMaskInterface.register("counted", nt.attention_mask)
    return seen


def model_of(kind: str, name: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    maker = getattr(transformers, kind, None) or getattr(transformers, f"{name}Model")
    make = getattr(maker, "from_config", None) or maker._from_config
    return make(config, attn_implementation="eager").eval()


def ids_and_mask(hidden: list[slice], rows: int = 2) -> tuple[Any, Any]:
    ids = torch.randint(3, 99, (rows, 9))
    mask = torch.ones(rows, 9, dtype=torch.long)
    for row, part in enumerate(hidden):
        mask[row, part] = 0
    return ids, mask


def assert_agree(model: Any, calls: list[Any], run: Callable[[], Any], places: Any = ...) -> None:
    """What a model computes is the same by "eager" and by numattn, which it calls."""
    with torch.no_grad():
        torch.manual_seed(1)
        expected = run()[places]
        model.set_attn_implementation("counted")
        torch.manual_seed(1)
        found = run()[places]
        model.set_attn_implementation("eager")
    assert calls
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name: str, calls: list[Any]) -> None:
    model = model_of("AutoModelForCausalLM", name, DECODERS[name])
    ids, mask = ids_and_mask([slice(3)])  # padding at the left
    assert_agree(model, calls, lambda: model(ids, attention_mask=mask).logits, mask.bool())
    assert_agree(model, calls, lambda: model(ids).logits)
    settings = {
        "attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0
    }  # fmt: skip
    expected = model.generate(ids, **settings)
    model.set_attn_implementation("counted")
    assert torch.equal(model.generate(ids, **settings), expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name: str, calls: list[Any]) -> None:
    model = model_of("AutoModel", name, ENCODERS[name])
    for hidden in ([], [slice(6, None)], [slice(6, None), slice(4, 5), slice(2)]):
        ids, mask = ids_and_mask(hidden, rows=3)
        inputs = {"input_ids": ids, "attention_mask": mask}

        def run(inputs: dict[str, Any] = inputs) -> Any:
            return model(**inputs).last_hidden_state

        assert_agree(model, calls, run, mask.bool())
    assert_agree(model, calls, lambda: model(ids).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("name", TRANSLATORS)
def test_encoder_decoders(name: str, calls: list[Any]) -> None:
    model = model_of("AutoModelForSeq2SeqLM", name, TRANSLATORS[name])
    ids, mask = ids_and_mask([slice(6, None)])
    inputs = {"attention_mask": mask, "decoder_input_ids": torch.randint(3, 99, (2, 5))}
    assert_agree(model, calls, lambda: model(ids, **inputs).logits)
    settings = {"attention_mask": mask, "max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    expected = model.generate(ids, **settings)
    model.set_attn_implementation("counted")
    assert torch.equal(model.generate(ids, **settings), expected)


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, calls: list[Any]) -> None:
    model = model_of("", name, IMAGES[name])
    pixels = torch.randn(2, 3, 16, 16)
    assert_agree(model, calls, lambda: model(pixels).last_hidden_state)


# --- models of several parts ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_text_beside_images(name: str, calls: list[Any]) -> None:
    text = PLAIN | {"projection_size": 32}
    model = model_of("", name, {"text_config": text, "vision_config": IMAGE})
    ids, mask = ids_and_mask([slice(6, None)])
    pixels = torch.randn(2, 3, 16, 16)

    def run() -> Any:
        found = model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
        return torch.cat([found.text_embeds, found.image_embeds])

    assert_agree(model, calls, run)


def test_llava(calls: list[Any]) -> None:
    parts = {
        "vision_config": transformers.CLIPVisionConfig(**IMAGE),
        "text_config": transformers.LlamaConfig(**GROUPED),
    }
    options = parts | {"image_token_index": 98, "vision_feature_layer": -1}
    model = model_of("LlavaForConditionalGeneration", "Llava", options)
    ids = torch.randint(3, 97, (1, 24))
    ids[0, 2:18] = 98
    pixels = torch.randn(1, 3, 16, 16)
    assert_agree(model, calls, lambda: model(input_ids=ids, pixel_values=pixels).logits)


def test_gemma_3_sees_images_both_ways(calls: list[Any]) -> None:
    layers = {"layer_types": ["sliding_attention", "full_attention"]}
    options = {
        "text_config": transformers.Gemma3TextConfig(**GEMMA, **layers),
        "vision_config": transformers.SiglipVisionConfig(**IMAGE),
        "mm_tokens_per_image": 4, "image_token_index": 98, "image_token_id": 98,
        "boi_token_index": 96, "eoi_token_index": 97,
    }  # fmt: skip
    model = model_of("Gemma3ForConditionalGeneration", "Gemma3", options)
    ids = torch.randint(3, 95, (1, 12))
    ids[0, 2:6] = 98
    inputs = {
        "input_ids": ids, "pixel_values": torch.randn(1, 3, 16, 16),
        "token_type_ids": (ids == 98).long(), "attention_mask": torch.ones_like(ids),
    }  # fmt: skip
    assert_agree(model, calls, lambda: model(**inputs).logits)


def test_detr(calls: list[Any]) -> None:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, out_features=["stage4"]
    )
    options = HALVES | {
        "num_queries": 5, "use_timm_backbone": False, "backbone_config": backbone,
        "use_pretrained_backbone": False, "backbone": None,
    }  # fmt: skip
    model = model_of("DetrForObjectDetection", "Detr", options)
    pixels, mask = torch.randn(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.long)
    mask[0, :, 40:] = 0

    def run() -> Any:
        found = model(pixels, pixel_mask=mask)
        return torch.cat([found.logits.flatten(), found.pred_boxes.flatten()])

    assert_agree(model, calls, run)


def test_whisper(calls: list[Any]) -> None:
    options = HALVES | {
        "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32,
        "suppress_tokens": None, "begin_suppress_tokens": None,
    }  # fmt: skip
    model = model_of("WhisperForConditionalGeneration", "Whisper", options)
    sound, ids = torch.randn(2, 8, 40), torch.randint(3, 99, (2, 5))
    assert_agree(model, calls, lambda: model(sound, decoder_input_ids=ids).logits)


@pytest.mark.parametrize("name", ["Wav2Vec2", "Hubert"])
def test_speech(name: str, calls: list[Any]) -> None:
    convolutions = {
        "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4),
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
    }  # fmt: skip
    model = model_of("", name, PLAIN | convolutions)
    sound, mask = torch.randn(2, 400), torch.ones(2, 400, dtype=torch.long)
    mask[0, 240:] = 0
    assert_agree(model, calls, lambda: model(sound, attention_mask=mask).last_hidden_state[:, :13])


# --- what a model may have besides ----------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["Llama", "Mistral", "GptOss", "Gemma3Text"])
def test_a_static_cache(name: str, calls: list[Any]) -> None:
    model = model_of("AutoModelForCausalLM", name, DECODERS[name])
    ids, mask = ids_and_mask([slice(3)])
    settings = {
        "attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0,
        "cache_implementation": "static",
    }  # fmt: skip
    expected = model.generate(ids, **settings)
    model.set_attn_implementation("counted")
    assert torch.equal(model.generate(ids, **settings), expected)
    assert calls


@pytest.mark.parametrize(("name", "options"), [("Llama", GROUPED), ("Mistral", SLIDING)])
def test_packed_sequences(name: str, options: dict[str, Any], calls: list[Any]) -> None:
    model = model_of("AutoModelForCausalLM", name, options)
    ids = torch.randint(3, 99, (2, 9))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3, 4, 5, 0]])
    assert_agree(model, calls, lambda: model(ids, position_ids=positions, use_cache=False).logits)
    assert "key_spans" in calls[0]._numattn_rules


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), [("Llama", GROUPED), ("Mistral", SLIDING)])
def test_sequences_told_as_flash_attention_is(
    name: str, options: dict[str, Any], calls: list[Any]
) -> None:
    model = model_of("AutoModelForCausalLM", name, options)
    ids = torch.randint(3, 99, (1, 9))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    parts = [model(part, use_cache=False).logits for part in (ids[:, :4], ids[:, 4:])]
    model.set_attn_implementation("counted")
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    found = model(
        ids, position_ids=positions, use_cache=False, cu_seq_lens_q=starts, cu_seq_lens_k=starts,
        max_length_q=5, max_length_k=5,
    ).logits  # fmt: skip
    expected = torch.cat(parts, dim=1)
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert calls


@torch.no_grad()
def test_tokens_in_two_pieces(calls: list[Any]) -> None:
    """Several new tokens behind those of a cache: the order starts among the keys."""
    for name in ("Qwen3", "Mistral", "Gemma3Text"):
        model = model_of("AutoModelForCausalLM", name, DECODERS[name])
        ids = torch.randint(3, 99, (2, 9))
        expected = model(ids).logits[:, 5:]
        model.set_attn_implementation("counted")
        cache = model(ids[:, :5], use_cache=True).past_key_values
        found = model(ids[:, 5:], past_key_values=cache).logits
        assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@torch.no_grad()
def test_bfloat16(calls: list[Any]) -> None:
    model = model_of("AutoModelForCausalLM", "Llama", GROUPED)
    ids = torch.randint(3, 99, (2, 9))
    expected = model(ids).logits
    model = model.bfloat16()
    model.set_attn_implementation("counted")
    found = model(ids).logits
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() <= 2**-4 * expected.abs().max()


@torch.no_grad()
def test_weights_on_demand(calls: list[Any]) -> None:
    model = model_of("AutoModel", "Bert", ENCODERS["Bert"])
    ids, mask = ids_and_mask([slice(6, None)])
    expected = model(ids, attention_mask=mask, output_attentions=True).attentions
    q = torch.randn(2, 4, 9, 8)
    dense = nt.attention_mask(2, 9, 9, attention_mask=mask.bool(), mask_function=None)
    output, weights = nt.attention_forward(
        torch.nn.Module(), q, q, q, dense, output_attentions=True
    )
    scores = (q @ q.transpose(-1, -2) / 8**0.5).masked_fill(~dense, -torch.inf)
    torch.testing.assert_close(weights, torch.softmax(scores, -1))
    assert output.shape == (2, 9, 4, 8) and len(expected) == 2


def test_training_and_gradients_are_refused(calls: list[Any]) -> None:
    model = model_of("AutoModel", "Bert", ENCODERS["Bert"])
    model.set_attn_implementation("counted")
    ids = torch.randint(3, 99, (1, 5))
    with pytest.raises(RuntimeError, match="no gradients: call it under torch.no_grad"):
        model(ids)
    with torch.no_grad(), pytest.raises(ValueError, match=r"dropout must be 0.*\.eval\(\)"):
        model.train()(ids)


@torch.no_grad()
def test_compile_passes_through(calls: list[Any]) -> None:
    model = model_of("AutoModel", "Bert", ENCODERS["Bert"])
    ids, mask = ids_and_mask([slice(6, None)])
    expected = model(ids, attention_mask=mask).last_hidden_state
    model.set_attn_implementation("numattn")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = compiled(ids, attention_mask=mask).last_hidden_state
    real = mask.bool()
    assert (found - expected)[real].abs().max() <= TOLERANCE * expected.abs().max()


def test_sentence_transformers(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from tiny_bert import write_folder

    nt.register()
    folder = write_folder(tmp_path / "model")
    texts = ["how do i reset my password", "two eggs", "the animal was too tired to cross"]

    def vectors(implementation: str) -> Any:
        model = sentence_transformers.SentenceTransformer(
            str(folder), model_kwargs={"attn_implementation": implementation}, device="cpu"
        )
        assert model[0].auto_model.config._attn_implementation == implementation
        return torch.from_numpy(model.encode(texts))

    found, expected = vectors("numattn"), vectors("eager")
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
