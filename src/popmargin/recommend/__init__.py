"""Recommendation of items: sequences and their splits, metrics, baselines, and a model that denoises item vectors.

The public names are listed in `__init__.pyi` and imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
