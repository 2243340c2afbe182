"""What releases cost in privacy, and the one durable ledger that refuses to overspend."""
