"""Terms that can be added to any objective, one file each."""

from popmargin.regularizers.base import REGULARIZERS as REGULARIZERS
from popmargin.regularizers.base import Regularizer as Regularizer
from popmargin.regularizers.base import regularizer as regularizer
