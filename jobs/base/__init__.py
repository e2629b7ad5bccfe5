"""What everything else uses: errors, units, times, names, paths and words. Imports no other room."""
