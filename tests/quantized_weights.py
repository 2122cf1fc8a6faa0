"""What a quantized model in memory will store."""

from compressor.model.integers import QuantizedLinear, as_arrays
from compressor.model.quantized import integers_in, quantized_modules


def quantized_weights(model) -> dict[str, QuantizedLinear]:
    """The integers of a model whose inputs are rounded too, by module name."""
    found = {}
    for name, module in quantized_modules(model).items():
        inputs = (getattr(module, part, None) for part in ("input_scale", "input_zero_point"))
        parts = (integers_in(name, module), module.weight_scale, *inputs)
        found[name] = as_arrays(*map(_array, parts))
    return found


def _array(tensor):
    if tensor is None:
        return None
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
