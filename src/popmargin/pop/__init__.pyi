"""Preferences over preferences (PoP): which of two preferences is the stronger one."""

from .active import ActiveSampler as ActiveSampler
from .edges import PopEdges as PopEdges
from .fit import fit_arrays as fit_arrays
from .fit import fit_strengths as fit_strengths
from .noise import bradley_terry_labels as bradley_terry_labels
from .noise import flip_labels as flip_labels
from .noise import label_probability as label_probability
from .sampling import sample_edges as sample_edges
from .scale import StrengthScale as StrengthScale
from .stats import EdgeStatistics as EdgeStatistics
from .stats import edge_statistics as edge_statistics
from .strengths import half_normal_strengths as half_normal_strengths
from .strengths import normal_strengths as normal_strengths
from .strengths import soft_labels as soft_labels
from .strengths import with_strengths as with_strengths
from .zero import right_share as right_share
