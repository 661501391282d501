"""The network as SCU: objects out, one answer each. It knows no database and no verdict."""
