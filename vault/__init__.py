"""TwinVault service: sealed traces, consent as keys, private twins, provable answers."""
