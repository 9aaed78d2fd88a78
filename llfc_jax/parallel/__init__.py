"""Devices, processes and loops: where arrays lie, who works, how a loop is run."""
