"""Preference data: reading, checking, splitting and tokenizing.

The public names are listed in `__init__.pyi` and imported when first used: some commands need few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
