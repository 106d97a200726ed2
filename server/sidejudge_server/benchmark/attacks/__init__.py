"""Attacks on judges, made up for this project: texts that try to turn a fail into a pass."""
