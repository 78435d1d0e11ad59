"""One file a stage; `vrekit.codecs.registry.STAGES` knows them by id and loads them when used."""
