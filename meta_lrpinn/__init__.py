"""Acoustic wavefields in the frequency domain by low-rank physics-informed networks.

Units are km, km/s and Hz; depth is positive down; time goes as e^{+iωt}.

    import meta_lrpinn as ml

    model = ml.load_velocity("model.npz")
    field = ml.solve(model, frequency=5.0, source=(1.0, 0.025))
    truth = ml.solve(model, 5.0, (1.0, 0.025), ml.FiniteDifferences())
    field.scattered, field.background, field.total, field.at(points)

Names are imported when they are first used, so that `import meta_lrpinn` is quick and
changes nothing about JAX.
"""

import lazy_loader

from meta_lrpinn._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
