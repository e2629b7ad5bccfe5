"""The job of a monitor: compares what a service sees with a reference. It runs in an interpreter
with numpy and scipy (`quarterdeck[monitor]`), and imports nothing else of Quarterdeck.

    python -m quarterdeck_monitor

It reads `task.json` and `window.jsonl` of its work folder, and writes `report.json`.
"""
