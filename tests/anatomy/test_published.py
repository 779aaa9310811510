"""Published configurations: the parameter count that follows from the config alone, against the known total."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.anatomy.anatomy import Anatomy
from secateur.pruning.configure import child_config
from secateur.pruning.shape import resolve

#: name -> (config.json, parameters of the model transformers builds from it)
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {}

_P8B = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
_P9B = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
_P12B = "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-"


def _nemotron(pattern: str, hidden: int, ffn: int, heads: int, ssm_heads: int, ssm_head_dim: int) -> dict[str, Any]:
    return dict(
        model_type="nemotron_h", vocab_size=131072, hidden_size=hidden, hybrid_override_pattern=pattern,
        num_hidden_layers=len(pattern),
        num_attention_heads=heads, num_key_value_heads=8, head_dim=128, intermediate_size=ffn,
        mamba_num_heads=ssm_heads, mamba_head_dim=ssm_head_dim, n_groups=8, ssm_state_size=128, conv_kernel=4,
        tie_word_embeddings=False,
    )  # fmt: skip


PUBLISHED["Nemotron-H-8B"] = (_nemotron(_P8B, 4096, 21504, 32, 128, 64), 8_100_852_736)
PUBLISHED["Nemotron-H-4B"] = (_nemotron(_P8B, 3072, 12288, 32, 112, 64), 4_489_223_040)
PUBLISHED["Nemotron-Nano-12B-v2"] = (_nemotron(_P12B, 5120, 20480, 40, 128, 80), 12_310_001_152)
PUBLISHED["Nemotron-Nano-9B-v2"] = (_nemotron(_P9B, 4480, 15680, 40, 128, 80), 8_888_227_328)
PUBLISHED["Mamba-130M"] = (
    dict(model_type="mamba", vocab_size=50280, hidden_size=768, num_hidden_layers=24, state_size=16, expand=2),
    129_135_360,
)
PUBLISHED["Mamba2-2.7B"] = (
    dict(
        model_type="mamba2", vocab_size=50288, hidden_size=2560, num_hidden_layers=64, num_heads=80, head_dim=64,
        n_groups=1, state_size=128, expand=2, tie_word_embeddings=True,
    ),
    2_702_599_680,
)  # fmt: skip
PUBLISHED["Falcon-Mamba-7B"] = (
    dict(
        model_type="falcon_mamba", vocab_size=65024, hidden_size=4096, num_hidden_layers=64, state_size=16,
        intermediate_size=8192, time_step_rank=256, tie_word_embeddings=False,
    ),
    7_272_665_088,
)  # fmt: skip
PUBLISHED["Bamba-9B"] = (
    dict(
        model_type="bamba", vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, attn_layer_indices=[9, 18, 27], mamba_n_heads=128,
        mamba_d_head=64, mamba_n_groups=1, mamba_d_state=128, mamba_expand=2,
    ),
    9_780_235_392,
)  # fmt: skip
PUBLISHED["Zamba2-2.7B"] = (
    dict(
        model_type="zamba2", vocab_size=32000, hidden_size=2560, num_hidden_layers=54, n_mamba_heads=80,
        mamba_d_state=64, mamba_ngroups=1, intermediate_size=10240, num_attention_heads=32, num_mem_blocks=2,
        adapter_rank=128, use_shared_attention_adapter=False, use_mem_rope=False,
    ),
    2_662_214_560,
)  # fmt: skip
PUBLISHED["Jamba-v0.1"] = (dict(model_type="jamba"), 51_570_323_328)


def _falcon_h1(
    layers: int, hidden: int, ffn: int, heads: tuple[int, int, int], ssm: int, ssm_heads: int, state: int, vocab: int,
    groups: int = 1,
) -> dict[str, Any]:  # fmt: skip
    return dict(
        model_type="falcon_h1", vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=heads[2], mamba_d_ssm=ssm,
        mamba_n_heads=ssm_heads, mamba_d_head=ssm // ssm_heads, mamba_n_groups=groups, mamba_d_state=state,
        mamba_rms_norm=False, tie_word_embeddings=False,
    )  # fmt: skip


PUBLISHED["Falcon-H1-0.5B"] = (_falcon_h1(36, 1024, 2048, (8, 2, 64), 1536, 24, 128, 32784), 521_411_104)
PUBLISHED["Falcon-H1-1.5B"] = (_falcon_h1(24, 2048, 4608, (8, 2, 128), 3072, 48, 256, 65537), 1_554_789_760)
PUBLISHED["Falcon-H1-1.5B-Deep"] = (_falcon_h1(66, 1280, 3072, (6, 2, 128), 1536, 24, 256, 65537), 1_554_773_392)
PUBLISHED["Falcon-H1-3B"] = (_falcon_h1(32, 2560, 6144, (10, 2, 128), 4096, 32, 256, 65537), 3_149_261_312)
PUBLISHED["Falcon-H1-7B"] = (_falcon_h1(44, 3072, 12288, (12, 2, 128), 3072, 24, 256, 130049), 7_585_519_712)
PUBLISHED["Falcon-H1-34B"] = (_falcon_h1(72, 5120, 21504, (20, 4, 128), 4096, 32, 256, 261120, 2), 33_642_221_312)


def _granite(
    hidden: int, ffn: int, shared: int, experts: int, heads: tuple[int, int], ssm: tuple[int, int],
    attention: tuple[int, ...] = (5, 15, 25, 35), layers: int = 40,
) -> dict[str, Any]:  # fmt: skip
    return dict(
        model_type="granitemoehybrid", vocab_size=100352, hidden_size=hidden, intermediate_size=ffn,
        shared_intermediate_size=shared, num_hidden_layers=layers, num_attention_heads=heads[0],
        num_key_value_heads=heads[1], num_local_experts=experts, mamba_n_heads=ssm[0], mamba_d_head=ssm[1],
        layer_types=["attention" if i in attention else "mamba" for i in range(layers)],
        mamba_n_groups=1, mamba_d_state=128, mamba_expand=2, tie_word_embeddings=True,
    )  # fmt: skip


PUBLISHED["Granite-4.0-H-350M"] = (
    _granite(768, 2048, 2048, 0, (12, 4), (48, 32), (10, 13, 17, 27), 32),
    340_332_224,
)
PUBLISHED["Granite-4.0-H-1B"] = (_granite(1536, 4096, 4096, 0, (12, 4), (48, 64)), 1_461_538_368)
PUBLISHED["Granite-4.0-H-Micro"] = (_granite(2048, 8192, 8192, 0, (32, 8), (64, 64)), 3_191_396_096)
PUBLISHED["Granite-4.0-H-Tiny"] = (_granite(1536, 512, 1024, 64, (12, 4), (48, 64)), 6_939_037_248)
PUBLISHED["Granite-4.0-H-Small"] = (_granite(4096, 768, 1536, 72, (32, 8), (128, 64)), 32_207_337_984)

PUBLISHED["Llama-3.1-8B"] = (
    dict(
        model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
    ),
    8_030_261_248,
)  # fmt: skip
PUBLISHED["Mistral-7B-v0.1"] = (dict(model_type="mistral"), 7_241_732_096)
PUBLISHED["Mixtral-8x7B"] = (dict(model_type="mixtral"), 46_702_792_704)
PUBLISHED["Qwen3-8B"] = (
    dict(model_type="qwen3", intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8),
    8_190_735_360,
)
PUBLISHED["Qwen3-30B-A3B"] = (dict(model_type="qwen3_moe", head_dim=128, num_hidden_layers=48), 30_532_122_624)
PUBLISHED["Gemma-3-1B"] = (
    dict(
        model_type="gemma3_text", vocab_size=262144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26,
        num_attention_heads=4, num_key_value_heads=1,
    ),
    999_885_952,
)  # fmt: skip
PUBLISHED["gpt-oss-20b"] = (
    dict(model_type="gpt_oss", num_hidden_layers=24, num_local_experts=32),
    20_914_757_184,
)
PUBLISHED["gpt-oss-120b"] = (dict(model_type="gpt_oss"), 116_829_156_672)
PUBLISHED["OLMoE-1B-7B"] = (dict(model_type="olmoe", intermediate_size=1024), 6_919_161_856)
PUBLISHED["GPT-2"] = (dict(model_type="gpt2"), 124_439_808)
PUBLISHED["OPT-125m"] = (dict(model_type="opt"), 125_239_296)
PUBLISHED["OPT-350m"] = (
    dict(
        model_type="opt", hidden_size=1024, ffn_dim=4096, num_hidden_layers=24, num_attention_heads=16,
        word_embed_proj_dim=512, do_layer_norm_before=False,
    ),
    331_196_416,
)  # fmt: skip
PUBLISHED["Qwen3-Next-80B-A3B without MTP"] = (dict(model_type="qwen3_next"), 79_674_391_296)
PUBLISHED["Qwen3.5-9B text"] = (dict(model_type="qwen3_5_text"), 8_953_803_264)
PUBLISHED["Olmo-Hybrid-7B"] = (dict(model_type="olmo_hybrid"), 7_430_870_688)
PUBLISHED["LFM2-1.2B"] = (
    dict(
        model_type="lfm2", vocab_size=65536, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, block_ff_dim=12288, full_attn_idxs=[2, 5, 8, 10, 12, 14],
    ),
    1_170_340_608,
)  # fmt: skip
PUBLISHED["RecurrentGemma-2B"] = (
    dict(model_type="recurrent_gemma", intermediate_size=15360, num_key_value_heads=1),
    2_682_862_080,
)
_KIMI_FULL = [4, 8, 12, 16, 20, 24, 27]
PUBLISHED["Kimi-Linear-48B-A3B"] = (
    dict(
        model_type="kimi_linear", num_hidden_layers=27, first_k_dense_replace=1,
        linear_attn_config=dict(
            head_dim=128, num_heads=32, short_conv_kernel_size=4, full_attn_layers=_KIMI_FULL,
            kda_layers=[i for i in range(1, 28) if i not in _KIMI_FULL],
        ),
    ),
    49_122_681_728,
)  # fmt: skip
PUBLISHED["Kimi-Linear defaults"] = (dict(model_type="kimi_linear"), 49_133_081_120)


@pytest.mark.parametrize("name", PUBLISHED)
def test_count_follows_from_the_config(name: str) -> None:
    config, expected = PUBLISHED[name]
    assert Anatomy(config).count() == expected


def test_resizing_nemotron_h_8b_gives_the_4b() -> None:
    parent, wanted = Anatomy(PUBLISHED["Nemotron-H-8B"][0]), {"hidden": 3072, "ffn": 12288, "ssm_heads": 112}
    child = child_config(parent, resolve(parent, wanted), range(parent.n_layers))
    config, expected = PUBLISHED["Nemotron-H-4B"]
    assert child == config
    assert Anatomy(child).count() == parent.count(resolve(parent, wanted)) == expected


def test_resizing_and_dropping_nano_12b_gives_the_9b() -> None:
    """The 9B's pattern is a subsequence of the 12B's; one of the ways to find it there."""
    places, at = [], 0
    for letter in _P9B:
        at = _P12B.index(letter, at) + 1
        places.append(at - 1)
    parent = Anatomy(PUBLISHED["Nemotron-Nano-12B-v2"][0])
    sizes = resolve(parent, {"hidden": 4480, "ffn": 15680})
    child = child_config(parent, sizes, places)
    config, expected = PUBLISHED["Nemotron-Nano-9B-v2"]
    assert child == config
    assert Anatomy(child).count() == parent.count(sizes, frozenset(places)) == expected
