"""Everything about an alert, as a page. Pure."""

from __future__ import annotations

from datetime import datetime

from console.text import neutralise
from console.tui.core.alerts.list import state_words
from console.tui.core.draw.facts import fact
from console.tui.core.draw.format import age
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import BLANK, Line, line
from jobs.wire.alertviews import AlertView


def detail_lines(alert: AlertView, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """What is wrong, since when, who was told, and who looks after it."""
    said, tone = state_words(alert, glyphs)
    out = [line((neutralise(alert["subject"]), "strong"), "  ", (said, tone)), BLANK]
    out += fact("text", alert["text"], width)
    out += fact("rule", f"{alert['rule']}, {alert['severity']}", width)
    out += fact("node", alert["node"], width)
    out += fact("since", f"{_at(alert['since'])}, {age(alert['since'], now)} ago", width)
    if alert["state"] == "RESOLVED":
        out += fact(
            "over", f"{_at(alert['changed_at'])}, {age(alert['changed_at'], now)} ago", width
        )
    told = alert["told_at"]
    out += fact("told", f"channels, {_at(told)}" if told else "no channel", width)
    if alert["acked_by"]:
        out += fact("acked by", alert["acked_by"], width)
        out += fact("why", alert["acked_why"], width)
    if (silence := alert["silence"]) is not None:
        by = f"by {silence['user']} until {_at(silence['until'])}"
        out += fact("silenced", f"{silence['rule']} {silence['subject']}, {by}", width)
        out += fact("why", silence["reason"], width)
    return out


def _at(text: str) -> str:
    """Local date and time."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
