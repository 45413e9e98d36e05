"""Static figures, each shown in a notebook and kept in the run folder."""
