"""popmargin: preference optimization with margins from preferences over preferences (PoP)."""

from .api import evaluate as evaluate
from .api import train as train
from .config import RunConfig as RunConfig
from .data import Preferences as Preferences
from .data import load_preferences as load_preferences
from .data import split_preferences as split_preferences
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import MissingExtraError as MissingExtraError
from .errors import PopmarginError as PopmarginError
from .errors import RunError as RunError
from .margin import Margin as Margin
from .objectives import Golden as Golden
from .objectives import Needs as Needs
from .objectives import Rows as Rows
from .objectives import objective as objective
from .pop import PopEdges as PopEdges
from .pop import edge_statistics as edge_statistics
from .pop import sample_edges as sample_edges
from .regularizers import regularizer as regularizer
from .report import write_report as write_report
from .rewards.rate import rate_preferences as rate_preferences
from .study.compare import compare as compare
from .study.config import StudyConfig as StudyConfig
from .study.config import load_study as load_study
from .tokens import token_selector as token_selector
