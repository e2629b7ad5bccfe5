"""`qd gateway`: the console and the commands for whoever has a key, over plain SSH.

`server.py` speaks SSH; `session.py` is one program for one channel; `forks.py` starts the programs; a
`passage.py` is the socket on which such a program finds the control plane, as the person of the key.
"""
