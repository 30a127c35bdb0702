"""One file a question; `results/` holds what was measured, written by the scripts and never by hand."""
