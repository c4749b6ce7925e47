"""The only importer of pynvml: reading a card, one error vocabulary. No policy here."""
