"""What guards a server below its routes: connections, host names, limits on bodies and answers."""
