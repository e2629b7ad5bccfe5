"""The processes that run on the cluster: controller (head node), node agents, their supervisor."""
