"""Which codec holds which target."""

from __future__ import annotations

from typing import Any

from replication.cache.codec import LARGEST_NUMERATOR, Codec
from replication.cache.counts import CountsCodec
from replication.cache.filling import FillingCodec
from replication.cache.ratio import RatioCodec
from replication.parts import most_at_level, parts_for_classes, parts_for_level

CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (CountsCodec, RatioCodec, FillingCodec)}


def codec_for(target_name: str, target_fields: dict[str, Any], vocabulary: int) -> Codec:
    """The codec of a target, given by its name and its fields, every one of them.

    Raises ValueError for a target that has no sparse rows of its own.
    """
    match target_name:
        case "TopK":
            k = target_fields["k"]
            return RatioCodec(vocabulary, length=k, cap=k)
        case "TopP":
            return RatioCodec(vocabulary, length=None, cap=target_fields["cap"])
        case "RandomSampling":
            draws, exponent = target_fields["draws"], target_fields["exponent"]
            if exponent == 1 and draws <= LARGEST_NUMERATOR:
                return CountsCodec(vocabulary, draws)
            return RatioCodec(vocabulary, length=None, cap=min(draws, vocabulary), normalised=True)
        case "Systematic" | "Stratified" if target_fields["draws"] <= LARGEST_NUMERATOR:
            return CountsCodec(vocabulary, target_fields["draws"])
        case "WaterFilling":
            most = target_fields["classes"]
            return FillingCodec(vocabulary, parts_for_classes(most), most)
        case "AdaptiveWaterFilling":
            level = target_fields["level"]
            return FillingCodec(vocabulary, parts_for_level(level), most_at_level(level))
        case "HeadAndSampledTail" | "WithoutReplacement":
            raise ValueError(
                f"{target_name} has weights that no codec stores; run it online (delivery = 'online'), or cache "
                "Systematic or AdaptiveWaterFilling, which have less error at equal bytes."
            )
        case "NaiveFix" | "SmoothedTopK":
            raise ValueError(
                f"{target_name} is completed from a TopK cache while training; cache TopK with the same k."
            )
    raise ValueError(
        f"Target {target_name!r} cannot be cached. Known: RandomSampling, Stratified and Systematic (up to "
        f"{LARGEST_NUMERATOR} draws), WaterFilling, AdaptiveWaterFilling, TopK, TopP; others run "
        "online (delivery = 'online')."
    )


def codec_named(name: str, vocabulary: int, parameters: dict[str, Any]) -> Codec:
    """The codec that a manifest names."""
    if name not in CODECS:
        raise ValueError(f"Unknown codec {name!r}. Known: {', '.join(CODECS)}. Read the cache with a newer version.")
    return CODECS[name](vocabulary, **parameters)
