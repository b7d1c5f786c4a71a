"""popmargin: preference optimization with margins from preferences over preferences (PoP).

The public names are listed in `__init__.pyi` and imported when first used, so that the command line starts quickly.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
