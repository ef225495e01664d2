"""The commands: each parses, wires and prints; what they do is in the packages beside this one."""
