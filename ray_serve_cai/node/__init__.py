"""What runs in a container: find the role, check the machine, start Ray, supervise it. Imports no Ray."""
