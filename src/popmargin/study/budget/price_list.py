"""What a label costs, in seconds of an annotator: the words to be read, and a decision."""

from dataclasses import dataclass

from popmargin.study.budget.budget_config import PricesConfig
from popmargin.study.budget.human_strengths import HumanStrengths


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Seconds of one of each; see `PricesConfig`.

    Attributes:
        reading: seconds of reading a preference: its prompt and both responses.
    """

    reading: float
    preference: float
    comparison: float
    chained: float
    inline: float
    vote: float
    rating: float
    grade: float

    @staticmethod
    def of(config: PricesConfig, strengths: HumanStrengths) -> "Prices":
        """The prices of some data: those that are set, others from the mean words of a preference."""
        prompt, response = strengths.words
        reading = 60 * (prompt + 2 * response) / config.words_per_minute
        decide = config.decide_seconds

        def or_else(given: float | None, otherwise: float) -> float:
            return otherwise if given is None else given

        preference = or_else(config.preference, reading + decide)
        return Prices(
            reading=reading,
            preference=preference,
            comparison=or_else(config.comparison, 2 * reading + decide),
            chained=or_else(config.chained, reading + decide),
            inline=or_else(config.inline, decide),
            vote=or_else(config.vote, preference),
            rating=or_else(config.rating, reading + 2 * decide),
            grade=or_else(config.grade, config.grade_seconds),
        )
