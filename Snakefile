# LoCo: location-consistent image features, from raw scans to tables of results.
# The steps are defined in rules/, included in the order of the data flow, and implemented in the library loco/.
from snakemake.utils import min_version

min_version("9.19")


report: "report/workflow.rst"


onsuccess:
    print("Tables: results/tables/   Figures: results/figures/   Checks of the raw scenes: results/tables/checks.md")


onerror:
    print("The messages of failed jobs are in results/logs/; `loco failed` prints the end of each")


include: "rules/common.smk"
include: "rules/simulate.smk"
include: "rules/reconstruct.smk"
include: "rules/check.smk"
include: "rules/fuse.smk"
include: "rules/frames.smk"
include: "rules/correspondence.smk"
include: "rules/pairs.smk"
include: "rules/label.smk"
include: "rules/encode.smk"
include: "rules/train.smk"
include: "rules/extract.smk"
include: "rules/evaluate.smk"
include: "rules/summarise.smk"
include: "rules/ablate.smk"


localrules:
    all,
    checks,
    checks_table,
    tables,
    figures,
    labels,


rule all:
    """Tables and figures of everything that `run` names in the configuration."""
    default_target: True
    input:
        rules.check_all.output,
        rules.tables.input,
        rules.figures.input,
