"""The outside: command line and, later, network services."""
