"""Real Debian hosts with systemd and sshd, provisioned by the playbooks from bare: `make test-hosts`."""
