"""Evidence: auditors, and what they are shown to verify the service offline."""
