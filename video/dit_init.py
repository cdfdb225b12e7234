"""Starting values of a network that is trained from scratch."""

import torch
from torch import nn

from video.audio_tokens import AudioInjector
from video.dit_block import Head

_EMBEDDING_STD = 0.02


@torch.no_grad()
def initialise(network: nn.Module, *, zero_outputs: bool) -> None:
    """Xavier for projections and patches, small normals for embeddings, zero biases.

    With `zero_outputs` the head and the audio injectors start by adding nothing, so training
    begins at the identity. On the meta device there is nothing to fill.
    """
    if next(network.parameters()).is_meta:
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            if name.startswith(("time_embedding", "text_embedding")):
                nn.init.normal_(module.weight, std=_EMBEDDING_STD)
            else:
                nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=_EMBEDDING_STD)
    if zero_outputs:
        _zero_outputs(network)


def _zero_outputs(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Head):
            nn.init.zeros_(module.head.weight)
        elif isinstance(module, AudioInjector):
            for injector in module.injector:
                nn.init.zeros_(injector.get_submodule("o").get_parameter("weight"))
