"""From checked data to a registered router with one command: hands-on project 8."""
