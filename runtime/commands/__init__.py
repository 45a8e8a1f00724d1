"""The runtime's own commands, and what all commands share: options and the console."""
