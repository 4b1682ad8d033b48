"""Eight exercises, one for each hands-on project, with a check that runs the reader's own file."""
