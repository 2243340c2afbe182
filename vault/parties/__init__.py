"""Who takes part: people with their vaults, companies, and the sessions in which owners and devices speak."""
