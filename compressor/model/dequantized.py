"""A quantized model turned back into a plain float one that holds exactly what the integers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.model.load import load_whole
from compressor.model.quantized import quantized_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressor.checkpoint.folder import Checkpoint
    from compressor.model.load import Loaded


def dequantize(model: PreTrainedModel) -> None:
    """Turn a quantized model into a plain float one in place: weights become values * scale.

    Inputs are no longer rounded, and nothing of the quantization is left in modules or config.
    """
    from compressed_tensors.compressors import decompress_module
    from compressed_tensors.quantization import QuantizationMetadata, QuantizationStatus

    for module in quantized_modules(model).values():
        if module.quantization_status == QuantizationStatus.COMPRESSED:
            decompress_module(module)
        QuantizationMetadata.clear_quantization(module)
        del module.quantization_status
        module.__dict__.pop("forward", None)  # back to the class's own
    hook = model.__dict__.pop("ct_decompress_hook", None)
    if hook is not None:
        hook.remove()
    for key in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(key, None)
    for key in ("quantization_config", "_is_quantized"):
        model.config.__dict__.pop(key, None)


def load_dequantized(checkpoint: Checkpoint, *, attention: str | None = None) -> Loaded:
    """Load an int8 checkpoint as a float model that holds exactly values * scale.

    Args:
        checkpoint: the opened folder.
        attention: see `load`.
    """
    loaded = load_whole(checkpoint, attention=attention)
    dequantize(loaded.model)
    return loaded
