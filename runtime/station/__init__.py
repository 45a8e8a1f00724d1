"""Many scenes, unattended: the runner, lists of jobs, the inbox, budgets."""
