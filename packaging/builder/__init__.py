"""Makes the packages: a directory tree per architecture, then nfpm (packaging/README.md)."""
