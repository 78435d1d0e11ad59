"""Codecs: one array ⇄ bytes. A codec is an id and a JSON config; the config is stored with the data."""
