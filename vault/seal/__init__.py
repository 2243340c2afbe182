"""The sealing core: keys, signed records and sealed data, without web, database or settings.

Every function that parses, verifies or opens raises `SealError` and nothing else, for any bytes.
Only `identity` holds the private half of an HPKE key; the other modules get it passed in.
"""
