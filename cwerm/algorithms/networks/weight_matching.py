"""A file's tensors for a timm network: every one is used, or of a kind that is known to be left over."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch import Tensor, nn

from cwerm.algorithms.networks.weight_files import WeightFile

__all__ = ["load_weights_into"]

# Heads, what was trained beside the network, and what only its training needed. By the first name:
BESIDE = re.compile(
    r"(aux.*|head.*|fc|classifier.*|last_linear|logits|pre_logits|proj|projector.*|projection.*|predictor.*"
    r"|prototypes.*|decoder.*|mask_token|logit_scale|logit_bias|criterion|loss.*|metric.*|(train|val|test)_.*)",
    re.IGNORECASE,
)
# ... and by the last.
COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
CONSTANTS = ("relative_position_index", "attn_mask", "position_ids")
WRAPPERS = ("module.", "_orig_mod.", "model.")
# timm's own conversions of files as their authors publish them
CONVERSIONS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


def load_weights_into(module: nn.Module, name: str, file: WeightFile) -> str:
    """Load a file's tensors into the network ``name`` without classifier; what was chosen of the file.

    Tensors are found by name, below a prefix too; by timm's own conversion of published files; or by order,
    where shapes and number are those of the whole network.

    Raises:
        ValueError: a tensor is missing or has another shape; the network is there twice; or the file
            holds more than the network has: it is of a larger one.
    """
    expected = module.state_dict()
    state = file.tensors
    prefix, told = _prefix(file, expected, state), ""
    if prefix is None:
        state = _converted(module, name, expected, state)
        if state:
            told = ", as timm converts it"
        else:
            state = _by_order(name, expected, file.tensors)
        if not state:
            raise ValueError(
                f"weights file {file.path} does not fit {name}, first at {_misfit(file, expected)}; name the "
                "model it is of"
            )
        prefix = ""
    chosen = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    _refuse_more(file, name, expected, chosen)
    module.load_state_dict({key: chosen.get(key, value) for key, value in expected.items()})
    places = [place for place in (file.place, prefix.rstrip(".")) if place]
    if places:
        told = f" below '{'.'.join(places)}'{told}"
    return f"takes what lies in the file{told}" if told else ""


def _prefix(
    file: WeightFile, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> str | None:
    """What stands before the network's names in the file, None where it is not there by its names."""
    anchor = next(iter(_needed(expected)), None)
    if anchor is None:
        return None
    ends = [key[: -len(anchor)] for key in state if key == anchor or key.endswith(f".{anchor}")]
    found = [prefix for prefix in ends if _fits(expected, state, prefix)]
    if "" in found:
        return ""
    if len(found) > 1:
        names = " and ".join(f"'{prefix.rstrip('.')}'" for prefix in found)
        raise ValueError(
            f"weights file {file.path} holds the network more than once, below {names}; save the one that "
            "you want alone"
        )
    return found[0] if found else None


def _needed(expected: Mapping[str, Tensor]) -> Iterator[str]:
    """The names that a file must have: counters and tables of indices are as the network makes them."""
    return (key for key, value in expected.items() if value.is_floating_point())


def _fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str = "") -> bool:
    return all(
        prefix + key in state and state[prefix + key].shape == expected[key].shape
        for key in _needed(expected)
    )


def _converted(
    module: nn.Module, name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors as timm's own conversion for this family gives them, {} where that does not fit."""
    plain = dict(state)
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in plain):
            plain = {key[len(wrapper) :]: value for key, value in plain.items()}
    for convert in _conversions(name):
        try:
            try:
                found = convert(dict(plain), module)
            except TypeError:  # some take the tensors alone
                found = convert(dict(plain))
        except Exception:
            continue  # they look for certain names, and are not made for all others
        if _fits(expected, found):
            return found
    return {}


def _conversions(name: str) -> Iterator[Callable[..., dict[str, Tensor]]]:
    import timm

    family = sys.modules[timm.models.model_entrypoint(name.partition(".")[0]).__module__]
    for attribute in CONVERSIONS:
        convert = getattr(family, attribute, None)
        if convert is not None:
            yield convert
            if attribute == CONVERSIONS[0] and family.__name__.endswith(".deit"):
                yield partial(convert, adapt_layer_scale=True)


def _by_order(
    name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under the network's names, where their number is that of the network with its classifier.

    Unlike timm's, the match by order wants equal shapes: a file of another model must not pass for this one.
    """
    import timm

    full = timm.create_model(name).state_dict()
    names = full if len(state) == len(full) else expected
    if len(state) != len(names):
        return {}
    found = dict(zip(names, state.values(), strict=True))
    return found if _fits(expected, found) else {}


def _misfit(file: WeightFile, expected: Mapping[str, Tensor]) -> str:
    """The first name that the file lacks or has in another shape."""
    for key in _needed(expected):
        if key not in file.tensors:
            return key
        found, wanted = tuple(file.tensors[key].shape), tuple(expected[key].shape)
        if found != wanted:
            return f"{key} (shape {found} instead of {wanted})"
    return "the order of its tensors"


def _refuse_more(
    file: WeightFile, name: str, expected: Mapping[str, Tensor], chosen: Mapping[str, Tensor]
) -> None:
    """A larger network holds all of a smaller one's names, and is another network all the same."""
    more = [key for key in chosen if key not in expected and not _is_left_over(key)]
    if more:
        import timm

        full = timm.create_model(name).state_dict()
        more = [key for key in more if key not in full]
    if more:
        raise ValueError(
            f"weights file {file.path} is of a larger network than {name}: it holds {len(more)} tensors "
            f"more, such as {more[0]}; name the model it is of"
        )


def _is_left_over(key: str) -> bool:
    first, last = key.partition(".")[0], key.rpartition(".")[2]
    return bool(BESIDE.fullmatch(first)) or last in (*COUNTERS, *CONSTANTS)
