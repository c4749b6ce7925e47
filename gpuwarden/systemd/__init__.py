"""The only code that speaks to systemd: notify, journal, units. No policy here."""
