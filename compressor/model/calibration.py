"""Sample rows through a model, and what its linear maps are fed at real tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.inputs import fed

if TYPE_CHECKING:
    import torch
    from torch import nn


def no_rows() -> InputError:
    """The error of a method that has nothing to calibrate on."""
    return InputError("calibration needs sample rows", hint="name them with --data")


def first_rows(
    batches: Iterable[Mapping[str, torch.Tensor]] | None, rows: int
) -> list[dict[str, torch.Tensor]]:
    """Batches that hold the first `rows` rows, without labels.

    Raises:
        InputError: there are none.
    """
    kept: list[dict[str, torch.Tensor]] = []
    left = rows
    for batch in batches or ():
        inputs = {name: value[:left] for name, value in batch.items() if name != "labels"}
        kept.append(inputs)
        left -= len(next(iter(inputs.values())))
        if left <= 0:
            break
    if not kept:
        raise no_rows()
    return kept


def sample_of(
    model: nn.Module,
    batches: Iterable[Mapping[str, torch.Tensor]] | None,
    rows: int,
    *,
    instead: str,
) -> list[dict[str, torch.Tensor]]:
    """The first `rows` rows as `model` is fed them.

    Args:
        model: a transformers model.
        batches: rows in the order to take them.
        rows: how many; all where there are fewer.
        instead: what to type for a model that cannot be calibrated.

    Raises:
        InputError: there are no rows, or the model has an encoder and a decoder.
    """
    if model.config.is_encoder_decoder:
        raise InputError(
            f"a {model.config.model_type} model has an encoder and a decoder, and calibration "
            "follows the padding of one of them only",
            hint=f"{instead} needs no calibration",
        )
    return [fed(model, batch) for batch in first_rows(batches, rows)]


def rows_in(batches: Iterable[Mapping[str, torch.Tensor]]) -> int:
    """How many rows `batches` hold."""
    return sum(len(next(iter(batch.values()))) for batch in batches)


def real_positions(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The part of a layer's input that belongs to real tokens.

    Args:
        inputs: [batch, length, in], [batch * length, in], or a shape without padded positions.
        mask: [batch, length], 1 at real tokens; None without padding.
    """
    if mask is None:
        return inputs
    if inputs.shape[:2] == mask.shape:
        return inputs[mask.bool()]
    if inputs.ndim == 2 and len(inputs) == mask.numel():
        return inputs[mask.bool().flatten()]
    return inputs


def watch_inputs(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Iterable[Mapping[str, torch.Tensor]],
    see: Callable[[Sequence[str], torch.Tensor], None],
) -> None:
    """Run `batches` and show what the modules are fed at real tokens to `see(names, values)`.

    Modules that are fed one and the same tensor, as queries, keys and values are, are shown
    together: `names` has them in the order of their calls, and `values` is [..., in].
    """
    import torch

    mask: torch.Tensor | None = None
    # The last input, who was fed it, and its real tokens, taken before anything can change them.
    last: tuple[torch.Tensor, list[str], torch.Tensor] | None = None

    def show() -> None:
        nonlocal last
        if last is not None:
            see(*last[1:])
        last = None

    def hook(name: str) -> Callable[..., None]:
        def before(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            nonlocal last
            if last is not None and arguments[0] is last[0]:
                last[1].append(name)
                return
            show()
            last = arguments[0], [name], real_positions(arguments[0], mask)

        return before

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            for batch in batches:
                inputs = {name: value.to(device) for name, value in batch.items()}
                mask = inputs.get("attention_mask")
                model.eval()(**inputs)
                show()
    finally:
        for handle in handles:
            handle.remove()


def refuse_unreached(modules: Iterable[str], reached: Iterable[str], otherwise: str = "") -> None:
    """Refuse modules that no row went through.

    Args:
        modules: names of those that were watched.
        reached: names of those that were fed something.
        otherwise: more advice.

    Raises:
        InputError: it names the first three.
    """
    reached = set(reached)
    unused = [name for name in modules if name not in reached]
    if unused:
        raise InputError(
            f"the calibration rows never reach {', '.join(unused[:3])} ({len(unused)} in all)",
            hint=f"--exclude {unused[0]}{otherwise}",
        )


def refuse_infinite(values: torch.Tensor, name: str) -> None:
    """Refuse what is computed from inputs that are not finite.

    Raises:
        InputError: it names the module that was fed them.
    """
    if not values.isfinite().all():
        raise InputError(f"the inputs of {name} are not finite on the calibration rows")


def input_products(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Iterable[Mapping[str, torch.Tensor]],
) -> dict[tuple[str, ...], torch.Tensor]:
    """X^T X over the real tokens X [tokens, in] that the modules are fed.

    Returns:
        float64 [in, in] by the names of the modules that share these inputs.

    Raises:
        InputError: an input is not finite, or a module was never used.
    """
    products: dict[tuple[str, ...], torch.Tensor] = {}

    def add(names: Sequence[str], values: torch.Tensor) -> None:
        tokens = values.flatten(0, -2).float()  # [tokens, in]
        product = (tokens.T @ tokens).double()  # summed in float64: the order of rows is no matter
        refuse_infinite(product, names[0])
        key = tuple(names)
        products[key] = products[key] + product if key in products else product

    watch_inputs(model, modules, batches, add)
    refuse_unreached(modules, (name for names in products for name in names))
    return products
