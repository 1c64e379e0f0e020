"""What the user asks for: the job's tree, its files, and mistakes explained."""
