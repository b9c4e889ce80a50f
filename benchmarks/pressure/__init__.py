"""An essential, a worker and a hog on a small machine, kept by different governors. See ../README.md."""
