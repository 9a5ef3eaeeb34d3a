"""Networks from their settings and from files."""

from flax import linen as nn

from meta_lrpinn import configs, models


def make_network(config: configs.NetworkConfig) -> nn.Module:
    """The network of a configuration."""
    common = {
        "width": config.width,
        "depth": config.depth,
        "ndim": config.ndim,
        "first_scale": config.first_scale,
        "last_width": config.features,
        "layer_share": config.layer_share,
    }
    if config.kind == "pinn":
        return models.PINN(**common, frequency_input=config.frequency_input)
    return models.make_meta_lrpinn(
        **common, rank=config.rank, initialisation=config.initialisation
    )
