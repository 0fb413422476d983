"""Which codec holds which target: the target says it (`Target.storage`), the codecs' names stand here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replication.cache.codec import Codec
from replication.cache.counts import CountsCodec
from replication.cache.headed import HeadedCodec
from replication.cache.ratio import RatioCodec
from replication.cache.water_filling import FillingCodec

if TYPE_CHECKING:
    from replication.axes.targets.base import Target

CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (CountsCodec, RatioCodec, FillingCodec, HeadedCodec)}


def codec_of(target: Target, vocabulary: int) -> Codec:
    """The codec of a target. Raises ValueError, one line, for one that has no sparse rows that a codec stores."""
    storage = target.storage(vocabulary)
    if storage is None:
        raise ValueError(
            f"{type(target).__name__} has weights that no codec stores; run it online (delivery = 'online'), or cache "
            "Systematic or AdaptiveWaterFilling, which have less error at equal bytes."
        )
    return codec_named(storage.codec, vocabulary, storage.parameters)


def codec_for(target_name: str, target_fields: dict[str, Any], vocabulary: int) -> Codec:
    """The codec of a target that a manifest names, with its fields; a field that it does not state has its default.

    Raises ValueError as `codec_of` does, and for a target or a field that is not known.
    """
    # here, since targets load torch: readers and the cache's own processes take their codec from the manifest
    from replication.axes.targets.kept import TARGETS

    if target_name not in TARGETS:
        raise ValueError(f"Unknown target {target_name!r}. Known: {', '.join(TARGETS)}. Use a newer version.")
    try:
        target = TARGETS[target_name](**target_fields)
    except TypeError as error:
        raise ValueError(
            f"{target_name} does not have the fields {target_fields}: {error}. Use a newer version."
        ) from None
    return codec_of(target, vocabulary)


def codec_named(name: str, vocabulary: int, parameters: dict[str, Any]) -> Codec:
    """The codec that a manifest names."""
    if name not in CODECS:
        raise ValueError(f"Unknown codec {name!r}. Known: {', '.join(CODECS)}. Read the cache with a newer version.")
    return CODECS[name](vocabulary, **parameters)
