"""Tiny configurations of transformers' classes, by what kind of model they are."""

from __future__ import annotations

from typing import Any

Options = dict[str, Any]

TEXT: Options = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
MARKS: Options = {"bos_token_id": 1, "eos_token_id": 2}
PLAIN = TEXT | MARKS
GROUPED: Options = PLAIN | {"num_key_value_heads": 2}
NARROW: Options = GROUPED | {"head_dim": 8}
SLIDING: Options = NARROW | {"sliding_window": 4}
EXPERTS: Options = GROUPED | {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
NARROW_EXPERTS: Options = EXPERTS | {"head_dim": 8}
LATENT: Options = EXPERTS | {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "qk_nope_head_dim": 16, "n_group": 2,
}  # fmt: skip
GPT: Options = PLAIN | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GEMMA: Options = SLIDING | {"query_pre_attn_scalar": 8}

DECODERS: dict[str, Options] = {
    "Apertus": GROUPED,
    "Arcee": GROUPED,
    "BioGpt": PLAIN,
    "BitNet": GROUPED,
    "CTRL": GPT | {"dff": 64},
    "CodeGen": GPT | {"rotary_dim": 4},
    "Cohere": GROUPED,
    "Cohere2": SLIDING,
    "Cwm": SLIDING,
    "DeepseekV2": LATENT,
    "DeepseekV3": LATENT,
    "Doge": GROUPED,
    "Dots1": NARROW_EXPERTS,
    "Ernie4_5": NARROW,
    "Exaone4": SLIDING,
    "GPT2": GPT,
    "GPTBigCode": GPT,
    "GPTJ": GPT | {"rotary_dim": 4},
    "GPTNeoX": PLAIN,
    "Gemma": NARROW,
    "Gemma2": GEMMA,
    "Gemma3Text": GEMMA | {"layer_types": ["sliding_attention", "full_attention"]},
    "Glm": NARROW,
    "Glm4Moe": NARROW_EXPERTS,
    "GptOss": NARROW_EXPERTS | {"sliding_window": 4},
    "Granite": GROUPED,
    "GraniteMoe": EXPERTS,
    "Helium": NARROW,
    "Lfm2": GROUPED,
    "Llama": GROUPED,
    "Llama4Text": NARROW_EXPERTS | {"attention_chunk_size": 4, "intermediate_size_mlp": 64},
    "Ministral": SLIDING,
    "Mistral": SLIDING,
    "Mixtral": EXPERTS,
    "Nemotron": GROUPED,
    "OPT": PLAIN | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Olmo2": GROUPED,
    "Olmo3": SLIDING,
    "Olmoe": EXPERTS,
    "Persimmon": PLAIN,
    "Phi": PLAIN,
    "Phi3": GROUPED | {"sliding_window": 4},
    "Qwen2": GROUPED,
    "Qwen3": NARROW,
    "Qwen3Moe": NARROW_EXPERTS,
    "SeedOss": NARROW,
    "SmolLM3": GROUPED,
    "StableLm": GROUPED,
    "Starcoder2": GROUPED | {"sliding_window": 4},
    "VaultGemma": SLIDING,
}

ENCODERS: dict[str, Options] = {
    "Albert": TEXT | {"embedding_size": 16},
    "Bert": TEXT,
    "BertGeneration": TEXT,
    "Camembert": TEXT,
    "DistilBert": TEXT | {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "Electra": TEXT | {"embedding_size": 32},
    "Ernie": TEXT,
    "Esm": TEXT,
    "EuroBert": GROUPED,
    "JinaEmbeddingsV3": TEXT,
    "LayoutLM": TEXT,
    "ModernBert": PLAIN | {
        "global_attn_every_n_layers": 2, "local_attention": 4, "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "NomicBert": TEXT,
    "Roberta": TEXT,
    "RobertaPreLayerNorm": TEXT,
    "Splinter": TEXT,
    "XLMRoberta": TEXT,
    "XLMRobertaXL": TEXT,
}  # fmt: skip

HALVES: Options = MARKS | {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0,
    "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
T5: Options = {
    "vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip

TRANSLATORS: dict[str, Options] = {
    "Bart": HALVES,
    "BigBirdPegasus": HALVES | {"attention_type": "original_full"},  # its encoder adds the mask
    "BlenderbotSmall": HALVES,
    "LongT5": T5,
    "M2M100": HALVES,
    "MBart": HALVES,
    "MT5": T5,
    "Marian": HALVES | {"decoder_vocab_size": 99},
    "Pegasus": HALVES,
    "T5": T5,
    "T5Gemma": {"encoder": GEMMA, "decoder": GEMMA, "vocab_size": 99},
}

IMAGE: Options = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip

IMAGES: dict[str, Options] = {
    "Beit": IMAGE,
    "CLIPVision": IMAGE,
    "DINOv3ViT": IMAGE,
    "DeiT": IMAGE,
    "Dinov2": IMAGE,
    "PixtralVision": IMAGE,
    "SiglipVision": IMAGE,
    "Swin": {
        "image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 1],
        "num_heads": [2, 4], "window_size": 4,
    },
    "ViT": IMAGE,
    "ViTMAE": IMAGE | {"decoder_hidden_size": 32},
    "Yolos": IMAGE | {"image_size": [16, 16], "num_detection_tokens": 3},
}  # fmt: skip
