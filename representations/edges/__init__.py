"""Edge strength."""
