"""YAML a user starts from; `vrekit list configs` names them."""
