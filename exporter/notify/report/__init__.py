"""The report that comes by itself each day or week: what was promised, what was kept, and what it cost."""
