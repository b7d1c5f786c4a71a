"""Tasks: training a policy, a reward model, a text-to-image model, or a custom task; one file each."""

from popmargin.tasks.base import TASKS as TASKS
from popmargin.tasks.base import Encoded as Encoded
from popmargin.tasks.base import Inputs as Inputs
from popmargin.tasks.base import Scorer as Scorer
from popmargin.tasks.base import Task as Task
from popmargin.tasks.base import task as task
