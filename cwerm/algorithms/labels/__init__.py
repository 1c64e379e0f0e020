"""Which labels are wrong, how sure that is, and what they should be."""

from cwerm.algorithms.labels.find import find_label_errors
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.labels.posterior import LabelPosterior
from cwerm.algorithms.labels.result import LabelErrors

__all__ = ["Judgement", "LabelErrors", "LabelPosterior", "find_label_errors"]
