"""The report: everything the suite has to say, as a static site that needs no network."""
