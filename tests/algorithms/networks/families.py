"""A small model of each of timm's families: going through them all should take a minute."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from typing import Any

import pytest
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn

SMALL = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet26t",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_lite_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_9_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_s",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_maxvit",
    "metaformer": "caformer_s18",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_300m",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9",
    "res2net": "res2net50_14w_8s",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}

# Families whose smallest model is large, or slow to make: what their constructor is given instead, so
# that they are narrow and shallow, as timm's own models for tests are. The slow tests leave them as they are.
NARROW: dict[str, dict[str, Any]] = {
    "beit": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    "cait": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    "convmixer": {"dim": 64, "depth": 2},
    "csatv2": {
        "dims": (16, 24, 32, 64),
        "depths": (1, 1, 2, 2),
        "transformer_depths": (0, 0, 1, 1),
    },
    "davit": {"embed_dims": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8)},
    "deepseek_vit": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    "focalnet": {"embed_dim": 32, "depths": (1, 1, 1, 1)},
    "gcvit": {"depths": (1, 1, 1, 1)},
    "gemma4_vit": {
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 2,
        "head_dim": 32,
        "intermediate_size": 128,
    },
    "hiera": {"embed_dim": 16, "stages": (1, 1, 2, 1)},
    "hieradet_sam2": {"embed_dim": 16, "stages": (1, 1, 2, 1), "global_att_blocks": (3,)},
    "metaformer": {"dims": (32, 32, 64, 64), "depths": (1, 1, 1, 1)},
    "mobilenetv5": {
        "block_args": decode_arch_def(
            [
                ["er_r1_k3_s2_e4_c16"],
                ["uir_r1_a3_k5_s2_e6_c32"],
                ["uir_r1_a5_k5_s2_e6_c64", "mqa_r1_k3_h2_v2_s1_d32_c64", "uir_r1_a0_k0_s1_e2_c64"],
                ["uir_r1_a5_k5_s2_e6_c64", "mqa_r1_k3_h2_s1_d32_c64", "uir_r1_a0_k0_s1_e2_c64"],
            ]
        ),
        "num_features": 128,
    },
    "naflexvit": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    "nasnet": {"stem_size": 24, "channel_multiplier": 2, "num_features": 384},
    "nest": {"embed_dims": (24, 48, 96), "num_heads": (1, 2, 4), "depths": (1, 1, 2)},
    "nextvit": {"depths": (1, 1, 5, 1)},
    "qwen3_vit": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    "rdnet": {"num_blocks_list": [1] * 7},
    "res2net": {"layers": (1, 1, 1, 1)},
    "resnetv2": {"layers": (1, 1, 1, 1)},
    "sequencer": {"layers": (1, 1, 1, 1)},
    "swin_transformer": {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    "swin_transformer_v2": {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    "swin_transformer_v2_cr": {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    "tiny_vit": {"embed_dims": (16, 32, 64, 64), "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)},
    "tnt": {"embed_dim": 96, "depth": 2},
    "tresnet": {"layers": (1, 1, 1, 1)},
    "twins": {"embed_dims": (32, 32, 64, 64), "depths": (1, 1, 1, 1)},
    "vgg": {"mlp_ratio": 0.1},
    "vision_transformer_sam": {
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 2,
        "global_attn_indexes": (1,),
    },
    "vitamin": {"depth": 1},
    "volo": {"layers": (1, 1, 2, 1), "embed_dims": (48, 96, 96, 96), "num_heads": (2, 4, 4, 4)},
}


def make_narrow(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test, models of this family are made with the sizes of `NARROW`."""
    module = import_module(f"timm.models.{family}")
    build = module.build_model_with_cfg

    def build_narrow(kind: type, name: str, pretrained: bool, **sizes: Any) -> nn.Module:
        return build(kind, name, pretrained, **{**sizes, **deepcopy(NARROW[family])})

    monkeypatch.setattr(module, "build_model_with_cfg", build_narrow)
