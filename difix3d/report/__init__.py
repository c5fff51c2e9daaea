"""``report.html``: one file that shows what a run gained, to be looked at in any browser, offline."""

from difix3d.report.page import write_report

__all__ = ["write_report"]
