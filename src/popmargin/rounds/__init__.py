"""Programs of stages, each in a folder of its own: sample, label, pair, train, measure, and again."""

from popmargin.rounds.plan import Output as Output
from popmargin.rounds.plan import Plan as Plan
from popmargin.rounds.plan import Stage as Stage
from popmargin.rounds.plan import Waiting as Waiting
from popmargin.rounds.plan import Work as Work
from popmargin.rounds.runner import run_plan as run_plan
