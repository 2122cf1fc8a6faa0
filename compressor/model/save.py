"""A torch module as a checkpoint folder that reloads to the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.inputs import sides_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from compressor.checkpoint.folder import Checkpoint
    from compressor.model.load import Loaded

SHARD_SIZE = "5GB"
LARGEST_DIFFERENCE = 1e-5


def save_model(loaded: Loaded, folder: Path) -> None:
    """Write weights, config and tokenizer into `folder`, and check that they come back.

    The weights keep the number format of the checkpoint that they came from; whatever the
    format, exact zeros stay exact zeros.

    Raises:
        InputError: the folder reloads to other logits than the module gives, which means that
            its config does not describe it.
    """
    import torch

    stored = stored_dtype(loaded.checkpoint)
    model = loaded.model
    if stored != torch.float32:
        model = model.to(stored)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(folder)
    reloaded = type(model).from_pretrained(
        folder, dtype=stored, attn_implementation=model.config._attn_implementation
    )
    inputs = probe_inputs(model)
    difference = largest_difference(model, reloaded, inputs)
    # The same weights give the same outputs up to the order of sums, which alignment may change.
    if not difference <= (LARGEST_DIFFERENCE if stored == torch.float32 else 1e-2):
        raise InputError(
            f"the saved model differs from the one in memory by up to {difference:.2e} in its "
            "outputs, so its config does not describe it; nothing was written",
            where=str(folder.name),
        )


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The floating-point format that holds most of a checkpoint's values."""
    import torch

    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    counts: dict[torch.dtype, int] = {}
    for info in checkpoint.tensors.values():
        if info.dtype in names:
            dtype = names[info.dtype]
            counts[dtype] = counts.get(dtype, 0) + info.numel
    return max(counts, key=counts.get, default=torch.float32)


def probe_inputs(model: PreTrainedModel, *, rows: int = 2, length: int = 7) -> dict:
    """Random token ids (fixed seed) that a text model takes: `input_ids` [rows, length] ...

    Or pictures; or also a decoder's tokens, where the model cannot make them from the text.
    """
    import inspect

    import torch

    generator = torch.Generator().manual_seed(0)
    config = model.config.get_text_config()
    if model.main_input_name == "pixel_values":
        shape = (rows, config.num_channels, *sides_of(config.image_size))
        return {"pixel_values": torch.randn(shape, generator=generator)}
    ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        if "SequenceClassification" in type(model).__name__:
            # They classify by the end of the text, of which every row must have one.
            ids[ids == config.eos_token_id] = config.eos_token_id + 1
            ids[:, -1] = config.eos_token_id
        elif "decoder_input_ids" in inspect.signature(model.forward).parameters:
            inputs["decoder_input_ids"] = ids.clone()  # one tensor would be traced as one input
    return inputs


def largest_difference(
    one: torch.nn.Module, other: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> float:
    """Largest absolute difference of the first outputs of two modules on `inputs`.

    Both compute where `one` is.
    """
    import torch

    device = next(one.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    with torch.inference_mode():
        first, second = (module.to(device).eval()(**inputs)[0].float() for module in (one, other))
    return float((first - second).abs().max())
