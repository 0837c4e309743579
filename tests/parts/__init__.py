"""Parts: one module per real server or tool, saying how it is had, started, waited for and stopped."""
