"""Statistics of backtests and watched runs: pure, from counts and sums, each with its source. Imports scipy.

| question | where |
|---|---|
| a rate, of independent decisions | `proportions.wilson_interval` |
| the same, weighted | `proportions.weighted_interval` |
| two policies on the same decisions | `paired.mcnemar`, `paired.paired_difference` |
| the same where decisions share subjects | `clusters.difference_test`, `clusters.cluster_difference` |
| a rate where decisions share subjects | `clusters.cluster_proportion`; whether that matters: `clusters.wideness` |
| two groups of independent decisions | `two_groups.fisher`, `two_groups.association` |
| many slices | `multiple.holm` |
| a run that is watched | `sequences.proportion_sequence`, `.difference_sequence` |
| the same, subject by subject | `betting.RatioSequence` |
| how small an effect could be found | `power.detectable_difference`, `.detectable_rates`, `.runs_to_see` |
| outcomes of only what was allowed | `selective.bounds`, `selective.PropensitySums` |
| the same mix of cases? | `drift.drift` |

What shares a subject is summed by subject as it streams by (`cluster_sums.ClusterSums`), in bounded memory.
"""

from schemas.errors import BadConfig

try:
    import scipy.special  # noqa: F401
except ImportError:
    raise BadConfig("rates and backtests need scipy", help="pip install 'lumyn-streams[stats]'") from None
