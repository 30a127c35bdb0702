"""The command line: one file a command, answered without torch until work starts."""
