"""Root causes of a failure log (D3): which layer is at fault, before anybody trains on it (H7).

causes.yaml  the nine causes: intervention, guardrail, and the signals that speak for each
evidence     what can be read off one trace, beyond words
diagnosis    traces to a ranked report
consent      whether what a log shows may be trained on
"""

from shared.failures.consent import may_train_on
from shared.failures.diagnosis import analyse, diagnose
from shared.failures.log import read_traces

__all__ = ["analyse", "diagnose", "may_train_on", "read_traces"]
