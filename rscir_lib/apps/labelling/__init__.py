"""Labels of one's own: proposals, a widget answered by keyboard, journals of several people, PatternCom's file."""

from rscir_lib.apps.labelling.journal import (
    agreement,
    changed_share,
    cohens_kappa,
    merge_journals,
    read_journal,
    read_journals,
    write_patterncom,
)  # fmt: skip
from rscir_lib.apps.labelling.session import Session, check_proposals, propose
from rscir_lib.apps.labelling.widget import Labeller
