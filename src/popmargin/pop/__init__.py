"""Preferences over preferences (PoP): which of two preferences is the stronger one."""

from popmargin.pop.active import ActiveSampler as ActiveSampler
from popmargin.pop.edges import PopEdges as PopEdges
from popmargin.pop.fit import fit_arrays as fit_arrays
from popmargin.pop.fit import fit_strengths as fit_strengths
from popmargin.pop.noise import bradley_terry_labels as bradley_terry_labels
from popmargin.pop.noise import flip_labels as flip_labels
from popmargin.pop.noise import label_probability as label_probability
from popmargin.pop.sampling import sample_edges as sample_edges
from popmargin.pop.scale import StrengthScale as StrengthScale
from popmargin.pop.stats import EdgeStatistics as EdgeStatistics
from popmargin.pop.stats import edge_statistics as edge_statistics
from popmargin.pop.strengths import half_normal_strengths as half_normal_strengths
from popmargin.pop.strengths import normal_strengths as normal_strengths
from popmargin.pop.strengths import soft_labels as soft_labels
from popmargin.pop.strengths import with_strengths as with_strengths
from popmargin.pop.zero import right_share as right_share
