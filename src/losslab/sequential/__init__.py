"""Statistics of sweeps whose seeds are added until every loss is decided. numpy and scipy only; no torch."""
