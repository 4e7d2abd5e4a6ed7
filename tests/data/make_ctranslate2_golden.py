"""Make ctranslate2_golden.npz: folders that CTranslate2 writes, and what it makes of them.

Random models of transformers are converted by CTranslate2's own classes, whose library then runs
them. Stored are each folder's files, byte by byte, and scores, logits and texts.

    python tests/data/make_ctranslate2_golden.py      with ctranslate2, torch and transformers
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
import transformers
from ctranslate2.converters import transformers as converters
from ctranslate2.specs import transformer_spec
from ctranslate2.specs.model_spec import index_spec
from numpy.typing import NDArray

VOCABULARY = 41
END, PAD = 2, 1
FAIRSEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "max_position_embeddings": 32, "pad_token_id": PAD, "bos_token_id": 0,
    "eos_token_id": END, "decoder_start_token_id": END, "scale_embedding": True,
    "forced_eos_token_id": None, "num_beams": 1,
}  # fmt: skip
MARIAN = {"pad_token_id": VOCABULARY - 1, "decoder_start_token_id": VOCABULARY - 1,
          "decoder_vocab_size": VOCABULARY, "activation_function": "swish"}  # fmt: skip
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 24, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": END,
}  # fmt: skip
GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
SPEECH_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>",
                 "<|transcribe|>", "<|notimestamps|>")  # fmt: skip
WHISPER = {**FAIRSEQ, "vocab_size": 150, "num_mel_bins": 20, "max_source_positions": 50,
           "max_target_positions": 32, "activation_function": "gelu", "scale_embedding": False,
           "pad_token_id": 40, "eos_token_id": 40, "bos_token_id": 40,
           "decoder_start_token_id": 41}  # fmt: skip
SUPPRESSED = {"suppress_ids": [1, 2, 41, 42, 43, 44], "suppress_ids_begin": [3, 40]}
SOUND = {"feature_size": 20, "chunk_length": 1, "sampling_rate": 16000, "hop_length": 160,
         "n_fft": 400}  # fmt: skip

# Name → model_type, what is converted by, changes of its configuration, how weights are stored.
TEXT_TO_TEXT: dict[str, tuple[str, Any, dict[str, Any], str | None]] = {
    "marian": ("marian", converters.MarianMTLoader, MARIAN, None),
    "marian_int8": ("marian", converters.MarianMTLoader, MARIAN, "int8"),
    "bart": ("bart", converters.BartLoader, {"activation_function": "gelu"}, "float16"),
    "mbart": ("mbart", converters.MBartLoader, {"activation_function": "gelu_new"}, "bfloat16"),
    "m2m": ("m2m_100", converters.M2M100Loader, {"activation_function": "relu"}, "int16"),
}
DECODERS: dict[str, tuple[str, Any, dict[str, Any], str | None]] = {
    "gpt2": ("gpt2", converters.GPT2Loader, GPT, "int8_float16"),
    "llama": ("llama", converters.LlamaLoader, LLAMA, "int8"),
    "linear": ("llama", converters.LlamaLoader,
               {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, None),
    "qwen2": ("qwen2", converters.Qwen2Loader, {**LLAMA, "tie_word_embeddings": True}, "float16"),
    "qwen3": ("qwen3", converters.Qwen3Loader, {**LLAMA, "head_dim": 8}, "bfloat16"),
}  # fmt: skip


def model_of(family: str, config: dict[str, Any], seed: int, seq2seq: bool) -> Any:
    """Return a model of random weights, whose biases and norms are not what they begin as."""
    torch.manual_seed(seed)
    made = transformers.AutoConfig.for_model(family, **config)
    auto = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    if family == "whisper":
        auto = transformers.AutoModelForSpeechSeq2Seq
    model = auto.from_config(made).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" in name and family in ("marian", "m2m_100"):
                continue
            scale = 0.3 if weight.ndim == 1 else 2.5 * weight.shape[-1] ** -0.5
            if "shared" in name or "embed_tokens" in name:
                scale = 0.15  # so that texts do not go on with what they have
            weight += scale * torch.randn_like(weight)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer += torch.randn_like(buffer)
                buffer[0, END] += 1.5  # so that some texts end
        if family == "marian":
            model.model.shared.weight[-1] = 0  # of the token of padding, as in Marian's files
    return model


def words(size: int) -> list[str]:
    """Return the tokens of a vocabulary."""
    return ["<s>", "<pad>", "</s>", "<unk>", *(f"t{number}" for number in range(4, size))]


def finished(spec: Any, quantization: str | None, folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Write a folder; return its files."""
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(folder))
    return {f"file_{path.name}": np.frombuffer(path.read_bytes(), np.uint8)
            for path in sorted(folder.iterdir())}  # fmt: skip


def text_to_text(name: str, folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return a folder's files, and scores and texts of sources."""
    family, loader, changes, quantization = TEXT_TO_TEXT[name]
    model = model_of(family, {**FAIRSEQ, **changes}, len(name), True)
    if family in ("bart", "mbart"):  # which the configuration has no more
        model.config.normalize_before = family == "mbart"
    spec = loader().get_model_spec(model)
    size = spec.decoder.embeddings.weight.shape[0]
    for register in (spec.register_source_vocabulary, spec.register_target_vocabulary):
        register(words(size))
    spec.config.decoder_start_token = None if name == "mbart" else "</s>"
    files = finished(spec, quantization, folder)
    translator = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)
    sources, texts = rng.integers(4, size, (5, 8)), rng.integers(4, size, (5, 7))
    written = [[*(f"t{token}" for token in row), "</s>"] for row in sources]
    given = [[f"t{token}" for token in row] for row in texts]
    prefix: dict[str, Any] = {}
    if name == "mbart":
        prefix = {"target_prefix": [["t5"]] * len(sources)}
        given = [["t5", *text] for text in given]
    scored = translator.score_batch(written, given)
    result = {
        **files,
        "sources": sources,
        "texts": texts,
        "log_probs": np.array([row.log_probs for row in scored])[:, -8:],
    }
    numbers = {token: number for number, token in enumerate(words(size))}
    for beams, penalty in ((1, 1.0), (2, 1.0), (4, 0.6)):
        found = translator.translate_batch(
            written, beam_size=beams, length_penalty=penalty, max_decoding_length=12,
            return_scores=True, return_end_token=True, **prefix,
        )  # fmt: skip
        tokens = np.full((len(found), 13), -1)
        for row, each in zip(tokens, found, strict=True):
            hypothesis = [numbers[token] for token in each.hypotheses[0]]
            row[: len(hypothesis)] = hypothesis
        result[f"tokens_{beams}"] = tokens
        result[f"scores_{beams}"] = np.array([each.scores[0] for each in found])
    return result


def opennmt(folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return a folder's files, and scores and texts: of the form that OpenNMT-py's models have.

    Norms stand before the parts, embeddings are multiplied by the root of their size, and sources
    and texts have vocabularies of their own.
    """
    sizes, width = (37, 31), 16
    spec = transformer_spec.TransformerSpec.from_config((2, 1), 2, pre_norm=True)
    for name, value in spec.variables().items():
        if value is None:
            *scopes, last = name.split("/")
            shape = shape_of(name, sizes, width)
            mean = 1.0 if last == "gamma" else 0.0
            scale = 0.4 if len(shape) == 1 else 2 * shape[-1] ** -0.5
            made = (mean + scale * rng.standard_normal(shape)).astype(np.float32)
            setattr(index_spec(spec, "/".join(scopes)), last, made)
    for stack in (spec.encoder, spec.decoder):
        stack.position_encodings.encodings = rng.standard_normal((24, width)).astype(np.float32)
        for layer in stack.layer:
            parts = [layer.self_attention.linear[0], layer.self_attention.linear[1]]
            if stack is spec.decoder:
                parts += layer.attention.linear
            for linear in (*parts, layer.ffn.linear_0, layer.ffn.linear_1):
                linear.bias = (0.3 * rng.standard_normal(linear.weight.shape[0])).astype(np.float32)
    spec.decoder.projection.bias = rng.standard_normal(sizes[1]).astype(np.float32)
    spec.register_source_vocabulary(words(sizes[0]))
    spec.register_target_vocabulary([*reversed(words(sizes[1]))])
    spec.config.decoder_start_token = "<s>"
    spec.config.add_source_eos = True
    files = finished(spec, None, folder)
    translator = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)
    sources, texts = rng.integers(4, sizes[0], (5, 8)), rng.integers(4, sizes[1], (5, 7))
    written = [[f"t{token}" for token in row] for row in sources]
    scored = translator.score_batch(written, [[f"t{token}" for token in row] for row in texts])
    numbers = {word: number for number, word in enumerate(reversed(words(sizes[1])))}
    found = translator.translate_batch(
        written, max_decoding_length=12, return_scores=True, return_end_token=True
    )
    tokens = np.full((len(found), 13), -1)
    for row, each in zip(tokens, found, strict=True):
        row[: len(each.hypotheses[0])] = [numbers[token] for token in each.hypotheses[0]]
    return {
        **files,
        "sources": sources,
        "texts": np.array([[numbers[f"t{token}"] for token in row] for row in texts]),
        "log_probs": np.array([row.log_probs for row in scored]),
        "tokens_2": tokens,
        "scores_2": np.array([each.scores[0] for each in found]),
    }


def shape_of(name: str, sizes: tuple[int, int], width: int) -> tuple[int, ...]:
    """Return the shape of a variable that a specification leaves open."""
    if name.endswith(("gamma", "beta")):
        return (width,)
    if "embeddings" in name or "projection" in name:
        return (sizes[not name.startswith("encoder")], width)
    part = name.split("/")[-2]
    if "ffn" in name:
        return (24, width) if part == "linear_0" else (width, 24)
    joined = {"self_attention": (3, 1), "attention": (1, 2, 1)}[name.split("/")[-3]]
    return (joined[int(part[-1])] * width, width)


def decoder(name: str, folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return a folder's files, and the logits of some tokens."""
    family, loader, config, quantization = DECODERS[name]
    model = model_of(family, config, len(name), False)
    spec = loader().get_model_spec(model)
    spec.register_vocabulary(words(VOCABULARY))
    if family != "gpt2":
        spec.config.layer_norm_epsilon = config["rms_norm_eps"]
    files = finished(spec, quantization, folder)
    generator = ctranslate2.Generator(str(folder), compute_type="float32", intra_threads=1)
    ids = rng.integers(4, VOCABULARY, (2, 12))
    logits = generator.forward_batch([[f"t{token}" for token in row] for row in ids])
    return {**files, "ids": ids, "logits": np.array(logits)}


def whisper(folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return a folder's files, and the tokens and logits of a spectrogram."""
    model = model_of("whisper", WHISPER, 7, True)
    spec = converters.WhisperLoader().get_model_spec(model)
    tokens = [f"t{number}" for number in range(40)] + list(SPEECH_TOKENS)
    tokens += [f"<|{0.02 * number:.2f}|>" for number in range(WHISPER["vocab_size"] - len(tokens))]
    spec.register_vocabulary(tokens)
    for key, value in {**SUPPRESSED, "lang_ids": [42], "alignment_heads": [[1, 0]]}.items():
        setattr(spec.config, key, value)
    (folder / "preprocessor_config.json").write_text(json.dumps(SOUND))
    files = finished(spec, "int8_float32", folder)
    frames = rng.standard_normal((1, 20, 100)).astype(np.float32)
    features = ctranslate2.StorageView.from_array(frames)
    theirs = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    prompt = [41, 45]
    result: dict[str, Any] = {**files, "frames": frames, "prompt": np.array(prompt)}
    for beams in (1, 5):
        found = theirs.generate(
            features, [prompt], beam_size=beams, return_scores=True, return_logits_vocab=beams == 1,
            max_length=24,
        )[0]  # fmt: skip
        result[f"tokens_{beams}"] = np.array(found.sequences_ids[0])
        result[f"scores_{beams}"] = np.array(found.scores[0])
        if beams == 1:
            result["logits"] = np.array(found.logits).reshape(-1, WHISPER["vocab_size"])
    return result


def main() -> None:
    """Write the file."""
    arrays: dict[str, Any] = {}
    rng = np.random.default_rng(5)
    for name in (*TEXT_TO_TEXT, *DECODERS, "whisper", "opennmt"):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if name in TEXT_TO_TEXT:
                made = text_to_text(name, folder, rng)
            else:
                others = {"whisper": whisper, "opennmt": opennmt}
                made = others[name](folder, rng) if name in others else decoder(name, folder, rng)
        arrays |= {f"{name}/{key}": value for key, value in made.items()}
    np.savez_compressed(Path(__file__).parent / "ctranslate2_golden.npz", **arrays)


if __name__ == "__main__":
    main()
