"""Evaluation: how well preferences are ordered and how good generations are, with intervals."""

from popmargin.evaluation.discriminative import DiscriminativeMetrics as DiscriminativeMetrics
from popmargin.evaluation.discriminative import discriminative_differences as discriminative_differences
from popmargin.evaluation.discriminative import discriminative_metrics as discriminative_metrics
from popmargin.evaluation.generations import Generations as Generations
from popmargin.evaluation.generative import generative_differences as generative_differences
from popmargin.evaluation.generative import generative_metrics as generative_metrics
from popmargin.rewards.base import Reward as Reward
from popmargin.rewards.load import load_reward as load_reward
from popmargin.statistics.intervals import Interval as Interval
from popmargin.statistics.jackknife import jackknife as jackknife
from popmargin.statistics.jackknife import jackknife_seeds as jackknife_seeds
