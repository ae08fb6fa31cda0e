from collections.abc import Mapping
from typing import Any

from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.models.code_prior import CodePrior

SETTINGS = ("temperature", "top_k", "top_p", "guidance_scale", "guidance_power")


def level_settings(
    levels: Mapping[str, CodePrior], settings: Mapping[str, dict[str, Any]], *arguments: Any
) -> dict[str, dict[str, Any]]:
    """How each level's codes are drawn: the settings, with what the arguments say in their place.

    Args:
        levels: Dict from level to its prior.
        settings: Dict from level to a dict of some of `SETTINGS`.
        *arguments: None, or a number, or a dict from level to one, for each of them in turn.

    Returns:
        Dict from level to the keywords of `CodePrior.generate`.

    Raises:
        ValueError: If a level, a setting or a number is not as expected.
    """
    if set(settings) - set(levels):
        raise ValueError(
            f"Expected settings of the levels {tuple(levels)}. "
            f"Received: settings of {sorted(set(settings) - set(levels))}"
        )
    result = {level: dict(settings[level]) for level in levels}
    for name, value in zip(SETTINGS, arguments):
        values = value if isinstance(value, dict) else dict.fromkeys(levels, value)
        if set(values) - set(levels):
            raise ValueError(f"Expected the levels {tuple(levels)}. Received: {name}={value}")
        for level, number in values.items():
            if number is not None:
                result[level][name] = number
    for level, keywords in result.items():
        if set(keywords) - set(SETTINGS):
            raise ValueError(
                f"Expected settings among {SETTINGS}. Received: settings[{level!r}]={keywords}"
            )
        levels[level].check_sampling(Sampling(**keywords))
    return result
