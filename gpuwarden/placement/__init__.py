"""Which worker runs where: the plan (pure), its drop-ins, the oneshot service."""
