"""The front of services: HAProxy, configured from what the controller last wrote. Standard library only.

It runs as a job of its own (`python -m quarterdeck_front`) and needs neither controller nor agent to go on:
what it was asked for is a file beside it ($QD_INBOX), and so is what it has seen ($QD_OUTBOX).
"""
