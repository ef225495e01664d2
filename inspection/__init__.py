"""Looking into stores: what they are, what the teacher said, and the views as it saw them. Nothing here writes one."""
