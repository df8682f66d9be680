"""How far two samples of showers are apart, and how far two samples of the same truth would be."""

from hepbridge.metrics.classifier import ClassifierSettings, classifier_test
from hepbridge.metrics.compare import compare, distances
from hepbridge.metrics.distance import wasserstein
from hepbridge.metrics.evaluation import Evaluation, evaluate
from hepbridge.metrics.failures import failures
from hepbridge.metrics.fidelity import displacement, fidelity, rank_correlation
from hepbridge.metrics.memorisation import memorisation
from hepbridge.metrics.observables import OBSERVABLES, Observable, table_rows
from hepbridge.metrics.paper import paper_rows
from hepbridge.metrics.prdc import prdc

__all__ = [
    "OBSERVABLES",
    "ClassifierSettings",
    "Evaluation",
    "Observable",
    "classifier_test",
    "compare",
    "displacement",
    "distances",
    "evaluate",
    "failures",
    "fidelity",
    "memorisation",
    "paper_rows",
    "prdc",
    "rank_correlation",
    "table_rows",
    "wasserstein",
]
