"""Training objectives, one file each; `popmargin objectives` lists them."""

from popmargin.objectives.base import OBJECTIVES as OBJECTIVES
from popmargin.objectives.base import Golden as Golden
from popmargin.objectives.base import Needs as Needs
from popmargin.objectives.base import Objective as Objective
from popmargin.objectives.base import Rows as Rows
from popmargin.objectives.base import objective as objective
