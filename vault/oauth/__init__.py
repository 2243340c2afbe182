"""How companies prove who they are: the token endpoint, DPoP, access tokens, signed questions."""
