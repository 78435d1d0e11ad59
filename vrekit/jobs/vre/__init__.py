"""Output folders of VRE, the tool vrekit succeeds, made into datasets: `vrekit convert --from vre`."""
