"""Int8 linear layers in memory and on disk: the simulation and the checkpoint format.

The format is compressed-tensors' `int-quantized`: each quantized linear stores `weight` as int8
[out, in] and `weight_scale` as float [out, 1]; with static activations also `input_scale` [1]
and, if asymmetric, `input_zero_point` int8 [1]. In memory the weight is a float tensor that holds
exactly values * scale, and the module's forward rounds its inputs to their int8 grid, which is
what transformers makes of the folder on its first forward pass. How values and scales are chosen
is a method's matter.

Weights alone may be rounded instead, to 8 bits or fewer: format `pack-quantized`, with the values
packed into 32-bit words `weight_packed` and `weight_scale` [out, groups].

Large embedding tables are a group of their own, `weight` int8 [rows, width] and `weight_scale`
[rows, 1]; plain transformers opens them. One that a head is tied to stays float: transformers 5
would make the head's first weights as int8, and fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.model.integers import FORMAT, MIXED, PACKED, Grid
from compressor.model.load import silenced
from compressor.model.save import (
    LARGEST_DIFFERENCE,
    SHARD_SIZE,
    largest_difference,
    probe_inputs,
    stored_dtype,
)
from compressor.model.tables import is_table, table_pattern

if TYPE_CHECKING:
    import torch
    from compressed_tensors.quantization import QuantizationScheme
    from transformers import PreTrainedModel

    from compressor.model.load import Loaded

OUTSIDE_LAYERS = r"re:^(?!.*\.\d+\.)"
Rows = tuple["torch.Tensor", "torch.Tensor"]


def float_linears(model: torch.nn.Module) -> list[str]:
    """Names of the linear layers that are not quantized, in the model's order."""
    from torch import nn

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not hasattr(module, "quantization_scheme")
    ]


def is_quantized(model: torch.nn.Module) -> bool:
    """Whether any module of `model` carries a quantization scheme."""
    return bool(quantized_modules(model))


def quantized_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules of `model` that carry a quantization scheme, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "quantization_scheme", None) is not None
    }


def attach(
    model: PreTrainedModel,
    rows: Mapping[str, Rows],
    activations: Mapping[str, Grid] | None = None,
    *,
    symmetric: bool = True,
) -> None:
    """Make `model` simulate int8 arithmetic in place, ready for `save_quantized`.

    Args:
        model: a float32 model.
        rows: int8 values [out, in] and scales [out, 1] by name of an `nn.Linear`.
        activations: the input grid of each of them; None rounds each token's input to a grid of
            its own when it comes.
        symmetric: whether all zero points in `activations` are 0.
    """
    import torch

    _attach(model, rows, _scheme(static=activations is not None, symmetric=symmetric))
    if activations is not None:
        with torch.no_grad():
            for name, (scale, zero_point) in activations.items():
                module = model.get_submodule(name)
                module.input_scale.fill_(scale)
                if not symmetric:
                    module.input_zero_point.fill_(zero_point)


def attach_weights(model: PreTrainedModel, rows: Mapping[str, Rows], bits: int, group: int) -> None:
    """Make `model` hold weights on integer grids in place, with inputs as they are.

    Args:
        model: a float32 model.
        rows: int8 values [out, in] and scales [out, groups] by name of an `nn.Linear`.
        bits: of a value, at most 8; values are stored packed into words.
        group: how many neighbouring inputs share a scale; 0 for all of a row.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=bits, dynamic=False, symmetric=True, **strategy)
    _attach(model, rows, QuantizationScheme(targets=["Linear"], weights=weights, format=PACKED))


def attach_tables(model: PreTrainedModel, rows: Mapping[str, Rows]) -> None:
    """Make `model` hold embedding tables on int8 grids in place.

    Args:
        model: a float32 model, or one whose linear layers were attached.
        rows: int8 values [rows, width] and scales [rows, 1] by name of an `nn.Embedding`.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(num_bits=8, strategy="channel", dynamic=False, symmetric=True)
    targets = [f"re:{table_pattern(model.config.model_type)}"]
    # Without its format the library would look for packed words.
    _attach(model, rows, QuantizationScheme(targets=targets, weights=weights, format=FORMAT))


def _attach(model: PreTrainedModel, rows: Mapping[str, Rows], scheme: QuantizationScheme) -> None:
    import torch
    from compressed_tensors.quantization import (
        QuantizationStatus,
        initialize_module_for_quantization,
    )

    with torch.no_grad():
        for name, (values, scale) in rows.items():
            module = model.get_submodule(name)
            module.weight.copy_(on_grid(values, scale))
            initialize_module_for_quantization(module, scheme, force_zero_point=False)
            module.weight_scale.copy_(scale)
            # The weight lies on its grid already; this status rounds inputs only.
            module.quantization_status = QuantizationStatus.DECOMPRESSED
    if rows:
        model.config.quantization_config = _config(model)


def on_grid(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Values * scale, float [out, in].

    Args:
        values: integers [out, in].
        scale: [out, groups]; every group of neighbouring inputs has one.
    """
    return values * spread(scale, values.shape[1])


def spread(scale: torch.Tensor, inputs: int) -> torch.Tensor:
    """Scales [out, groups] as one for each input, [out, inputs]."""
    return scale.repeat_interleave(inputs // scale.shape[1], dim=1)


def _scheme(*, static: bool, symmetric: bool) -> QuantizationScheme:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    inputs = (
        QuantizationArgs(num_bits=8, strategy="tensor", dynamic=False, symmetric=symmetric)
        if static
        else QuantizationArgs(num_bits=8, strategy="token", dynamic=True, symmetric=True)
    )
    weights = QuantizationArgs(num_bits=8, strategy="channel", dynamic=False, symmetric=True)
    return QuantizationScheme(
        targets=["Linear"], weights=weights, input_activations=inputs, format=FORMAT
    )


def _config(model: PreTrainedModel) -> dict[str, Any]:
    """The `quantization_config` of config.json, by what the modules carry.

    A linear that is not on the ignore list is taken for int8, and the same folder may be opened
    under another head. So every float linear is listed by its name here and in the bare model
    without a head, and with them whatever lies outside numbered layers (RobertaModel has a pooler
    that its classifier lacks), but for the tables that are quantized. Tables that are not are
    listed too.
    """
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus
    from torch import nn

    found = quantized_modules(model)
    schemes = {id(m.quantization_scheme): m.quantization_scheme for m in found.values()}
    groups = sorted(schemes.values(), key=lambda scheme: scheme.targets != ["Linear"])
    ignore, outside = float_linears(model), OUTSIDE_LAYERS
    if any(isinstance(module, nn.Embedding) for module in found.values()):
        family = model.config.model_type
        every = [name for name, _ in model.named_modules() if is_table(name, family)]
        ignore += [name for name in every if name not in found]
        outside += f"(?!{table_pattern(family)})"
    prefix = f"{model.base_model_prefix}."
    ignore += [name.removeprefix(prefix) for name in ignore if name.startswith(prefix)]
    formats = {scheme.format for scheme in groups}
    config = QuantizationConfig(
        config_groups={f"group_{number}": scheme for number, scheme in enumerate(groups)},
        format=groups[0].format if len(formats) == 1 else MIXED,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=[*ignore, outside],
    )
    return config.model_dump(mode="json")


def integers_in(name: str, module: torch.nn.Module) -> torch.Tensor:
    """The int8 values [out, in] of a quantized module, whatever state it is in.

    Raises:
        InputError: its weights lie between them.
    """
    import torch

    if module.weight.dtype == torch.int8:
        return module.weight.detach()
    exact = module.weight.detach() / spread(module.weight_scale, module.weight.shape[1])
    values = exact.round()
    # Float32 division misses a whole number below 128 by 1e-5 at most.
    if not bool(((exact - values).abs() < 1e-3).all()):
        raise InputError(
            f"the weights of {name} were changed after they were quantized and lie between the "
            "int8 values",
            hint="quantize after every other step",
        )
    return values.to(torch.int8)


def save_quantized(loaded: Loaded, folder: Path) -> None:
    """Write integers, config with `quantization_config`, and tokenizer; check that they reload.

    What stays in float keeps the number format of the checkpoint that it came from, and the model
    in memory then holds such values; otherwise it is the same afterwards.

    Raises:
        InputError: nothing is quantized, weights were changed after quantization, or the folder
            reloads to other outputs.
    """
    model = loaded.model
    _write(model, folder, stored_dtype(loaded.checkpoint))
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(folder)
    with silenced():
        again = type(model).from_pretrained(
            folder, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
        difference = largest_difference(model, again, probe_inputs(model))
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(
            f"the quantized checkpoint differs from the model in memory by up to {difference:.2e} "
            "in its outputs; nothing was written",
            where=folder.name,
        )


def _write(model: PreTrainedModel, folder: Path, stored: torch.dtype) -> None:
    from compressed_tensors.compressors import compress_module, decompress_module
    from compressed_tensors.quantization import QuantizationStatus

    modules = quantized_modules(model)
    if not modules:
        raise InputError("no layer of the model is quantized, so there is no int8 to save")
    floats = [m for m in modules.values() if m.quantization_status != QuantizationStatus.COMPRESSED]
    for name, module in modules.items():
        integers_in(name, module)  # refuses weights that left their grid
    try:
        for module in floats:
            compress_module(module)
        tensors = in_format(model.state_dict(), stored)
        model.save_pretrained(folder, state_dict=tensors, max_shard_size=SHARD_SIZE)
    finally:
        for module in floats:
            if module.quantization_status == QuantizationStatus.COMPRESSED:
                decompress_module(module)


def in_format(tensors: Mapping[str, torch.Tensor], stored: torch.dtype) -> dict[str, torch.Tensor]:
    """Float32 tensors in another number format, scales left out; one that is shared stays shared.

    The tensors themselves take the values that are left.
    """
    import torch

    made: dict[int, torch.Tensor] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and not name.endswith("_scale"):
            place = tensor.data_ptr()
            if place not in made:
                made[place] = tensor.to(stored)
                tensor.copy_(made[place])
            found[name] = made[place]
        else:
            found[name] = tensor
    return found
