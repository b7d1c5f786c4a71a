"""Evaluation: how well preferences are ordered, and how good the generations are, with honest intervals."""

from popmargin.evaluate.discriminative import DiscriminativeMetrics as DiscriminativeMetrics
from popmargin.evaluate.discriminative import discriminative_differences as discriminative_differences
from popmargin.evaluate.discriminative import discriminative_metrics as discriminative_metrics
from popmargin.evaluate.generative import Generations as Generations
from popmargin.evaluate.generative import generative_differences as generative_differences
from popmargin.evaluate.generative import generative_metrics as generative_metrics
from popmargin.evaluate.rewards import Reward as Reward
from popmargin.evaluate.rewards import load_reward as load_reward
from popmargin.evaluate.statistics import Interval as Interval
from popmargin.evaluate.statistics import bootstrap as bootstrap
from popmargin.evaluate.statistics import bootstrap_seeds as bootstrap_seeds
