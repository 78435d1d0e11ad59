"""What `import vrekit` offers: export, and datasets as Python objects. `vrekit/__init__.py` names it."""
