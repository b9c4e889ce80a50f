"""The command line, one module per verb; each is imported only when it is used."""
