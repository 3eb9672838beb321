"""Installing a Linux from a repository: what is known of its installers, and what a machine asks for."""
