"""What can be trained: one file a task, and what tasks share."""
