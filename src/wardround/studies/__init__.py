"""Study files: what sites are asked to approve."""
