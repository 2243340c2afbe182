"""What opens and signs inside the service: a KMS, and the two identities that live behind it."""
