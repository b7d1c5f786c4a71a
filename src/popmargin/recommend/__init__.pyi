"""Recommendation of items: sequences and their splits, metrics, baselines, and a model that denoises item vectors."""

from .read_sequences import load_sequences as load_sequences
from .splitting import leave_one_out as leave_one_out
from .splitting import split_by_time as split_by_time
from .splitting import split_by_user as split_by_user
from .trained import TrainedRecommender as TrainedRecommender
from .trained import load as load
from .trained import rank as rank
