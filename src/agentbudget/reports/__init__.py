"""Pictures and pages of what was recorded. They read traces, reports and replays, and change nothing."""

from agentbudget.reports.page import page, write_page

__all__ = ["page", "write_page"]
