"""Other spellings of the published networks' tensor names, as rename rules for `load_into`.

The original Wan releases of the autoencoder and text encoder are pickles, which are never opened;
the safetensors releases beside them use the names of diffusers and transformers. The rules leave
the original names alone, so they may be given for either kind of file.
"""

from video.weights import RenameRules

# Layers of a decoder level in the original numbering: three residual blocks and an upsampler.
_LAYERS_PER_LEVEL = 4
_NUM_LEVELS = 4


def _decoder_levels() -> list[tuple[str, str]]:
    return [
        rule
        for level in range(_NUM_LEVELS)
        for first in (level * _LAYERS_PER_LEVEL,)
        for rule in (
            *(
                (
                    rf"^decoder\.up_blocks\.{level}\.resnets\.{i}\.",
                    f"decoder.upsamples.{first + i}.",
                )
                for i in range(_LAYERS_PER_LEVEL - 1)
            ),
            (
                rf"^decoder\.up_blocks\.{level}\.upsamplers\.0\.",
                f"decoder.upsamples.{first + _LAYERS_PER_LEVEL - 1}.",
            ),
        )
    ]


# diffusers AutoencoderKLWan.
VAE_RULES: RenameRules = (
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    *_decoder_levels(),
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.middle.0."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.middle.1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.middle.2."),
    (r"\.(\d+)\.norm1\.", r".\1.residual.0."),
    (r"\.(\d+)\.conv1\.", r".\1.residual.2."),
    (r"\.(\d+)\.norm2\.", r".\1.residual.3."),
    (r"\.(\d+)\.conv2\.", r".\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
)

# transformers UMT5EncoderModel; it may store the token embedding twice.
TEXT_RULES: RenameRules = (
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"blocks.\1.norm1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"blocks.\1.norm2."),
    (
        r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.",
        r"blocks.\1.pos_embedding.embedding.",
    ),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"blocks.\1.attn."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
)
TEXT_IGNORED = (r"^encoder\.embed_tokens\.",)
