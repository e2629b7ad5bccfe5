"""A cluster whose head is another machine: its API socket, carried here over SSH.

`contexts` says which cluster is meant, `link` connects to it, and `carrier` is the process behind: one for
each destination, which keeps one SSH connection (`session`) and passes bytes through it (`channels`).
`far` runs on the head where its sshd forwards no sockets. Nothing but `carrier` imports asyncssh.
"""
